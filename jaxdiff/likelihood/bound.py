"""A bound on log p(x) as the sum of its terms, each with its standard error over independent draws."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.types import Scalar


class Bound(NamedTuple):
    """A lower bound on log p(x), in nats: `value` is the sum of `terms`.

    Each comes with the standard error of its mean over the draws (of noise, times and probes); it is NaN for one draw,
    and 0 for a term that is known exactly. That of the sum is smaller than theirs together: they share their noise."""

    value: Scalar
    stderr: Scalar
    terms: dict[str, Scalar]
    stderrs: dict[str, Scalar]


def bound(draws: Mapping[str, Float[Array, " draws"] | Scalar]) -> Bound:
    """The bound whose terms are the means of `draws`, (draws,) each, or one number where a term is exact."""
    total = sum(draws.values())
    means = {name: jnp.mean(values) for name, values in draws.items()}
    errors = {name: _stderr(values) for name, values in draws.items()}
    return Bound(jnp.mean(total), _stderr(total), means, errors)  # pyright: ignore[reportArgumentType]


def _stderr(values):
    if jnp.ndim(values) == 0:
        return jnp.zeros_like(values)
    n = len(values)
    return (
        jnp.std(values, ddof=1) / jnp.sqrt(jnp.asarray(n, values.dtype)) if n > 1 else jnp.full_like(values[0], jnp.nan)
    )
