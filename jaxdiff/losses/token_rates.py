"""What one token costs at one time: form(process, belief, x0, z, t) -> (...), for noisy tokens z of x0.

A model that reverses the process with the rates R_t(y -> z) rho_y, R the rate at which y turns into z and rho_y =
p_t(y) / p_t(z), is short of log p(x0) by the integral over time of

    E sum_(y != z) R_t(y -> z) (rho_theta - rho + rho log(rho / rho_theta)),    rho_y = q_t(y | x0) / q_t(z | x0)

(Campbell et al. 2022; Lou et al. 2024), with rho_theta of the belief. It is a sum of terms rho h(u), u = log(rho_theta
/ rho), h(u) = e^u - 1 - u >= 0, and is summed so: as differences of logarithms it loses every digit where alpha is
small. Where noise masks alone, or replaces alone, the sum has the closed forms below."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff import alphas, beliefs
from jaxdiff.grids.training import schedule_of
from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.categorical import (
    Categorical,
    LogProbs,
    Mixing,
    Share,
    Tokens,
    log_posterior,
    one_hot_logs,
)
from jaxdiff.types import Scalar, Time

Costs = Float[Array, "..."]
NEAR, FAR = 0.5, 1.0
TERMS = 16
"""Of e^u - 1 - u, to float64's precision at |u| = 1/2."""


def bound(process: Categorical, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """The bound's rate, in its closed form where the process has one."""
    if isinstance(process, Mixing) and has_one_source(process) and not (process.masked and process.spread):
        return (masked if process.masked else replaced)(process, belief, x0, z, t)
    return score_entropy(process, belief, x0, z, t)


def masked(process: Mixing, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """-alpha' / (1 - alpha) times -log p(x0) on the tokens that are masked (Sahoo et al. 2024; Shi et al. 2024)."""
    fall, _, rest = schedule(process, t)
    log_p = beliefs.leave_one_out(process, belief, z, t)
    return fall / above_0(rest) * jnp.where(z == process.mask, -taken(log_p, x0), 0)


def replaced(process: Mixing, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """-alpha' / (N alpha) sum_j rho_j h(u_j) with rho_j = a_j / a_z, a_j = 1 - alpha + N alpha 1[j = x0] (Schiff et al.
    2024, eq. 18, rearranged).

    log a_j is log1p(alpha (N p_j - 1)) where alpha is small, and has 1 - alpha as its own number where it is not."""
    fall, alpha, rest = schedule(process, t)
    n = process.vocab
    log_theta = _log_lift(alpha, rest, n * jnp.exp(beliefs.leave_one_out(process, belief, z, t)))
    hit, missed = (_log_lift(alpha, rest, jnp.full_like(alpha, lift)) for lift in (n, 0))
    log_rho = jnp.where(jnp.arange(n, dtype=x0.dtype) == x0[..., None], hit, missed)
    log_rho, log_theta = (log - taken(log, z)[..., None] for log in (log_rho, log_theta))
    return fall / (n * above_0(alpha)) * jnp.sum(divergence(log_rho, log_theta), -1)


def score_entropy(process: Categorical, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """The sum itself, for any process, of the ratios as the belief says them (Lou et al. 2024)."""
    log_theta = beliefs.score(process, belief, z, t)
    log_q = process.log_marginal(one_hot_logs(x0, process.vocab, log_theta.dtype), t)
    log_rate = process.log_inflow(z, t).astype(log_theta.dtype)
    log_rho = log_q - taken(log_q, z)[..., None]
    return jnp.sum(divergence(log_rho, log_theta, log_rate), -1)


def step(process: Categorical, belief: Any, x0: Tokens, z: Tokens, t: Time, s: Time) -> Costs:
    """KL(q(z_s | z_t, x0) | p(z_s | z_t)) with the belief in x0's place (Austin et al. 2021)."""
    log_p = log_posterior(process, beliefs.leave_one_out(process, belief, z, t), z, t, s)
    log_q = log_posterior(process, one_hot_logs(x0, process.vocab, log_p.dtype), z, t, s)
    return jnp.sum(divergence(log_q, log_p), -1)


def surprise(process: Categorical, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """-log p(x0 | z_t), 0 where z leaves no doubt."""
    return -taken(beliefs.posterior(process, belief, z, t), x0)


def flow(process: Mixing, belief: Any, x0: Tokens, z: Tokens, t: Time) -> Costs:
    """-alpha' / (1 - alpha) (1[z = x0] - p(z | z_t) - 1[z != x0] log p(x0 | z_t)) (Gat et al. 2024; Shaul et al.
    2024)."""
    fall, _, rest = schedule(process, t)
    log_p = beliefs.posterior(process, belief, z, t)
    log_x, data = taken(log_p, x0), z < process.vocab
    stays = jnp.where(data, jnp.exp(taken(log_p, jnp.where(data, z, 0))), 0)
    return fall / above_0(rest) * jnp.where(z == x0, -jnp.expm1(log_x), -log_x - stays)


def divergence(log_rho: Costs, log_theta: Costs, log_rate: Costs | float = 0.0) -> Costs:
    """rate (theta - rho + rho log(rho / theta)), elementwise, >= 0; where rho = 0 it is rate theta."""
    return _divergence(log_rho, log_theta, log_rate + jnp.zeros_like(log_theta))


@jax.custom_jvp
def _divergence(log_rho, log_theta, log_rate):
    u, rho, theta, happens = _ratio(log_rho, log_theta, log_rate)
    return jnp.where(happens, jnp.where(jnp.abs(u) < NEAR, rho * _excess(u), theta - rho - rho * u), 0)


@_divergence.defjvp
def _slope(primals, tangents):
    # By hand, for memory, and because the slope theta - rho is itself a difference.
    u, rho, theta, happens = _ratio(*primals)
    d_rho, d_theta, d_rate = tangents
    value = _divergence(*primals)
    rise = jnp.where(jnp.abs(u) < NEAR, rho * jnp.expm1(jnp.where(jnp.abs(u) < NEAR, u, 0)), theta - rho)
    return value, jnp.where(happens, rise * d_theta - rho * u * d_rho, 0) + value * d_rate


def _ratio(log_rho, log_theta, log_rate):
    """log(theta / rho), rho and theta times the rate, and whether there is a rate; rho = 0 counts as far from theta."""
    possible, happens = ~jnp.isneginf(log_rho), ~jnp.isneginf(log_rate)
    u = jnp.where(possible & happens, log_theta - jnp.where(possible, log_rho, 0), FAR)
    rho = jnp.where(possible, jnp.exp(log_rho + log_rate), 0)
    return u, rho, jnp.exp(log_theta + log_rate), happens


def _excess(u):
    """e^u - 1 - u by its series, for |u| < 1/2."""
    few = jnp.where(jnp.abs(u) < NEAR, u, 0)
    series = jnp.zeros_like(u)
    for k in range(TERMS, 1, -1):
        series = series * few + 1 / math.factorial(k)
    return series * few**2


def schedule(process: Mixing, t: Time) -> tuple[Scalar, Scalar, Scalar]:
    """(-alpha', alpha, 1 - alpha)."""
    t = as_array(t)
    alpha = cast(schedule_of(process), t.dtype)
    return alphas.fall(alpha, t), alpha(t), alpha.rest(t)


def has_one_source(process: Categorical) -> bool:
    """Whether q(z_t | x0) = alpha x0 + (1 - alpha) noise with one noise for all times."""
    return isinstance(process, Mixing) and isinstance(process.noise, Share)


def taken(logs: LogProbs, at: Tokens) -> Costs:
    """logs[..., at]."""
    return jnp.take_along_axis(logs, at[..., None], -1)[..., 0]


def above_0(x: Array) -> Array:
    """x, or the smallest number above 0: for a divisor that is 0 at an end alone."""
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


def _log_lift(alpha, rest, lift):
    """log(1 - alpha + alpha lift)."""
    small = alpha < 0.5
    few = jnp.where(small, alpha * (lift - 1), 0)
    return jnp.where(small, jnp.log1p(few), jnp.log(above_0(rest + alpha * lift)))
