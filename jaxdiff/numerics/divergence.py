"""The trace of a Jacobian J = df/dx of a field that keeps x's shape, exactly or by probes; both also return f(x).

Hutchinson (1989): E[v' J v] = tr J for any v with E[v v'] = I, with variance, S the symmetric part of J,

    2 (|S|_F^2 - sum of S_ii^2)  for Rademacher v (so it is exact for a diagonal J),    2 |S|_F^2  for normal v.

J v is pushed forward (`jax.jvp`): no tape is kept, and f is evaluated once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.types import PRNGKey

__all__ = ["exact", "hutchinson", "normal", "rademacher"]


def exact(f: Callable[[Any], Any], x: Array, *, chunk: int = 64) -> tuple[Array, Float[Array, ""]]:
    """(f(x), tr J): f is linearised once, and as many tangents as x has numbers are pushed through, `chunk` at a time
    so that memory does not grow with them."""
    if chunk < 1:
        raise InputError(f"the exact divergence got chunk={chunk}, expected at least 1 direction at a time")
    y, push = jax.linearize(f, x)

    def entry(i):
        direction = jnp.zeros(x.size, x.dtype).at[i].set(1).reshape(x.shape)
        return push(direction).reshape(-1)[i]

    axes = jnp.arange(x.size)
    entries = jax.vmap(entry)(axes) if x.size <= chunk else jax.lax.map(entry, axes, batch_size=chunk)
    return y, jnp.sum(entries)


def hutchinson(
    f: Callable[[Any], Any], x: Array, probes: Float[Array, "probes ..."]
) -> tuple[Array, Float[Array, " probes"]]:
    """(f(x), v' J v of each probe): their mean estimates tr J, and their spread says how well."""
    if probes.shape[1:] != x.shape:
        raise InputError(
            f"the probes have shape {probes.shape}, expected (number of probes, *{x.shape}): each one like x; "
            "make them with rademacher(key, x.shape, x.dtype, n)"
        )

    def along(v):
        y, moved = jax.jvp(f, (x,), (v,))
        return y, jnp.sum(v * moved)

    # f(x) does not depend on the probe: the map computes it once.
    y, traces = jax.vmap(along)(probes)
    return y[0], traces


def rademacher(key: PRNGKey, shape: tuple[int, ...], dtype: Any, n: int = 1) -> Float[Array, "probes ..."]:
    """`n` probes of independent signs: of all with independent entries the law of least variance."""
    return jax.random.rademacher(key, (_positive(n), *shape), dtype)


def normal(key: PRNGKey, shape: tuple[int, ...], dtype: Any, n: int = 1) -> Float[Array, "probes ..."]:
    """`n` probes of independent standard normal entries."""
    return jax.random.normal(key, (_positive(n), *shape), dtype)


def _positive(n):
    if n < 1:
        raise InputError(f"Hutchinson's estimator got probes={n}, expected at least 1")
    return n
