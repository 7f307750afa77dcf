"""What several measurements ask of their input, each in one sentence."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.theory.walks import level


def rising(levels: Any, process: Gaussian | None = None) -> Float[Array, " levels"]:
    """Noise levels sigma / alpha that rise; with a process, such as it has. InputError for others."""
    levels = as_array(levels)
    rises = levels.ndim == 1 and len(levels) > 1
    if not rises or (concrete(levels) and not (np.all(np.diff(levels) > 0) and levels[0] > 0)):
        raise InputError(f"got noise levels {levels}, expected at least two rising ones above 0")
    if process is None or not concrete(levels):
        return levels
    low, high = (float(level(process, end)) for end in (0.0, 1.0))
    if not (low * (1 - 1e-5) <= float(levels[0]) and float(levels[-1]) <= high * (1 + 1e-5)):
        raise InputError(
            f"got noise levels from {float(levels[0]):g} to {float(levels[-1]):g}, which the process has not: its own "
            f"go from {low:g} to {high:g}"
        )
    return levels


def examples(data: Any) -> Array:
    """Data (n, ...), n >= 2, of finite numbers. InputError for others."""
    data = as_array(data)
    if data.ndim < 2 or len(data) < 2:
        raise InputError(f"got data of shape {data.shape}, expected (n, ...) with at least 2 examples")
    if concrete(data) and not jnp.isfinite(data).all():
        raise InputError("got data that are not all finite; leave out examples with NaN or infinity")
    return data


def counts(**numbers: int) -> None:
    """InputError where one of these is below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"got {name}={value}, expected at least 1")
