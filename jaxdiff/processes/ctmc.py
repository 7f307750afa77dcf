"""Any continuous-time Markov chain on tokens: dq/dt = noise'(t) q R, with a rate matrix R whose rows sum to 0.

Its transition from s to t is expm(R (noise_t - noise_s)), noise = -log alpha of a schedule: D3PM's structured kinds
(Austin et al. 2021) as chains in continuous time (Campbell et al. 2022), where tokens are levels or have neighbours.

The exponential is uniformised: with rate = max_i |R_ii|, expm(h R) = sum_k e^(-h rate) (h rate)^k / k! (1 + R / rate)^k
has no negative term, so every small probability keeps its relative precision, which a Pade approximant loses."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import alphas
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast
from jaxdiff.numerics.picks import move
from jaxdiff.processes.categorical import LogProbs, Tokens, ids_like, log_posterior, nothing_left, one_hot_logs
from jaxdiff.processes.meanings import about_tokens
from jaxdiff.types import Belief, Noise, PRNGKey, State, Time

TERMS = 20
"""Of the series, for h rate <= 1/2: the next is 2^-20 / 20!, below float64's precision."""


class Chain(eqx.Module):
    """The chain of a rate matrix at the pace of `pace`, a schedule with alpha(1) > 0; see `ctmc`."""

    rate: Float[Array, "states states"] = eqx.field(converter=as_array)
    limit: Float[Array, " states"] = eqx.field(converter=as_array)
    pace: alphas.Alpha
    vocab: int = eqx.field(static=True)
    halvings: int = eqx.field(static=True)

    @property
    def states(self) -> int:
        """The number of states."""
        return len(self.rate)

    @property
    def mask(self) -> int | None:
        """The id of the mask, or None."""
        return self.vocab if self.states > self.vocab else None

    def transition(self, t: Time, s: Time = 0.0) -> Float[Array, "states states"]:
        """q(z_t = column | z_s = row)."""
        t, s = as_array(t), as_array(s)
        pace, rate = cast((self.pace, self.rate), t.dtype)
        noise = _total(pace, t) - _total(pace, s.astype(t.dtype))
        fastest = jnp.max(-jnp.diag(rate))
        h = noise * fastest / 2**self.halvings
        jump = jnp.eye(self.states, dtype=t.dtype) + rate / fastest

        def add(state, k):
            term, total = state
            term = term @ jump * (h / k)
            return (term, total + term), None

        first = jnp.exp(-h) * jnp.eye(self.states, dtype=t.dtype)
        (_, total), _ = jax.lax.scan(add, (first, first), jnp.arange(1, TERMS, dtype=t.dtype))
        return jax.lax.fori_loop(0, self.halvings, lambda _, p: p @ p, total)

    def believed(self, belief: Any, x: State) -> Belief:
        """`belief`, refused when it is no Posterior, LeaveOneOut or Score of the tokens x."""
        return about_tokens(self, belief, x)

    def like(self, shape_like: Any) -> jax.ShapeDtypeStruct:
        """int32 of the shape of `shape_like`."""
        return ids_like(shape_like)

    def prior(self, key: PRNGKey, like: Any, t: Time = 1.0, *, noise: Noise = jax.random.normal) -> State:
        """Tokens of the chain's limit, in the shape of `like`; from the key alone, whatever `noise` is.

        Raises InputError for a known t < 1 at which data are left."""
        nothing_left(self._left, t)
        shape = self.like(like).shape
        return jax.random.categorical(key, jnp.log(self.limit), shape=shape, mode="high").astype(jnp.int32)

    def perturb(self, key: PRNGKey, x0: State, t: Time, *, noise: Noise = jax.random.normal) -> State:
        """z_t, drawn from the rows of `transition(t)`; from the key alone, whatever `noise` is."""
        logs = jnp.log(self.transition(t))[x0]
        return jax.random.categorical(key, logs, mode="high").astype(x0.dtype)

    def bridge(self, key: PRNGKey, x: State, x0: State, t: Time, s: Time, *, noise: Noise = jax.random.normal) -> State:
        """z_s ~ q(z_s | z_t = x, x0), s < t; from the key alone, whatever `noise` is."""
        given = one_hot_logs(x0, self.vocab, as_array(t).dtype)
        return move(key, log_posterior(self, given, x, t, s), x)

    def _left(self, t):
        """The most that a token's law still differs from the limit, in one state."""
        return jnp.abs(self.transition(t)[: self.vocab] - self.limit).max()

    def log_limit(self) -> LogProbs:
        """log of the stationary law, (states,)."""
        return jnp.log(self.limit)

    def log_marginal(self, log_p: LogProbs, t: Time) -> LogProbs:
        """log q(z_t), (..., states), when x0 ~ p, (..., vocab)."""
        return jnp.log(jnp.exp(log_p) @ self.transition(t).astype(log_p.dtype)[: self.vocab])

    def log_ahead(self, z: Tokens, t: Time, s: Time | None) -> LogProbs:
        """log q(z_t = z | z_s = y) for every state y, (..., states); data are clean at s = 0, or None."""
        return jnp.log(self.transition(t, 0.0 if s is None else s).T)[z]

    def log_inflow(self, z: Tokens, t: Time) -> LogProbs:
        """The log-rate at which every state y != z turns into z, (..., states), and -inf at y = z."""
        t = as_array(t)
        pace, rate = cast((self.pace, self.rate), t.dtype)
        logs = jnp.log(jnp.clip(rate.T, min=0))[z] + jnp.log(alphas.fall(pace, t) / pace(t))
        return jnp.where(jnp.isneginf(one_hot_logs(z, self.states, logs.dtype)), logs, -jnp.inf)

    def unmixed(self, log_q: LogProbs, t: Time) -> LogProbs:
        """The log p of which log q is the `log_marginal`, (..., vocab), by solving for it; what is negative is cut."""
        forward = self.transition(t).astype(log_q.dtype)
        p = jnp.linalg.solve(forward.T, jnp.exp(log_q)[..., None])[..., : self.vocab, 0]
        return jax.nn.log_softmax(jnp.log(jnp.clip(p, min=0)), -1)


def _total(pace, t):
    """-log alpha, by the one of alpha and 1 - alpha that has not been rounded."""
    alpha, rest = pace(t), pace.rest(t)
    near = alpha > 0.5
    return -jnp.where(near, jnp.log1p(-jnp.where(near, rest, 0)), jnp.log(jnp.where(near, 1, alpha)))


def ctmc(rate: Any, pace: alphas.Alpha | None = None, *, vocab: int | None = None) -> Chain:
    """The chain of a rate matrix (states, states), R[i, j] the rate from i to j, at the pace -log alpha of a schedule.

    `vocab` is the number of data tokens, the first ones; a mask may follow. The default pace is constant and ends at a
    tenth of a thousandth of the slowest decay. Raises InputError for a matrix whose rows do not sum to 0, with a
    negative rate, or without one limit, and for a schedule with alpha(1) = 0, which no exponential of R reaches."""
    rate = np.asarray(rate, np.float64)
    if rate.ndim != 2 or rate.shape[0] != rate.shape[1] or len(rate) < 2:
        raise InputError(f"a rate matrix has shape {rate.shape}, expected (states, states) with at least 2 states")
    off = rate - np.diag(np.diag(rate))
    if (off < 0).any() or not np.allclose(rate.sum(1), 0, atol=1e-6 * np.abs(rate).max()) or not off.any():
        raise InputError(
            "a rate matrix needs rates >= 0 off its diagonal and rows that sum to 0; set R[i, i] = -sum of the others"
        )
    vocab = len(rate) if vocab is None else vocab
    if vocab not in (len(rate), len(rate) - 1) or vocab < 2:
        raise InputError(f"a chain of {len(rate)} states got vocab={vocab}, expected as many, or one less and a mask")
    values, left = (np.asarray(part) for part in np.linalg.eig(rate.T))
    order = np.argsort(-np.real(values))
    gap = -float(np.real(values)[order[1]])
    if gap < 1e-9 * np.abs(rate).max():
        raise InputError("a rate matrix has more than one limit: some states are never left for others; connect them")
    limit = np.abs(np.real(left)[:, order[0]])
    if pace is None:
        pace = alphas.constant_rate(math.log(1e4) / gap)
    total = -math.log(max(float(pace(1.0)), 0.0) or math.nan)
    if not math.isfinite(total):
        raise InputError("a chain got a schedule with alpha(1) = 0, expected alpha(1) > 0, such as constant_rate(10)")
    halvings = max(0, math.ceil(math.log2(2 * total * np.max(-np.diag(rate)))))
    return Chain(rate, limit / limit.sum(), pace, vocab, halvings)
