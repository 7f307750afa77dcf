"""A feature function turns samples (N, ...) into a table (N, F), and a metric sees nothing else.

Say which features a figure was computed with: a Frechet distance on pixels, on 32 principal components or on a
classifier's activations are three different quantities, and none of them is comparable with a published figure that
used another network. So a feature function may carry a name (`named`), and statistics remember it.

Any callable (N, ...) -> (N, F) is one. `pixels` and `pca` are here; `jaxdiff.pretrained` has those of networks whose
weights the user brings, `alexnet.features` and `inception.features`. Those take images as models do, floats in [-1, 1],
or uint8 grey levels."""

import zlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float64

from jaxdiff.errors import InputError
from jaxdiff.metrics.inputs import Images, numbers, table, whole

Features = Callable[[Any], Any]
"""(N, ...) -> (N, F): `pixels()`, `pca(...)`, or any function of the user's (a jitted network's activations)."""


class Named(eqx.Module):
    """A feature function and what it is called."""

    function: Features
    name: str = eqx.field(static=True)

    def __call__(self, samples: Any) -> Any:
        """(N, ...) -> (N, F)."""
        return self.function(samples)


def named(name: str, function: Features) -> Features:
    """`function` under a name that statistics keep, so that those of other features are refused beside them."""
    return Named(function, name)


def name_of(features: Features) -> str | None:
    """The name of a feature function, None where it has none."""
    return features.name if isinstance(features, Named) else None


def pixels() -> Features:
    """The values themselves, flattened: (N, ...) -> (N, F) float64, F the product of the other axes."""
    return Named(Partial(_flatten), "pixels")


def pca(reference: Images, components: int) -> Features:
    """The leading principal components of `reference`: x -> (x - mean) V, V the top eigenvectors of the covariance.

    (N, ...) -> (N, components) float64, orthogonal and unscaled, so that distances within the kept space stay those of
    the data. Fit it on training data only. Raises InputError unless 1 <= components <= min(N - 1, F)."""
    flat = _flatten(reference)
    most = min(len(flat) - 1, flat.shape[1])
    whole(components, "components", 1, max(most, 0), "the directions that the reference can span")
    mean = flat.mean(0)
    _, _, rows = np.linalg.svd(flat - mean, full_matrices=False)
    basis = rows[:components].T
    basis = basis * np.where(basis[np.abs(basis).argmax(0), np.arange(components)] < 0, -1.0, 1.0)  # one sign for all
    mark = zlib.crc32(np.ascontiguousarray(basis, np.float32).tobytes())
    return Named(Partial(_project, mean, basis), f"pca {components} ({mark:08x})")


def extract(
    features: Features, samples: Images, *, name: str = "samples", chunk: int = 1024
) -> Float64[np.ndarray, "n f"]:
    """Apply a feature function to (N, ...) samples in chunks of rows, and check what comes back: (N, F) finite float64.

    Raises InputError for no samples, NaN in the samples or the features, and a feature function that returns another
    shape than (rows, F)."""
    shape = np.shape(samples)
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"{name} must have shape (samples, ...) with nothing empty, got {shape}; stack the samples.")
    whole(chunk, "chunk", 1, 1 << 40, "rows at a time")
    samples = np.asarray(samples)
    numbers(samples, name)
    parts = []
    for start in range(0, shape[0], chunk):
        part = samples[start : start + chunk]
        out = np.asarray(features(part))
        if out.ndim != 2 or len(out) != len(part):
            raise InputError(
                f"features of {len(part)} {name} must have shape ({len(part)}, F), got {out.shape}; "
                "pool or flatten what the network returns."
            )
        parts.append(out)
    return table(np.concatenate(parts), f"features of {name}")


def _flatten(x):
    shape = np.shape(x)
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"samples must have shape (samples, ...) with nothing empty, got {shape}; stack the samples.")
    return numbers(x, "samples").reshape(shape[0], -1)


def _project(mean, basis, x):
    flat = _flatten(x)
    if flat.shape[1] != len(mean):
        raise InputError(
            f"samples must have {len(mean)} values each, as the reference of `pca` had, got {flat.shape[1]}; "
            "fit `pca` on data of the same shape."
        )
    return (flat - mean) @ basis
