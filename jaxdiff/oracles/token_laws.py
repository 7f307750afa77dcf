"""Laws of token sequences, each with one method: what the evidence of the others says of a token.

Evidence is log q(seen at l | x^l = j), (length, vocab). `leave_one_out` returns log p(x^l | evidence of the others) and
log p(evidence of the others) at each l: by enumeration of a table, by messages forward and backward along a chain, and
for a mixture by the laws' own."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.categorical import LogProbs, normalized
from jaxdiff.types import PRNGKey

Evidence = Float[Array, "length vocab"]


class Table(eqx.Module):
    """Any law: log p(x), (vocab,) * length."""

    log_probs: Array = eqx.field(converter=as_array)

    @property
    def length(self) -> int:
        return self.log_probs.ndim

    @property
    def vocab(self) -> int:
        return self.log_probs.shape[0]

    def leave_one_out(self, evidence: Evidence) -> tuple[LogProbs, Float[Array, " length"]]:
        """(log p(x^l | evidence of the others), log p(evidence of the others)) at each l."""
        rows = []
        for place in range(self.length):
            joint = self.log_probs.astype(evidence.dtype)
            for other in range(self.length):
                if other != place:
                    joint = joint + jnp.expand_dims(evidence[other], [i for i in range(self.length) if i != other])
            rows.append(logsumexp(joint, [i for i in range(self.length) if i != place]))
        return split(jnp.stack(rows))

    def sample(self, key: PRNGKey, n: int) -> Int[Array, "n length"]:
        """`n` sequences."""
        drawn = jax.random.categorical(key, self.log_probs.reshape(-1), shape=(n,), mode="high")
        return jnp.stack(jnp.unravel_index(drawn, self.log_probs.shape), -1).astype(jnp.int32)


class Chain(eqx.Module):
    """x^1 ~ exp(log_initial), and x^(l + 1) ~ exp(log_transition)[x^l]."""

    log_initial: Array
    log_transition: Array
    length: int = eqx.field(static=True)

    @property
    def vocab(self) -> int:
        return len(self.log_initial)

    def leave_one_out(self, evidence: Evidence) -> tuple[LogProbs, Float[Array, " length"]]:
        """As for a table, in O(length vocab^2)."""
        initial, transition = cast((self.log_initial, self.log_transition), evidence.dtype)
        before, past = _messages(initial, transition, evidence[:-1])
        after, future = _messages(jnp.zeros_like(initial), transition.T, evidence[:0:-1])
        logs, others = split(before + after[::-1])
        return logs, others + past + future[::-1]

    def sample(self, key: PRNGKey, n: int) -> Int[Array, "n length"]:
        """`n` sequences."""

        def step(x, key):
            return jax.random.categorical(key, self.log_transition[x], mode="high"), x

        first, *keys = jax.random.split(key, self.length + 1)
        x = jax.random.categorical(first, self.log_initial, shape=(n,), mode="high")
        return jax.lax.scan(step, x, jnp.stack(keys))[1].T.astype(jnp.int32)


class Mixed(eqx.Module):
    """One of several laws, by its weight; their leaves are stacked."""

    log_weights: Float[Array, " laws"]
    laws: Any

    @property
    def length(self) -> int:
        return jax.tree.map(lambda leaf: leaf[0], self.laws).length

    @property
    def vocab(self) -> int:
        return jax.tree.map(lambda leaf: leaf[0], self.laws).vocab

    def leave_one_out(self, evidence: Evidence) -> tuple[LogProbs, Float[Array, " length"]]:
        """As for a table: each law's belief, weighted by what the others say of that law."""
        logs, others = jax.vmap(lambda law: law.leave_one_out(evidence))(self.laws)
        others = others + self.log_weights.astype(evidence.dtype)[:, None]
        logs, _ = split(logsumexp(logs + others[..., None], 0))
        return logs, logsumexp(others, 0)

    def sample(self, key: PRNGKey, n: int) -> Int[Array, "n length"]:
        """`n` sequences."""
        which, key = jax.random.split(key)
        label = jax.random.categorical(which, self.log_weights, shape=(n,), mode="high")
        return jax.vmap(lambda y, key: row(self.laws, y).sample(key, 1)[0])(label, jax.random.split(key, n))


@eqx.filter_jit
def _messages(first, moves, evidence):
    """first, then the message that each position sends on, (length, vocab), and the log of what was divided out."""

    def step(carry, seen):
        message, total = carry
        message, size = split(logsumexp((message + seen)[:, None] + moves, 0))
        return (message, total + size), (message, total + size)

    start, total = split(first)
    _, (messages, totals) = jax.lax.scan(step, (start, total), evidence)
    return jnp.concatenate([start[None], messages]), jnp.concatenate([total[None], totals])


def split(logs):
    """(normalised over the last axis, log of the sum); what is impossible is uniform, of sum 0."""
    total = logsumexp(logs, -1)
    return normalized(logs, jnp.full_like(logs, -np.log(logs.shape[-1]))), total


def row(laws, i):
    return jax.tree.map(lambda leaf: leaf[i], laws)
