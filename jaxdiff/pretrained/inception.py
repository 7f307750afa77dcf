"""The features of Inception-v3 from a weights file that the user brings.

The network of published Frechet inception distances is the graph of 2015-12-05 (`networks.inception`) with its weights,
which PyTorch projects pass around as `pt_inception-2015-12-05-6726825d.pth`. This loader takes the arrays of that file
from an .npz or .safetensors. It can tell the architecture and not the training: features are called by a fingerprint of
the weights, and a distance in them is a published FID only if these are those weights, the images of the count and size
that the publication says, and the reference statistics its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.networks.inception import FEATURES, Inception
from jaxdiff.networks.streams import counted
from jaxdiff.pretrained.feature_network import feature_network, grey_levels
from jaxdiff.pretrained.weights import filled, fingerprint, read_arrays

BATCH = 32  # images of 299 x 299 cells at a time
NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


CLASSIFIER = {"fc.weight": (1008, FEATURES), "fc.bias": (1008,)}


def features(path: str | Path, *, batch: int = BATCH) -> Any:
    """The feature function (N, H, W, 1 or 3) -> (N, 2048) of the weights at `path`, `batch` images at a time.

    Images are rounded to 256 grey levels, as published figures have it. Raises InputError for a file that is not there
    or damaged, and names the weights that are missing, unknown or misshapen."""
    arrays = read_arrays(path)
    net = from_arrays(arrays, what=str(path))
    own = {name: value for name, value in arrays.items() if name not in _left(arrays)}
    return feature_network(f"inception-v3 {FEATURES} ({fingerprint(own)})", net, grey_levels, batch)


def from_arrays(arrays: Mapping[str, np.ndarray], *, what: str = "the arrays") -> Inception:
    """The network with weights by their PyTorch names ("Mixed_5b.branch1x1.conv.weight").

    Its classifier of 1008 classes ("fc.weight") and counters of batches may be there and are left. Raises InputError as
    `features` does; so for torchvision's own Inception, another network, with 1000 classes and "AuxLogits"."""
    return filled(lambda: Inception(rngs=counted(0)), arrays, _named, left=_left(arrays), what=what)


def _left(arrays):
    return {
        name
        for name, value in arrays.items()
        if name.endswith(".num_batches_tracked") or CLASSIFIER.get(name) == value.shape
    }


def _named(place):
    *modules, kind, leaf = place
    if kind == "conv":  # (H, W, in, out) here, (out, in, H, W) there
        return ".".join([*modules, "conv", "weight"]), (3, 2, 0, 1)
    return ".".join([*modules, "bn", NAMES[leaf]]), (0,)
