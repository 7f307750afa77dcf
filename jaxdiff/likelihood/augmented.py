"""How likely the data are where a model knows the density of a larger state: with x the data in it and v the rest,

    log p(x) >= E[ log p(x, v) - log q(v) ],    v ~ q,

short of it by KL(q(v) | p(v | x)). Here q is the rest's own law in the process, p(X_t0 | x0 = x): near the data, a
velocity that knows nothing of x (Dockhorn et al. 2022)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.likelihood.bound import Bound, bound
from jaxdiff.numerics import aligned, known, partial, require
from jaxdiff.numerics.small import act, outer, root
from jaxdiff.processes.linear import Linear
from jaxdiff.types import Noise, PRNGKey, Time


def augmented(
    key: PRNGKey,
    process: Linear,
    log_prob: Callable[[Array], Any],
    x: Array,
    t0: Time,
    *,
    draws: int = 16,
    noise: Noise = jax.random.normal,
) -> Bound:
    """A bound on the log-density at t0 of the data alone, from `log_prob` of the whole state (k, *x.shape) at t0.

    `log_prob` is a function of one state, such as `lambda u: flow_log_prob(key, process, denoise, u, t0=t0).log_prob`.
    The terms are "state", E[log p(x, v)], and "rest", E[-log q(v)], over `draws` of v. Raises InputError for a process
    of one copy, draws < 1, and a t0 where a copy beside the data is known (t0 = 0 of a velocity that starts from 0)."""
    x, t0 = aligned(x, t0)
    if process.copies < 2 or draws < 1:
        raise InputError(
            f"augmented got {process.copies} copies of the data and draws={draws}, expected a process of several "
            "copies and at least 1 draw"
        )
    return _bound(key, process, partial(log_prob), x, known(_spread, process, t0), t0, draws, partial(noise))


def _spread(process, t0):
    spread = root(process.kernel(t0)[1][1:, 1:])
    message = (
        "a copy of the data is known at t0, so it has no density; give a later t0, or a process in which it starts "
        "with some variance"
    )
    return require(spread, known(lambda s: jnp.all(jnp.diagonal(s) > 0), spread), message)


def _bound(key, process, log_prob, x, spread, t0, draws, noise):
    mean = process.kernel(t0)[0][1:]
    z = noise(key, (draws, len(mean), *x.shape), x.dtype)
    states = jax.vmap(lambda z: jnp.concatenate([x[None], outer(mean, x) + act(spread, z)]))(z)
    scale = jnp.sum(jnp.log(jnp.diagonal(spread))) + 0.5 * len(mean) * math.log(2 * math.pi)
    rest = 0.5 * jnp.sum(z**2, axis=range(1, z.ndim)) + x.size * scale
    return bound({"state": jax.vmap(log_prob)(states), "rest": rest})
