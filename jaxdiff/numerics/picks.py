"""Draws from log-probabilities that are right in float32, however rare an outcome is.

A uniform number of float32 is a whole multiple of 2^-23, so a Gumbel number made of one stops at 16, and an outcome of
probability 3e-8 wins far fewer draws than it should. Here one first stays or leaves, by a uniform number of 46 bits,
and then goes to one of the others, by Gumbel numbers of as many: what a step seldom does and what an outcome seldom is
are not multiplied."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from jaxdiff.types import PRNGKey, Scalar


def move(key: PRNGKey, logs: Float[Array, "... states"], z: Int[Array, "..."]) -> Int[Array, "..."]:
    """States of the law `logs`, which need not be normalised: z stays, or else one of the others."""
    where, which = jax.random.split(key)
    here = jnp.arange(logs.shape[-1], dtype=z.dtype) == z[..., None]
    others = jnp.where(here, -jnp.inf, logs)
    stay, leave = jnp.take_along_axis(logs, z[..., None], -1)[..., 0], logsumexp(others, -1)
    return jnp.where(happens(where, leave, stay), pick(which, others), z).astype(z.dtype)


def happens(key: PRNGKey, log_yes: Scalar, log_no: Scalar) -> Any:
    """True with probability yes / (yes + no); the rarer of the two to its own relative precision."""
    rarer = jax.nn.sigmoid(-jnp.abs(log_yes - log_no))
    event = jax.random.bernoulli(key, jnp.where(log_yes == log_no, 0.5, rarer), mode="high")
    return jnp.where(log_yes <= log_no, event, ~event)


def pick(key: PRNGKey, logs: Float[Array, "... states"]) -> Int[Array, "..."]:
    """States of the law `logs`, which need not be normalised, down to probabilities of 1e-13."""
    return jax.random.categorical(key, logs, mode="high").astype(jnp.int32)
