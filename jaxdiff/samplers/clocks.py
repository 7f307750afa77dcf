"""In which variable u, and in which units z = x / c, the probability flow is solved: its curves are the same in all.

With a = alpha / c and s = sigma / c, x_t = alpha x0 + sigma eps gives dz/du = a' D + s' (z - a D) / s. The flow is
smooth in some variables and stiff in others, which is what a solver pays for. A density changes by the scale alone:
log p(x) = log p(z) - dim log c."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import parameterizations
from jaxdiff.errors import InputError
from jaxdiff.numerics import known, require
from jaxdiff.numerics.small import root
from jaxdiff.processes.diffusing import Diffusing
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.linear import Linear
from jaxdiff.samplers.stepper import believe

__all__ = ["Clock", "angle", "log_snr", "suited", "time"]


class Clock(NamedTuple):
    """at(process, t) -> (u, c), and slope(process, denoise, u, z) -> dz/du of one example; pytrees of functions."""

    at: Callable[..., Any]
    slope: Callable[..., Any]


def angle() -> Clock:
    """u = atan(sigma / alpha), c = sqrt(alpha^2 + sigma^2): every Gaussian process is the one ODE dz/du = (cos(u) z -
    D) / sin(u) there, smooth up to both ends. The fewest solver steps."""
    return Clock(Partial(_polar), Partial(_turn))


def log_snr() -> Clock:
    """u = log(sigma / alpha), c = sqrt(alpha^2 + sigma^2): dz/du = cos (cos z - D), cos^2 = 1 / (1 + e^2u).

    Raises InputError at an end where alpha or sigma is 0: u is infinite there."""
    return Clock(Partial(_logarithmic), Partial(_fall))


def time() -> Clock:
    """u = t, c = 1: dx/dt as the process defines it, for any linear SDE; stiff towards small t on most.

    Raises InputError where sigma is 0, or the covariance of a linear SDE's kernel singular: the score is infinite."""
    return Clock(Partial(_plain), Partial(_drift))


def suited(process: Any, clock: Clock | None = None) -> Clock:
    """`clock`, or the default: the angle for a Gaussian process, t for one whose coefficients are matrices."""
    if isinstance(process, Gaussian):
        return angle() if clock is None else clock
    if not isinstance(process, Diffusing):
        raise InputError(
            f"a {type(process).__name__} has no probability flow: expected drift, diffuse and score, as "
            "processes.vp() and processes.linear have"
        )
    if clock is not None and jax.tree.structure(clock) != jax.tree.structure(time()):
        raise InputError(
            f"a {type(process).__name__} has no sigma / alpha for its clock to show; leave clock out, or give "
            "clocks.time()"
        )
    return time()


# The angle -----------------------------------------------------------------------------------------------------------


def _polar(process, t):
    alpha, sigma = process.scales(t)
    return jnp.arctan2(sigma, alpha), jnp.hypot(alpha, sigma)


def _turn(process, denoise, theta, z):
    # At theta = 0 the slope is 0 / 0. Held at `near`, the last sliver of the way is off by near^2, the rounding of z.
    theta = jnp.clip(theta, nearest(z.dtype), 0.5 * jnp.pi)
    cos, sin = jnp.clip(jnp.cos(theta), min=0), jnp.sin(theta)
    return (cos * z - _belief(process, denoise, sin / cos, z)) / sin


def nearest(dtype: Any) -> Any:
    """The least sigma / alpha at which the flow is followed, below which it is held: sqrt(eps)."""
    return np.sqrt(jnp.finfo(dtype).eps)


# The log-SNR ---------------------------------------------------------------------------------------------------------


def _logarithmic(process, t):
    alpha, sigma = process.scales(t)
    u = jnp.log(sigma) - jnp.log(alpha)
    message = (
        "log(sigma / alpha) is infinite where alpha or sigma is 0, so that clock never gets there; stop short of the "
        "end (t1=.9999 on flow and cosine), or use clocks.angle()"
    )
    return require(u, known(jnp.isfinite, u), message), jnp.hypot(alpha, sigma)


def _fall(process, denoise, u, z):
    cos = jnp.sqrt(jax.nn.sigmoid(-2 * u))
    return cos * (cos * z - _belief(process, denoise, jnp.exp(u), z))


def _belief(process, denoise, ratio, z):
    """D at sigma / alpha = ratio."""
    t = jnp.clip(process.time_of(ratio), 0, 1)
    alpha, sigma = process.scales(t)
    return believe(denoise, jnp.hypot(alpha, sigma) * z, t)


# The process's own time ----------------------------------------------------------------------------------------------


def _plain(process, t):
    if isinstance(process, Gaussian):
        message = (
            "sigma is 0 at an end, where dx/dt = alpha' D + sigma' E[eps | x_t] is unknown; stop short of it, or use "
            "clocks.angle()"
        )
        t = require(t, known(lambda p, t: p.scales(t)[1] > 0, process, t), message)
    elif isinstance(process, Linear):
        message = (
            "at an end a copy of the data is known, or a sum of them, and the score is infinite there; stop short of t "
            "= 0, at 1e-3 say"
        )
        t = require(t, known(lambda p, t: jnp.all(jnp.diagonal(root(p.kernel(t)[1])) > 0), process, t), message)
    return t, jnp.ones_like(t)


def _drift(process, denoise, t, x):
    if isinstance(process, Gaussian):  # not by the drift f x, which is infinite where alpha is 0
        return parameterizations.from_data(parameterizations.velocity, process, believe(denoise, x, t), x, t)
    score = process.score(x, believe(denoise, x, t, process), t)
    return process.drift(x, t) - 0.5 * process.diffuse(process.diffuse(score, t), t)
