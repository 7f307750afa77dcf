"""What every metric asks of its arguments, checked once, before a number exists that looks right.

Statistics are float64 NumPy: a sum over ten thousand float32 features loses the digits that a metric is made of."""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Shaped

from jaxdiff.errors import InputError
from jaxdiff.types import PRNGKey

Table = Shaped[ArrayLike, "..."]
"""N samples as rows of F features, (N, F), NumPy or JAX; a metric checks the shape itself, to say what is wrong."""
Images = Shaped[ArrayLike, "..."]
"""N images, molecules, sequences, ... of one shape: (N, ...)."""
Labels = Shaped[ArrayLike, "..."]
"""N integer classes: (N,)."""


def numbers(x: Any, name: str) -> Float64[np.ndarray, "..."]:
    """`x` as finite float64, or an InputError that names it."""
    raw = np.asarray(x)
    if raw.dtype.kind in "cOSUMm":
        raise InputError(f"{name} must hold real numbers, got dtype {raw.dtype}; give integers or floats.")
    out = raw.astype(np.float64)
    bad = out.size - np.count_nonzero(np.isfinite(out))
    if bad:
        raise InputError(
            f"{name} must be finite, got {bad} NaN or infinite of {out.size} values; "
            "find where the sampler or the feature function overflows before measuring it."
        )
    return out


def table(x: Any, name: str, least: int = 1) -> Float64[np.ndarray, "n f"]:
    """`x` as (N, F) float64 with N >= `least` and F >= 1, or an InputError that names it."""
    shape = np.shape(x)
    if len(shape) != 2:
        raise InputError(
            f"{name} must be a table (samples, features), got shape {shape}; flatten images with `features.pixels()`."
        )
    if shape[0] < least or shape[1] < 1:
        raise InputError(f"{name} must have at least {least} samples of 1 feature, got shape {shape}; give more data.")
    return numbers(x, name)


def pair(
    a: Any, b: Any, names: tuple[str, str], least: tuple[int, int] = (1, 1)
) -> tuple[Float64[np.ndarray, "n f"], Float64[np.ndarray, "m f"]]:
    """Two tables with the same features, or an InputError."""
    a, b = table(a, names[0], least[0]), table(b, names[1], least[1])
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"{names[0]} and {names[1]} must have the same features, got {a.shape[1]} and {b.shape[1]}; "
            "compute both with one feature function."
        )
    return a, b


def classes(x: Any, name: str, count: int) -> Shaped[np.ndarray, " n"]:
    """`x` as `count` integer labels, or an InputError that names it."""
    raw = np.asarray(x)
    if raw.shape != (count,) or raw.dtype.kind not in "iub":
        raise InputError(
            f"{name} must be {count} integer classes, one a sample, got {raw.dtype} of shape {raw.shape}; "
            "give class indices, not one-hot rows."
        )
    return raw


def whole(value: int, name: str, least: int, most: int, why: str) -> int:
    """`value` if least <= value <= most, or an InputError with the reason."""
    if not least <= value <= most:
        raise InputError(f"{name} must be {least} to {most} ({why}), got {value}; change {name} or give more data.")
    return value


def generator(key: PRNGKey) -> np.random.Generator:
    """A NumPy generator from a JAX key: the same key gives the same draws, with nothing to compile."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
