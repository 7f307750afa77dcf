"""Laws of token sequences whose every belief is known: a table of all of them, or a Markov chain of any length.

What is seen of a sequence enters as evidence, log q(seen at l | x^l = j), (length, vocab): of a noisy z it is
`log_likelihood(process, z, t)`, of a token that is shown a row of 0 and -inf, of one that is not a row of zeros. From
it a law gives p(x^l | evidence of the others) and the probability of those others, by enumeration or by passing
messages forward and backward; every belief, likelihood, classifier and next token of an autoregression is made of
these two. `law` is the exact law of a sampler, pushed through its kernels state by state."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from jaxdiff import beliefs
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial, require
from jaxdiff.oracles.token_laws import Chain, Mixed, Table, row
from jaxdiff.processes.categorical import Categorical, Tokens, log_likelihood, normalized
from jaxdiff.types import Denoiser, PRNGKey, Scalar, Time

MOST_STATES = 4096
"""Of a sequence whose law is pushed through a kernel: the program holds their square."""


class TokenOracle(eqx.Module):
    """Exact answers about one law of sequences, under any process on tokens."""

    law: Table | Chain | Mixed

    def denoiser(self, process: Categorical, meaning: type = beliefs.LeaveOneOut) -> Denoiser:
        """The exact belief about each token of one example, said as `meaning`, one of the three of `jaxdiff.beliefs`.

        Raises InputError for another meaning, a process on another vocabulary and, when called, another length."""
        if meaning not in (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score):
            raise InputError(f"an oracle got meaning={meaning!r}, expected beliefs.LeaveOneOut, Posterior or Score")
        return _Exact(_same_vocab(self.law, process), self.law, meaning)

    def log_marginal(self, process: Categorical, z: Tokens, t: Time) -> Scalar:
        """log p_t(z), the probability that noise makes of the data at time t."""
        return _total(self.law, _evidence(self.law, _same_vocab(self.law, process), z, t))

    def log_prob(self, x: Tokens) -> Scalar:
        """log p(x)."""
        return _total(self.law, _shown(self.law, x))

    def log_next(self, x: Tokens, n: Any) -> Float[Array, " vocab"]:
        """log p(x^(n + 1) | x^1 .. x^n): what an exact autoregression says after n tokens; it reads no others."""
        return self.law.leave_one_out(_shown(self.law, x, n))[0][n]

    def sample(self, key: PRNGKey, n: int) -> Int[Array, "n length"]:
        """`n` sequences."""
        return self.law.sample(key, n)


class LabelledOracle(eqx.Module):
    """Exact answers about sequences with labels, p(x, y) = p(y) p(x | y)."""

    mixed: Mixed

    @property
    def unlabelled(self) -> TokenOracle:
        """The oracle of p(x), the labels summed out."""
        return TokenOracle(self.mixed)

    def given(self, label: Any) -> TokenOracle:
        """The oracle of p(x | y = label). Raises InputError for a label that there is not."""
        n = len(self.mixed.log_weights)
        ok = known(lambda y: (y >= 0) & (y < n), jnp.asarray(label))
        message = f"label {label if concrete(ok) else '(traced)'} is not one of the {n} classes, 0 to {n - 1}"
        return TokenOracle(require(row(self.mixed.laws, jnp.asarray(label)), ok, message))

    def classifier(self, process: Categorical) -> Callable[..., Any]:
        """(z, t) -> log p_t(y | z), (classes,)."""
        return Partial(_labels_of_noisy, _same_vocab(self.mixed, process), self.mixed)

    def log_labels(self, x: Tokens, n: Any = None) -> Float[Array, " classes"]:
        """log p(y | x^1 .. x^n), of all of x by default; it reads no other tokens."""
        return _labels(self.mixed, _shown(self.mixed, x, n))


def table(log_probs: Any) -> TokenOracle:
    """The oracle of any small law, log p(x) as an array (vocab,) * length.

    Raises InputError unless all its axes are alike and the probabilities sum to 1."""
    log_probs = as_array(log_probs)
    if log_probs.ndim < 1 or len(set(log_probs.shape)) != 1:
        raise InputError(f"a table of log p(x) has shape {log_probs.shape}, expected (vocab,) * length: a power of one")
    return TokenOracle(Table(_law_of("a table of log p(x)", log_probs)))


def chain(initial: Any, transition: Any, length: int) -> TokenOracle:
    """The oracle of a Markov chain: initial (vocab,) and transition (vocab, vocab), rows the token before, as
    probabilities.

    Raises InputError for other shapes, a length below 1 and rows that do not sum to 1."""
    initial, transition = as_array(initial), as_array(transition)
    if initial.ndim != 1 or transition.shape != 2 * initial.shape or length < 1:
        raise InputError(
            f"a chain got initial of shape {initial.shape}, transition of shape {transition.shape}, length={length}; "
            "expected (vocab,), (vocab, vocab) and at least 1 token"
        )
    logs = (jnp.log(_non_negative(p)) for p in (initial, transition))
    log_initial, log_transition = (_law_of("a row of a chain", p, -1) for p in logs)
    return TokenOracle(Chain(log_initial, log_transition, length))


def labelled(log_weights: Any, laws: Sequence[TokenOracle]) -> LabelledOracle:
    """The oracle of y ~ exp(log_weights), x ~ laws[y], which are all tables or all chains of one shape.

    Raises InputError when they are not, or the weights do not sum to 1."""
    log_weights = as_array(log_weights)
    structures = {jax.tree.structure(law) for law in laws}
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(law)) for law in laws}
    if log_weights.shape != (len(laws),) or len(structures) != 1 or len(shapes) != 1:
        raise InputError(
            f"labels got {log_weights.shape} weights and {len(laws)} laws of shapes {sorted(shapes)}; expected one "
            "weight a law, and laws of one kind, length and vocabulary"
        )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(oracle.law for oracle in laws))
    return LabelledOracle(Mixed(_law_of("the labels' weights", log_weights), stacked))


def labelled_table(log_joint: Any) -> LabelledOracle:
    """The oracle of any small log p(x, y), (vocab,) * length + (classes,); refused as `table`, and where p(y) = 0."""
    log_joint = as_array(log_joint)
    weights = logsumexp(log_joint, tuple(range(log_joint.ndim - 1)))
    if concrete(weights) and not jnp.isfinite(weights).all():
        raise InputError("a table of log p(x, y) has a class of probability 0; leave it out")
    return labelled(weights, [table(log_joint[..., y] - weights[y]) for y in range(len(weights))])


def law(
    kernel: Callable[..., Any],
    denoise: Denoiser,
    process: Categorical,
    ts: Any,
    length: int,
    *,
    start: Any = None,
) -> Array:
    """The exact law, (states,) * length as probabilities, of what a sampler draws on the falling times `ts`.

    kernel(denoise, z, t, s) -> log-probabilities (length, states) of z_s, each position on its own given z. `start` is
    the law at ts[0]; by default the process's noise. Raises InputError for more than 4,096 sequences of states."""
    shape = (process.states,) * length
    if not 0 < length <= 64 or process.states**length > MOST_STATES:
        raise InputError(
            f"the law of a sampler got {process.states} states and length={length}, expected a length of at least 1 "
            f"and at most {MOST_STATES} sequences: take a smaller toy"
        )
    ts = as_array(ts)
    if start is None:
        limit = jnp.exp(process.log_limit()).astype(ts.dtype)
        start = _outer(jnp.ones((1, 1), ts.dtype), jnp.broadcast_to(limit, (1, length, process.states)))[0]
    start = as_array(start).reshape(-1).astype(ts.dtype)
    return _push(partial(kernel), partial(denoise), ts, start, shape).reshape(shape)


def total_variation(p: Array, q: Array) -> Scalar:
    """sum |p - q| / 2, the largest difference of the probability of any event."""
    return 0.5 * jnp.sum(jnp.abs(p - q))


@eqx.filter_jit
def _push(kernel, denoise, ts, start, shape):
    states = jnp.stack(jnp.unravel_index(jnp.arange(start.size), shape), -1).astype(jnp.int32)

    def step(weights, times):
        logs = jax.vmap(lambda z: kernel(denoise, z, *times))(states)
        return jnp.sum(_outer(weights[:, None], jnp.exp(logs).astype(weights.dtype)), 0), None

    return jax.lax.scan(step, start, (ts[:-1], ts[1:]))[0]


def _outer(joint, each):
    """(n, 1) and (n, length, states) -> (n, states^length), the product over positions."""
    for place in range(each.shape[1]):
        joint = (joint[:, :, None] * each[:, place, None, :]).reshape(len(joint), -1)
    return joint


class _Exact(eqx.Module):
    """The denoiser of a law; it depends on the time, which it is told of by the process alone."""

    process: Any
    law: Table | Chain | Mixed
    meaning: type = eqx.field(static=True)

    def __call__(self, x, t):
        seen = _evidence(self.law, self.process, x, t)
        alone = self.law.leave_one_out(seen)[0]
        if self.meaning is beliefs.LeaveOneOut:
            return beliefs.LeaveOneOut(alone)
        if self.meaning is beliefs.Posterior:
            return beliefs.Posterior(normalized(alone + seen, alone))
        return beliefs.Score(self.process.log_marginal(alone, t))


def _evidence(law, process, z, t):
    return log_likelihood(process, _one_example(law, z, "z"), t)


def _shown(law, x, n=None):
    """The evidence of the first n tokens of x, or of all."""
    x = _one_example(law, x, "x")
    seen = jnp.arange(law.length) < (law.length if n is None else n)
    ok = known(lambda x, seen: ((x >= 0) & (x < law.vocab) | ~seen).all(), x, seen)
    same = jnp.arange(law.vocab, dtype=x.dtype) == x[:, None]
    message = f"x has a token outside the vocabulary of {law.vocab}: expected ids from 0 to {law.vocab - 1}"
    return require(jnp.where(same | ~seen[:, None], jnp.zeros(()), -jnp.inf), ok, message)


def _one_example(law, x, name):
    if x.shape != (law.length,):
        got = f"{name} of shape {x.shape}"
        raise InputError(f"an oracle of sequences of length {law.length} got {got}, expected one example, (length,)")
    return x


def _total(law, evidence):
    """log of the evidence of all positions."""
    logs, others = law.leave_one_out(evidence)
    return others[0] + logsumexp(logs[0] + evidence[0])


def _labels(mixed, evidence):
    each = jax.vmap(lambda law: _total(law, evidence))(mixed.laws)
    return jax.nn.log_softmax(each + mixed.log_weights.astype(each.dtype))


def _labels_of_noisy(process, mixed, z, t):
    return _labels(mixed, _evidence(mixed, process, z, t))


def _same_vocab(law, process):
    if process.vocab != law.vocab:
        raise InputError(f"an oracle of {law.vocab} tokens got a process on {process.vocab}; give both one vocabulary")
    return process


def _non_negative(p):
    ok = known(lambda p: (p >= 0).all(), p)
    return require(p, ok, "a chain got a negative probability, expected rows of probabilities that sum to 1")


def _law_of(what, logs, axis=None):
    ok = known(lambda logs: (jnp.abs(logsumexp(logs, axis)) < 1e-4).all(), logs)
    return require(logs, ok, f"{what} does not sum to 1; subtract the log of its sum")
