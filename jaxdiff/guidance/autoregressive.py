"""Guidance of autoregressive models, token by token. A step reads one token,

step(token, cache) -> (logits of the next token (vocab,), cache),

and guidance makes a step of steps; what it must remember besides is in its own cache.

`tempered_step`: p(. | y)^gamma p^(1 - gamma), of a conditional and an unconditional model.
`fudge` (Yang and Klein 2021): p(v) p(y | tokens so far, v)^gamma over the k likeliest v. At gamma = 1 and k = vocab it
is Bayes' rule, and the law of the whole sequence is p(x | y) exactly.
`pplm` (Dathathri et al. 2020): what the model makes of the tokens so far is moved up the gradient of a classifier."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.guidance.discrete import between, finite, is_known, power
from jaxdiff.guidance.plug_and_play import checked, divergence
from jaxdiff.numerics import partial
from jaxdiff.processes.categorical import normalized
from jaxdiff.types import Scalar

Step = Callable[..., tuple[Array, Any]]
"""step(token, cache) -> (logits (vocab,), cache), a pytree."""


def tempered_step(step: Step, null: Step, gamma: float | Array) -> Step:
    """gamma log p(v | tokens, y) + (1 - gamma) log p(v | tokens), normalised; the cache is the pair of theirs.

    A gamma known to be 1 or 0 calls the one model alone, and hands the other's cache on. Raises InputError for a gamma
    that is not finite."""
    gamma = finite(gamma)
    if is_known(gamma, 1):
        return partial(_first, partial(step))
    if is_known(gamma, 0):
        return partial(_second, partial(null))
    return partial(_tempered, partial(step), partial(null), gamma)


def _first(step, token, cache):
    logits, own = step(token, cache[0])
    return logits, (own, cache[1])


def _second(step, token, cache):
    logits, own = step(token, cache[1])
    return logits, (cache[0], own)


def _tempered(step, null, gamma, token, cache):
    (logits, own), (others, other) = step(token, cache[0]), null(token, cache[1])
    log_c, log_u = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return normalized(between(log_c, log_u, gamma), log_c), (own, other)


def fudge(
    step: Step, judge: Callable[..., Any], gamma: float | Array, *, k: int | None = None, chunk: int = 256
) -> Step:
    """log p(v | tokens) + gamma log p(y | tokens, v), normalised over the k likeliest tokens v (all, unless given).

    judge(token, state) -> (log p(y | tokens so far), state) reads the same tokens in the same order, from the first
    one on that the step reads; the cache is (cache, state). It is asked about `chunk` candidates at a time. A gamma
    known to be 0 does not ask it. Raises InputError for a gamma that is not finite, k or chunk below 1, and when
    called for k above the vocabulary."""
    gamma = finite(gamma)
    for name, value in (("k", 1 if k is None else k), ("chunk", chunk)):
        if value < 1:
            raise InputError(f"fudge got {name}={value}, expected at least 1 token")
    judged = None if is_known(gamma, 0) else partial(judge)
    return _Fudge(partial(step), judged, gamma, k, chunk)


class _Fudge(eqx.Module):
    step: Any
    judge: Any
    gamma: Array
    k: int | None = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def __call__(self, token, cache):
        logits, own = self.step(token, cache[0])
        vocab = len(logits)
        k = vocab if self.k is None else self.k
        if k > vocab:
            raise InputError(f"fudge got k={k}, expected at most the {vocab} tokens of the vocabulary")
        likeliest, ids = jax.lax.top_k(logits, k)
        state = cache[1]
        if self.judge is not None:
            _, state = self.judge(token, state)
            ask = lambda v: self.judge(v, state)[0].astype(logits.dtype)  # noqa: E731
            log_y = jax.vmap(ask)(ids) if k <= self.chunk else jax.lax.map(ask, ids, batch_size=self.chunk)
            # Where the judge holds every candidate impossible it has no say.
            likeliest = normalized(likeliest + power(log_y, self.gamma), jax.nn.log_softmax(likeliest))
        return jnp.full_like(logits, -jnp.inf).at[ids].set(jax.nn.log_softmax(likeliest)), (own, state)


def pplm(
    hidden: Callable[..., Any],
    head: Callable[..., Array],
    log_prob: Callable[..., Scalar],
    *,
    steps: int = 3,
    step_size: float | Array = 0.1,
    strength: float | Array = 0.01,
    fusion: float | Array = 1.0,
) -> Step:
    """head(h + delta): delta goes `steps` times `step_size` along the normalised gradient of log p(y | h + delta) -
    strength KL(p || p moved).

    hidden(token, cache) -> (h, cache), head(h) -> logits and log_prob(h, cache) -> log p(y | h), with the cache after
    the token. h is an array or a tree: the last hidden state, or the keys and values of all tokens before with the rest
    that `head` needs; its floats are moved, for this token alone. `fusion` < 1 mixes the unguided law back in,
    p_moved^fusion p^(1 - fusion). Without a step the logits are the model's own, bit for bit. Raises InputError for a
    number out of its range."""
    numbers = {"step_size": step_size, "strength": strength, "fusion": fusion}
    step_size, strength, fusion = checked("pplm", steps, numbers)
    return _Pplm(partial(hidden), partial(head), partial(log_prob), step_size, strength, fusion, steps)


class _Pplm(eqx.Module):
    hidden: Any
    head: Any
    log_prob: Any
    step_size: Array
    strength: Array
    fusion: Array
    steps: int = eqx.field(static=True)

    def __call__(self, token, cache):
        h, cache = self.hidden(token, cache)
        logits = self.head(h)
        if not self.steps:
            return logits, cache
        before = jax.nn.log_softmax(logits)
        floats, rest = eqx.partition(h, eqx.is_inexact_array)

        def moved(delta):
            return eqx.combine(jax.tree.map(jnp.add, floats, delta), rest)

        def gain(delta):
            near = divergence(before, jax.nn.log_softmax(self.head(moved(delta))))
            return self.log_prob(moved(delta), cache).astype(near.dtype) - self.strength.astype(near.dtype) * near

        zero = jax.tree.map(jnp.zeros_like, floats)
        delta = jax.lax.fori_loop(0, self.steps, lambda _, delta: self._climb(gain, delta, before.dtype), zero)
        after = jax.nn.log_softmax(self.head(moved(delta)))
        return jax.nn.log_softmax(between(after, before, self.fusion)), cache

    def _climb(self, gain, delta, dtype):
        slope = jax.grad(gain)(delta)
        norm = jnp.sqrt(sum(jnp.sum(g.astype(dtype) ** 2) for g in jax.tree.leaves(slope)))
        size = jnp.where(norm > 0, self.step_size.astype(dtype) / jnp.where(norm > 0, norm, 1), 0)
        return jax.tree.map(lambda d, g: d + size.astype(d.dtype) * g, delta, slope)
