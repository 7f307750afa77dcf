"""Guidance of jumps in continuous time (Nisonoff et al. 2024): from the reverse rates R(z -> y) of a chain of tokens,

R^gamma = R(. | y)^gamma R^(1 - gamma),    R^gamma(z -> z') = R(z -> z') (p(y | z') / p(y | z))^gamma.

They are what `tempered` and `classifier_based` tend to as steps become many: of a step of length h a jump has
probability h R, so tempered probabilities are tempered rates, and the normaliser is 1 + O(h).

A rate is rate(denoise, z, t) -> the log-rates from z to every state at each position, (..., states), -inf at z itself
and where there is no jump; a pytree, as kernels are. Without guidance it is `samplers.categorical.reverse_rate`, and
`euler` and `tau_leaping` there take a guided one."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.guidance.classifier import LogProb, at, candidates
from jaxdiff.guidance.discrete import between, finite, is_known, power
from jaxdiff.numerics import partial
from jaxdiff.processes.categorical import LogProbs, Tokens
from jaxdiff.types import Denoiser, Time

Rate = Callable[[Denoiser, Tokens, Time], LogProbs]
"""rate(denoise, z, t) -> log-rates from z, (..., states)."""


def tempered_rate(rate: Rate, null: Denoiser, gamma: float | Array) -> Rate:
    """R(. | y)^gamma R^(1 - gamma), of the denoiser that it is called with and of `null`.

    What either rate forbids is forbidden. Of the absorbing process this changes how fast tokens are shown, by the sum
    of p(x0 | y)^gamma p(x0)^(1 - gamma); `tempered_belief` does not. A gamma known to be 1 or 0 calls the one denoiser
    alone. Raises InputError for a gamma that is not finite."""
    gamma = finite(gamma)
    if is_known(gamma, 1):
        return partial(rate)
    if is_known(gamma, 0):
        return partial(_of_null, partial(rate), partial(null))
    return partial(_tempered, partial(rate), partial(null), gamma)


def _of_null(rate, null, denoise, z, t):
    return rate(null, z, t)


def _tempered(rate, null, gamma, denoise, z, t):
    return between(rate(denoise, z, t), rate(null, z, t), gamma)


def classifier_rate(
    rate: Rate, log_prob: LogProb, gamma: float | Array, *, method: str = "exact", chunk: int = 256
) -> Rate:
    """R(z -> z') (p(y | z') / p(y | z))^gamma, z' one token from z; method and chunk as in `classifier_based`.

    From a z that the label cannot have, no ratio is defined, and the rates stay. A gamma known to be 0 is `rate`.
    Raises InputError as `classifier_based` does."""
    gamma, judge = finite(gamma), candidates(log_prob, method, chunk)
    if is_known(gamma, 0):
        return partial(rate)
    return partial(_weighted, partial(rate), judge, gamma)


def _weighted(rate, judge, gamma, denoise, z, t):
    logs = rate(denoise, z, t)
    log_y = judge(z, t, logs.shape[-1], logs.dtype)
    here = at(z, log_y)
    never = jnp.isneginf(here)
    ratio = power(log_y, gamma) - jnp.where(never, 0, power(jnp.where(never, 0, here), gamma))
    return logs + jnp.where(never, 0, ratio)
