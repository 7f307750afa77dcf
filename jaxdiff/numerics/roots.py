"""The inverse of an increasing function of [0, 1], differentiable in what the function is made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

BITS = 64  # a halving each: enough for float32 down to 2^-40, and for float64


def inverse(f: Callable[[Any], Array], y: Array) -> Array:
    """The t in [0, 1] with f(t) = y, element by element, for an increasing f.

    Bisection, then one Newton step, which has the inverse function's derivative (in f's own parameters too). An
    infinite y is an end: 0 or 1. Beyond f's range t is outside [0, 1], along the tangent at the nearer end; f may be
    infinite at an end, and is differentiated inside alone."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        below = f(middle) < y
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = jnp.zeros_like(y), jnp.ones_like(y)
    root = jax.lax.stop_gradient(sum(jax.lax.fori_loop(0, BITS, halve, ends)) / 2)
    end = jnp.isinf(y)
    value, slope = jax.jvp(f, (jnp.where(end, 0.5, root),), (jnp.ones_like(root),))
    return jnp.where(end, (y > 0).astype(y.dtype), root - jnp.where(end, 0, value - y) / slope)
