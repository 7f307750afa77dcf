"""Classifier-based guidance of tokens (D-CBG; Schiff et al. 2024, section 3.2): a classifier of noisy sequences
reweights every state that each token might step to,

p^gamma(z_s^l = v | z_t, y) proportional to p(y | z_t with v at l)^gamma p(z_s^l = v | z_t).

`method="exact"` asks the classifier of all length * states such sequences, `chunk` at a time. "first_order" asks once,
and follows the gradient g with respect to the one-hots: log p(y | z_t with v at l) is about log p(y | z_t) + g[l, v] -
g[l, z^l], which is exact where log p(y | .) is affine in one-hots.

A classifier is log_prob(x, t) -> log p_t(y | z): x are one-hots (..., states), the mask's column included, so that a
classifier of another vocabulary cannot be taken for one of this. `log_prob_of` makes one of logits and a label,
`from_classifier` logits of a network, `on_tokens` takes a function of whole numbers. At gamma = 1 with the exact
classifier the law of the samples tends to p(x | y) as steps become many, at rate 1 / steps. Absorbed tokens that are
shown stay; how many are shown in a step depends on the classifier."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxdiff.errors import InputError
from jaxdiff.guidance.discrete import Kernel, finite, is_known, power
from jaxdiff.numerics import as_array, concrete, float_dtype, known, partial, require
from jaxdiff.processes.categorical import LogProbs, Tokens, normalized
from jaxdiff.types import Scalar, Time

LogProb = Callable[..., Scalar]
"""log_prob(x, t) -> log p_t(y | z), of one example's one-hots x (..., states)."""


def classifier_based(
    kernel: Kernel,
    log_prob: LogProb,
    gamma: float | Array,
    *,
    method: str = "exact",
    classifier_time: str = "t",
    chunk: int = 256,
    mask: Bool[Array, "..."] | None = None,
) -> Kernel:
    """p(y | z_t with v at l)^gamma p(z_s^l = v | z_t), normalised over the states v.

    `classifier_time` is the time that the classifier is asked at: "t" as published, or "s", the time of the step's
    end, which has less error (docs/guidance.md). `mask` is false at tokens to leave alone, such as padding. A gamma
    known to be 0 is the kernel. Raises InputError for a gamma that is not finite, an unknown method or time, a chunk
    below 1, and when called for a classifier that does not read this process's one-hots."""
    gamma = finite(gamma)
    if classifier_time not in ("t", "s"):
        raise InputError(f"classifier_based got classifier_time={classifier_time!r}, expected 't' or 's'")
    judge = candidates(log_prob, method, chunk)
    if is_known(gamma, 0):
        return partial(kernel)
    return _ClassifierBased(partial(kernel), judge, gamma, mask, classifier_time == "s")


class _ClassifierBased(eqx.Module):
    kernel: Any
    judge: "Candidates"
    gamma: Array
    mask: Array | None
    late: bool = eqx.field(static=True)

    def __call__(self, denoise, z, t, s):
        logs = self.kernel(denoise, z, t, s)
        log_y = self.judge(z, s if self.late else t, logs.shape[-1], logs.dtype)
        guided = normalized(logs + power(log_y, self.gamma), logs)
        return guided if self.mask is None else jnp.where(self.mask[..., None], guided, logs)


class Candidates(eqx.Module):
    """log p(y | z with v at l) for every place l and state v, (..., states), up to a constant a place."""

    log_prob: Any
    chunk: int | None = eqx.field(static=True)  # None is by first order

    def __call__(self, z: Tokens, t: Time, states: int, dtype: Any) -> LogProbs:
        ask = partial(_ask, self.log_prob)
        x = jax.nn.one_hot(z, states, dtype=dtype)
        _check_reads(self.log_prob, x, t)
        if self.chunk is None:
            return jax.grad(ask)(x, t)

        def one(i):
            moved = z.reshape(-1).at[i // states].set((i % states).astype(z.dtype))
            return ask(jax.nn.one_hot(moved.reshape(z.shape), states, dtype=dtype), t)

        which = jnp.arange(x.size)
        few = x.size <= self.chunk
        logs = jax.vmap(one)(which) if few else jax.lax.map(one, which, batch_size=self.chunk)
        return logs.reshape(x.shape)


def candidates(log_prob: LogProb, method: str, chunk: int) -> Candidates:
    """The judge of all candidates, by either method."""
    if method not in ("exact", "first_order"):
        raise InputError(f"guidance by a classifier got method={method!r}, expected 'exact' or 'first_order'")
    if chunk < 1:
        raise InputError(f"guidance by a classifier got chunk={chunk}, expected at least 1 sequence at a time")
    if method == "first_order" and isinstance(log_prob, _OnTokens):
        raise InputError(
            "first-order guidance got a classifier of whole numbers, which has no gradient; give it one of one-hots, "
            "or use method='exact'"
        )
    return Candidates(partial(log_prob), chunk if method == "exact" else None)


def log_prob_of(classify: Callable[..., Any], label: Any) -> LogProb:
    """log p(y = label | z) of a classifier classify(x, t) -> logits (classes,), by their log-softmax.

    Raises InputError for a label that is no whole number or below 0, and when called for one that is no class."""
    label = known(jnp.asarray, label)
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.ndim or (concrete(label) and int(label) < 0):
        got = f"{label}" if concrete(label) else f"{label.dtype} of shape {label.shape}"
        raise InputError(f"a label is {got}, expected one whole number from 0 on, the id of a class")
    reads = _OfClass(partial(classify), label)
    return _OnTokens(reads) if isinstance(classify, _OnTokens) else reads


class _OfClass(eqx.Module):
    classify: Any
    label: Array

    def __call__(self, x, t):
        logits = self.classify(x, t)
        if logits.ndim != 1:
            raise InputError(f"the classifier returned shape {logits.shape}, expected (classes,): one example's logits")
        n = len(logits)
        got = f"{self.label}" if concrete(self.label) else "an id outside"
        ok = known(lambda label: (label >= 0) & (label < n), self.label)
        message = f"a label is {got}, expected one of the {n} classes, 0 to {n - 1}"
        return require(jax.nn.log_softmax(logits)[self.label], ok, message)


def from_classifier(
    apply: Callable[..., Any], process: Any, params: Any, *, level: Callable[..., Any] | None = None, mask: Any = None
) -> Callable[..., Any]:
    """classify(x, t) -> logits (classes,) of `apply(params, x, c_noise, mask)`, a network written for a batch.

    `level(process, t)` is what the network sees of the time, such as `denoisers.tokens.total_noise`; None where it was
    trained without it, on every noise level or on none. `mask` is false at one example's padding."""
    return _Network(partial(apply), process, params, None if level is None else partial(level), mask)


class _Network(eqx.Module):
    apply: Any
    process: Any
    params: Any
    level: Any
    mask: Any

    def __call__(self, x, t):
        c_noise = None
        if self.level is not None:
            c_noise = self.level(self.process, as_array(t)).astype(float_dtype(self.params, x.dtype))[None]
        mask = None if self.mask is None else jnp.asarray(self.mask)[None]
        try:
            return self.apply(self.params, x[None], c_noise, mask)[0]
        except (TypeError, ValueError) as error:
            raise _misread(x, error) from error


def on_tokens(classify: Callable[..., Any]) -> Callable[..., Any]:
    """A classifier of whole numbers, classify(z, t), as one of one-hots; it has no gradient, so `method="exact"`."""
    return _OnTokens(partial(_read_off, partial(classify)))


class _OnTokens(eqx.Module):
    classify: Any

    def __call__(self, x, t):
        return self.classify(x, t)


def _read_off(classify, x, t):
    return classify(jnp.argmax(x, -1).astype(jnp.int32), t)


def at(z: Tokens, table: LogProbs) -> LogProbs:
    """The entries of `table` (..., states) at z, (..., 1)."""
    return jnp.take_along_axis(table, z[..., None], -1)


def _ask(log_prob, x, t):
    return log_prob(x, t).astype(x.dtype)


def _check_reads(log_prob, x, t):
    """Refuse a classifier of another vocabulary, or of no single number."""
    try:
        answer = jax.eval_shape(log_prob, x, t)
    except InputError:  # which says what is wrong
        raise
    except (TypeError, ValueError) as error:
        raise _misread(x, error) from error
    shape = getattr(answer, "shape", type(answer).__name__)
    if shape != ():
        raise InputError(
            f"the classifier returned {shape} for one example, expected one number, log p(y | z); pick a class with "
            "guidance.log_prob_of(classifier, label)"
        )


def _misread(x, error):
    return InputError(
        f"the classifier does not read one-hots of shape {x.shape}, (..., states) with the mask's column where there "
        f"is a mask; is it of another vocabulary? It said: {error}"
    )
