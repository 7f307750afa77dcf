"""Kernels of the rates of a chain in continuous time: a step from t to s lets each token jump at the rates of z_t.

The chain that runs backwards leaves z for y at the rate R(z -> y) = R_t(y -> z) p_t(y) / p_t(z), that of the process
times the belief's score (Campbell et al. 2022). `guidance.tempered_rate` and `classifier_rate` make other rates of it
(Nisonoff et al. 2024), and any can be given to `euler` and `tau_leaping`.

A step to s = 0 goes to the data, and there too the rates are followed: they say a score, R(z -> y) / R_t(y -> z), which
is a belief about x0. It is the exact p(x0 | z_t, y) where the rates are those of p(. | y). Where all is noise, alpha(t)
= 0, no score says anything: by rates that are given, a walk of a single step draws noise there. Take two or more."""

from typing import Any

import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.tree_util import Partial

from jaxdiff import beliefs
from jaxdiff.errors import InputError
from jaxdiff.guidance.rates import Rate
from jaxdiff.numerics import as_array, partial
from jaxdiff.processes.categorical import Categorical, LogProbs, Tokens, one_hot_logs
from jaxdiff.samplers.categorical.kernels import Kernel, alone, reverse
from jaxdiff.types import Denoiser, Time

__all__ = ["euler", "reverse_rate", "tau_leaping"]


def reverse_rate(process: Categorical) -> Rate:
    """log R(z -> y) = log R_t(y -> z) + log p_t(y) - log p_t(z), (..., states), of a denoiser with any belief."""
    return partial(_reverse_rate, process)


def _reverse_rate(process, denoise, z, t):
    score = beliefs.score(process, beliefs.believe(process, denoise, z, t), z, t)
    back = process.log_inflow(z, t).astype(score.dtype)
    return jnp.where(jnp.isneginf(back), -jnp.inf, back + jnp.where(jnp.isneginf(back), 0, score))


def euler(process: Categorical, rate: Rate | None = None) -> Kernel:
    """One Euler step of the chain of `rate`, of `reverse_rate(process)` unless given: a token leaves with probability h
    rate, h = t - s, cut at 1.

    Raises InputError when the rates are not of each token's states."""
    return partial(_jump, partial(_euler), process, rate if rate is None else partial(rate))


def tau_leaping(process: Categorical, rate: Rate | None = None) -> Kernel:
    """The chain of `rate`, of `reverse_rate(process)` unless given, with its rates held for the step: a token leaves
    with probability 1 - exp(-h rate) (Campbell et al. 2022), once at most, since what a second jump of one token would
    mean is not said where tokens have no order.

    Raises InputError when the rates are not of each token's states."""
    return partial(_jump, partial(_tau_leaping), process, rate if rate is None else partial(rate))


def _jump(leaving, process, rate, denoise, z, t, s):
    belief = beliefs.believe(process, denoise, z, t)
    asked = Partial(_asked, denoise, belief, z, t)
    if rate is None:
        rates, log_p = _reverse_rate(process, asked, z, t), alone(process, belief, z, t)
    else:
        rates = _checked(process, rate(asked, z, t), z)
        log_p = alone(process, _said(process, rates, belief, z, t), z, t)
    total = logsumexp(rates, -1, keepdims=True)
    stay, leave = leaving(total + jnp.log(as_array(t) - as_array(s)).astype(rates.dtype))
    which = jnp.where(jnp.isneginf(total), -jnp.inf, rates - jnp.where(jnp.isneginf(total), 0, total))
    here = jnp.isfinite(one_hot_logs(z, process.states, rates.dtype))
    law = jnp.where(here, stay, leave + which)
    return jnp.where(as_array(s) > 0, law, reverse(process, log_p, z, t, s))


def _asked(denoise: Denoiser, belief: Any, at: Tokens, time: Time, z: Tokens, t: Time) -> Any:
    """denoise(z, t), which is not asked again for what it has said."""
    return belief if z is at and t is time else denoise(z, t)


def _said(process: Categorical, rates: LogProbs, belief: Any, z: Tokens, t: Time) -> beliefs.Score:
    """What rates say of z_t: log R(z -> y) - log R_t(y -> z), and the belief where no y turns into z.

    Of a mask that the rates let nowhere go, which is not data either, the belief has the word as well."""
    own = beliefs.score(process, belief, z, t).astype(rates.dtype)
    back = process.log_inflow(z, t).astype(rates.dtype)
    silent = jnp.isneginf(back) | ((z >= process.vocab)[..., None] & jnp.isneginf(rates).all(-1, keepdims=True))
    return beliefs.Score(jnp.where(silent, own, rates - jnp.where(silent, 0, back)))


def _checked(process: Categorical, rates: Any, z: Tokens) -> LogProbs:
    """Log-rates of leaving z: what is said of z itself is no jump."""
    if rates.shape != (*z.shape, process.states):
        raise InputError(
            f"a rate returned {rates.shape} for tokens of shape {z.shape}, expected {(*z.shape, process.states)}: the "
            "log-rates of each one's jumps to every state"
        )
    return jnp.where(jnp.isfinite(one_hot_logs(z, process.states, rates.dtype)), -jnp.inf, rates)


def _euler(log_events):
    """(log of the probability to stay, to leave), of the log of h rate."""
    leave = jnp.minimum(log_events, 0)
    return jnp.log(-jnp.expm1(leave)), leave


def _tau_leaping(log_events):
    events = jnp.exp(log_events)
    return -events, jnp.log(-jnp.expm1(-events))
