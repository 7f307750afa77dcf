"""Autoregressive models, the baseline of every diffusion of tokens: one step reads a token and says of the next,

step(token, cache) -> (logits (vocab,), cache),

with parameters and conditioning closed over, and whatever it remembers (keys and values, a recurrent state) in its
cache, of a fixed shape. Guidance makes a step of steps, a filter changes logits: `temperature`, `top_k`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, partial
from jaxdiff.types import PRNGKey, Scalar

__all__ = ["generate", "log_prob", "temperature", "top_k"]

Filter = Callable[..., Any]
"""logits (vocab,) -> logits; a pytree."""


def generate(
    key: PRNGKey,
    step: Callable[..., Any],
    cache: Any,
    start: Any,
    length: int,
    *,
    logits_filter: Filter | None = None,
    stop: int | None = None,
) -> Int[Array, " length"]:
    """`length` tokens after `start`, one token or the tokens of a prompt, each drawn from the law that the step gives
    it: an exact draw of the model, without a filter.

    After a token `stop` all others are `stop` too. The program does not grow with the length. Raises InputError for a
    start that is empty or holds no whole numbers, and a length below 1."""
    start = jnp.atleast_1d(jnp.asarray(start))
    if start.ndim != 1 or not len(start) or not jnp.issubdtype(start.dtype, jnp.integer):
        raise InputError(
            f"generate got a start of {start.dtype} and shape {start.shape}, expected one token or a row of at least "
            "one, the first token (bos) among them"
        )
    if length < 1:
        raise InputError(f"generate got length={length}, expected at least 1 token")
    if not callable(step):
        raise InputError(f"generate got a {type(step).__name__}, expected step(token, cache) -> (logits, cache)")
    logits_filter = partial(_all if logits_filter is None else logits_filter)
    return _generate(key, partial(step), cache, start.astype(jnp.int32), length, logits_filter, stop)


@eqx.filter_jit
def _generate(key, step, cache, start, length, logits_filter, stop):
    def read(cache, token):
        return step(token, cache)[1], None

    def write(state, key):
        token, cache, over = state
        logits, cache = step(token, cache)
        # mode="high": float32's Gumbel numbers would never pick a token of probability 1e-8.
        token = jax.random.categorical(key, logits_filter(logits), mode="high").astype(jnp.int32)
        if stop is not None:
            token = jnp.where(over, stop, token)
            over = over | (token == stop)
        return (token, cache, over), token

    cache, _ = jax.lax.scan(read, cache, start[:-1])
    state = start[-1], cache, jnp.asarray(False)
    return jax.lax.scan(write, state, jax.random.split(key, length))[1]


def log_prob(
    apply: Callable[..., Any], tokens: Int[Array, " length"], start: Any, *, stop: int | None = None
) -> Scalar:
    """log p(tokens | start), exactly, in one pass: `apply(inputs)` gives, after each of its inputs (length,), the
    logits of the next token (length, vocab).

    What follows a first `stop` counts nothing, as `generate` writes it. Raises InputError for other logits."""
    start = jnp.atleast_1d(jnp.asarray(start)).astype(tokens.dtype)
    inputs = jnp.concatenate([start, tokens])[:-1]
    logits = apply(inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise InputError(
            f"the autoregressive model returned {logits.shape} for {len(inputs)} tokens, expected logits "
            f"({len(inputs)}, vocab): one row after each token"
        )
    logs = jax.nn.log_softmax(logits[len(start) - 1 :], -1)
    each = jnp.take_along_axis(logs, tokens[:, None], -1)[:, 0]
    if stop is not None:
        stops = (tokens == stop).astype(jnp.int32)
        each = jnp.where(jnp.cumsum(stops) == stops, each, 0)
    return jnp.sum(each)


def temperature(value: float | Scalar) -> Filter:
    """logits / value: the law to the power 1 / value, normalised. Raises InputError unless value > 0."""
    if concrete(value) and not np.asarray(value) > 0:
        raise InputError(f"temperature got {value}, expected a number above 0; near 0 it is greedy")
    return partial(_cool, as_array(value))


def _cool(value, logits):
    return logits / value.astype(logits.dtype)


def top_k(k: int) -> Filter:
    """The k likeliest tokens alone (those that tie with the k-th stay). Raises InputError for k below 1."""
    if k < 1:
        raise InputError(f"top_k got k={k}, expected at least 1 token")
    return _TopK(k)


class _TopK(eqx.Module):
    k: int = eqx.field(static=True)

    def __call__(self, logits: Float[Array, " vocab"]) -> Float[Array, " vocab"]:
        if self.k > len(logits):
            raise InputError(f"top_k got k={self.k} of {len(logits)} tokens, expected at most as many")
        least = jax.lax.top_k(logits, self.k)[0][-1]
        return jnp.where(logits >= least, logits, -jnp.inf)


def _all(logits):
    return logits
