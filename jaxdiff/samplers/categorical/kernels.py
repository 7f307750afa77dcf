"""One reverse step on tokens as a law: kernel(denoise, z, t, s) -> log p(z_s^l | z_t = z), (..., states).

Positions are drawn on their own given z, so a step errs by what they have to do with one another, O(1 / T) in all.
`ancestral` is the exact p(z_s^l | z_t) of each where the belief is; the others err in it as well.

| kernel | of z_s |
|---|---|
| `ancestral` | q(z_t \\| z_s) q(z_s), x0 ~ the leave-one-out belief (Austin et al. 2021; Schiff et al. 2024) |
| `jumps.euler` | 1 - h rate to stay, h rate to each other state, the rates of the reverse chain at t |
| `jumps.tau_leaping` | e^(-h rate) to stay, else by the rates (Campbell et al. 2022) |
| `tweedie` | q(z_t \\| z_s) times the score carried from t to s (Lou et al. 2024) |
| `remask` | as ancestral, with shown tokens hidden again now and then (Wang et al. 2025) |

A belief of any kind serves each. A step to s = 0 goes to the data: its law is p(x0 | z_t), of data tokens alone, in
each of them, though rates end nowhere and some schedules keep noise at t = 0. Guidance makes a kernel of a kernel
(`guidance`), `draw` a stepper."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxdiff import beliefs
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial
from jaxdiff.processes.categorical import Categorical, LogProbs, Mixing, Tokens, normalized, one_hot_logs
from jaxdiff.types import Scalar, Time

__all__ = ["Kernel", "ancestral", "cap", "remask", "rescale", "tweedie"]

Kernel = Callable[..., LogProbs]
"""kernel(denoise, z, t, s) -> log-probabilities (..., states) of each token of z_s; a pytree."""


def ancestral(process: Categorical) -> Kernel:
    """p(z_s | z_t) by Bayes' rule, q(z_t | z_s) q(z_s) with x0 ~ the leave-one-out belief: exact where that is.

    For uniform noise it is the mixture of staying, a draw from the belief and a uniform one; for absorbing noise a
    masked token is shown with probability (alpha_s - alpha_t) / (1 - alpha_t)."""
    return partial(_ancestral, process)


def _ancestral(process, denoise, z, t, s):
    log_p = alone(process, beliefs.believe(process, denoise, z, t), z, t)
    return reverse(process, log_p, z, t, s)


def tweedie(process: Categorical) -> Kernel:
    """The analytic step of a score: q(z_t | z_s = y) times p_s(y) / p_t(z), which is the score at t carried back to s
    by the inverse of the transition (Lou et al. 2024), what comes out negative cut.

    It is `ancestral` where the score is that of a belief; of a network's score it asks for no law of x0. Raises
    InputError where it would divide by alpha(1) = 0, at which a score says nothing but of masks."""
    if isinstance(process, Mixing) and process.spread and concrete(process) and not known(process.alpha, 1.0) > 0:
        raise InputError(
            "tweedie divides by alpha, and alpha(1) is 0; give the process a schedule that ends above 0, such as "
            "alphas.log_linear()"
        )
    return partial(_tweedie, process)


def _tweedie(process, denoise, z, t, s):
    belief = beliefs.believe(process, denoise, z, t)
    now = beliefs.score(process, belief, z, t)
    before = _carried_back(process, now - logsumexp(now, -1, keepdims=True), t, s)
    law = normalized(process.log_ahead(z, t, s).astype(now.dtype) + before, one_hot_logs(z, process.states, now.dtype))
    return jnp.where(as_array(s) > 0, law, reverse(process, alone(process, belief, z, t), z, t, s))


def _carried_back(process, log_q, t, s):
    """log of the law at s of which log q is the law at t."""
    if not isinstance(process, Mixing):
        every = jnp.arange(process.states, dtype=jnp.int32)
        back = jnp.linalg.inv(jnp.exp(process.log_ahead(every, t, s)).astype(log_q.dtype).T)
        return _log(jnp.exp(log_q) @ back)
    spread = process.kept(t, s)[2].astype(log_q.dtype)
    alpha, alpha_s = (process.alpha(time).astype(log_q.dtype) for time in (t, s))
    data = log_q[..., : process.vocab]
    if process.spread:
        data = _log(jnp.exp(data) - spread / process.vocab)
    data = data + jnp.log(alpha_s) - jnp.log(jnp.maximum(alpha, jnp.finfo(alpha.dtype).tiny))
    if not process.masked:
        return data
    return jnp.concatenate([data, _log(1 - jnp.sum(jnp.exp(data), -1, keepdims=True))], -1)


def remask(process: Categorical, rule: Callable[..., Any]) -> Kernel:
    """ReMDM (Wang et al. 2025), for the absorbing process: a shown token is hidden again with probability sigma, and a
    hidden one shown with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), drawn from the belief.

    sigma = rule(limit), with limit = min(1, (1 - alpha_s) / alpha_t) the most that leaves every marginal q(z_s | x0)
    as it is: `cap(eta)` or `rescale(eta)`. sigma = 0 is `ancestral`. Raises InputError for another process."""
    return partial(_remask, absorbing_alone(process, "remask"), partial(rule))


def cap(eta: float | Scalar) -> Callable[..., Any]:
    """sigma = min(eta, limit)."""
    return partial(_cap, _share("cap", eta))


def rescale(eta: float | Scalar) -> Callable[..., Any]:
    """sigma = eta limit; rescale(1) hides as many as can be."""
    return partial(_rescale, _share("rescale", eta))


def _cap(eta, limit):
    return jnp.minimum(eta.astype(limit.dtype), limit)


def _rescale(eta, limit):
    return eta.astype(limit.dtype) * limit


def _share(name, eta):
    if concrete(eta) and not 0 <= np.asarray(eta) <= 1:
        raise InputError(f"{name} got eta={eta}, expected a probability from 0 to 1")
    return as_array(eta)


def _remask(process, rule, denoise, z, t, s):
    log_p = alone(process, beliefs.believe(process, denoise, z, t), z, t)
    shown, hidden, sigma = remasking(process, rule, t, s)
    data = jnp.log(shown).astype(log_p.dtype) + log_p
    mask = jnp.broadcast_to(jnp.log(hidden).astype(log_p.dtype), (*z.shape, 1))
    of_hidden = jnp.concatenate([data, mask], -1)
    stay, leave = jnp.log1p(-sigma).astype(log_p.dtype), jnp.log(sigma).astype(log_p.dtype)
    of_shown = jnp.where(jnp.isfinite(one_hot_logs(z, process.states, log_p.dtype)), stay, -jnp.inf)
    of_shown = of_shown.at[..., process.vocab].set(leave)
    return jnp.where((z == process.vocab)[..., None], of_hidden, of_shown)


def remasking(process: Mixing, rule: Callable[..., Any], t: Time, s: Time) -> tuple[Scalar, Scalar, Scalar]:
    """(probability that a hidden token is shown, that it is not, sigma) of a step of `remask`."""
    (alpha, mask, _), (alpha_s, mask_s, _) = process.masses(t), process.masses(s)
    lost = alpha_s * process.kept(t, s)[1]  # alpha_s - alpha_t, without their rounding
    tiny = jnp.finfo(alpha.dtype).tiny
    last = as_array(s) <= 0
    sigma = jnp.where(last, 0, rule(jnp.minimum(1, mask_s / jnp.maximum(alpha, tiny))))
    shown = jnp.where(last, 1, (lost + sigma * alpha) / jnp.maximum(mask, tiny))
    hidden = jnp.where(last, 0, jnp.clip((mask_s - sigma * alpha) / jnp.maximum(mask, tiny), min=0))
    return shown, hidden, sigma


def reverse(process: Categorical, log_p: LogProbs, z: Tokens, t: Time, s: Time) -> LogProbs:
    """`processes.categorical.log_posterior` of the leave-one-out log p, with the data themselves at s = 0."""
    step = process.log_ahead(z, t, s).astype(log_p.dtype) + process.log_marginal(log_p, s)
    data = process.log_ahead(z, t, None).astype(log_p.dtype) + over_states(process, log_p)
    joint = jnp.where(as_array(s) > 0, step, data)
    return normalized(joint, one_hot_logs(z, process.states, joint.dtype))


def alone(process: Categorical, belief: Any, z: Tokens, t: Time) -> LogProbs:
    """The leave-one-out log-probabilities of a belief."""
    return beliefs.leave_one_out(process, belief, z, t)


def over_states(process: Categorical, log_p: LogProbs) -> LogProbs:
    """log p over data tokens as one over states: the mask, where there is one, is impossible."""
    if process.states == process.vocab:
        return log_p
    return jnp.concatenate([log_p, jnp.full((*log_p.shape[:-1], 1), -jnp.inf, log_p.dtype)], -1)


def absorbing_alone(process: Any, name: str) -> Mixing:
    """`process`, refused unless it is the absorbing one."""
    if not isinstance(process, Mixing) or process.spread or not process.masked:
        raise InputError(
            f"{name} is for the absorbing process, whose tokens are masked once and stay so; got {_named(process)}: "
            "make it with processes.absorbing(vocab)"
        )
    return process


def _named(process):
    if not isinstance(process, Mixing):
        return f"a {type(process).__name__}"
    return "one whose noise replaces tokens" if process.spread else "another"


def _log(x):
    """log x, and -inf for what is not above 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
