"""Where a likelihood starts: at a time t0 whose noise gives the data a density, a little above sigma = 0."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Time

LEVEL = 0.002
"""sigma / alpha at the default t0: EDM's sigma_min (Karras et al. 2022), the least noise of the sampling grids."""


def start(process: Any, t0: Time | None = None) -> Float[Array, ""]:
    """`t0`, checked; by default the time at which sigma / alpha = .002, or 0 where the process keeps more noise.

    Raises InputError unless 0 <= t0 < 1 and sigma(t0) > 0, and for a default on a process that has no sigma / alpha."""
    if t0 is None:
        if not isinstance(process, Gaussian):
            raise InputError(
                f"t0 has a default only where sigma / alpha is one number, which it is not on a "
                f"{type(process).__name__}; give t0, a time in (0, 1) such as 1e-3"
            )
        return known(_default, process)
    t0 = as_array(t0)
    if t0.shape != ():
        raise InputError(f"t0 has shape {t0.shape}, expected one time for one example")
    general = not isinstance(process, Gaussian)
    inside = known(lambda t: (t >= 0) & (t < 1), t0)
    t0 = require(
        t0, inside, f"t0={shown(t0)} is not in [0, 1): a likelihood goes from the data's end, t = 0, up to noise"
    )
    noisy = known(lambda p, t: t > 0 if general else p.scales(t)[1] > 0, process, t0)
    message = (
        f"sigma is 0 at t0={shown(t0)}, where data have no density that a model could know; leave t0 out, which takes "
        f"sigma / alpha = {LEVEL}, or give a later one"
    )
    return require(t0, noisy, message)


@eqx.filter_jit  # a learned schedule's inverse is a loop, which would compile at every call
def _default(process):
    return jnp.clip(process.time_of(as_array(LEVEL)), 0, 1)


def shown(value: Any) -> str:
    return f"{float(value):g}" if concrete(value) else "(traced)"
