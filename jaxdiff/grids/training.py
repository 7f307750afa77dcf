"""At which times to train, and where a bound's integral over time is estimated: laws of `Times(t, weight)`.

The mean of weight x loss estimates the integral of the loss over [low, high], for `uniform`, `stratified`, `lattice`,
`importance`, `debiased` and `quadrature` times alike; they differ in variance. The published laws draw the noise level
sigma / alpha itself, the same on every process that reaches it, and their density is the objective's weight: `vp`,
`ve`, `iddpm` and `lognormal` times are the four columns of Karras et al. (2022), Table 1.

The likelihood's weight g^2 / sigma^2 is the slope of -log SNR, on every schedule: what makes it flat is time that is
uniform in log-SNR. `importance`, `debiased` and `quadrature` times are found there by `process.time_of`, which is a
closed form or a numerical inverse. What is flat for tokens that noise masks is time uniform in log(1 - alpha):
`log_rest` times. The first three laws ask nothing of the process, and serve tokens as they are."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdiff import alphas, schedules
from jaxdiff.errors import InputError
from jaxdiff.grids.levels import geometric, ordered, reach, shown
from jaxdiff.numerics import as_array, cast, concrete, known, partial, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import PRNGKey, Time

Law = Callable[..., Any]
"""law(key, process, n, **options) -> Times."""


class Times(NamedTuple):
    """Training times in (0, 1] and the weight that each one's loss takes."""

    t: Float[Array, " n"]
    weight: Float[Array, " n"]


# The integral over time ----------------------------------------------------------------------------------------------


def uniform_times(key: PRNGKey, process: Any, n: int, *, low: Time = 1e-5, high: Time = 1.0) -> Times:
    """Independent t ~ U(low, high]."""
    return _spread(1 - jax.random.uniform(key, (n,)), low, high)


def stratified_times(key: PRNGKey, process: Any, n: int, *, low: Time = 1e-5, high: Time = 1.0) -> Times:
    """One uniform t in each of n equal parts of (low, high]: the same integral as `uniform_times`, less variance."""
    return _spread(_stratified(key, n), low, high)


def lattice_times(key: PRNGKey, process: Any, n: int, *, low: Time = 1e-5, high: Time = 1.0) -> Times:
    """n even steps from one uniform start, mod(u + i / n, 1) of (low, high] (Kingma et al. 2021); n = 2 are antithetic
    pairs."""
    return _spread(1 - jnp.mod(jax.random.uniform(key, ()) + jnp.arange(0.0, n) / n, 1.0), low, high)


def importance_times(key: PRNGKey, process: Gaussian, n: int, *, low: Time = 1e-3, high: Time = 1.0) -> Times:
    """t with density proportional to g^2 / sigma^2, stratified: flat likelihood-weighted losses (Song et al. 2021).

    Since g^2 / sigma^2 = d(-log SNR)/dt, these are times uniform in log-SNR, on every process. Raises InputError when
    the log-SNR is infinite at `low` or `high` (flow and cosine at 1): move that end inwards."""
    return Times(*_in_log_snr(process, _stratified(key, n), low, high))


def rest_times(key: PRNGKey, process: Any, n: int, *, low: Time = 0.0, high: Time = 1.0) -> Times:
    """t uniform in 1 - alpha, stratified, of a process on tokens: what the linear schedule has by itself. The absorbing
    bound of a long sequence is flat there, as many tokens as are masked count by -alpha' / (1 - alpha).

    Raises InputError for a process without one schedule alpha."""
    alpha, u, low, high = _on_schedule(key, process, n, low, high)
    first, last = alpha.rest(low), alpha.rest(high)
    t = jnp.clip(alpha.time_of(first + u * (last - first)), low, high)
    return Times(t, (last - first) / alphas.fall(alpha, t))


def log_rest_times(key: PRNGKey, process: Any, n: int, *, low: Time = 1e-3, high: Time = 1.0) -> Times:
    """t uniform in log(1 - alpha), stratified, of a process on tokens: its density is proportional to -alpha' / (1 -
    alpha), the absorbing bound's weight, and leaves the plain cross-entropy (Sahoo et al. 2024).

    It looks where few tokens are masked: on 24 of them the standard deviation of the absorbing bound is three times
    that of `rest_times`, and that of the uniform bound three quarters (benchmarks/token_times.py). Raises InputError
    when alpha is 1 at `low`, and for a process without one schedule alpha."""
    known_low, (alpha, u, low, high) = low, _on_schedule(key, process, n, low, high)
    noisy = known(lambda p, t: schedule_of(p).rest(as_array(t)) > 0, process, known_low)
    message = f"1 - alpha is 0 at low={shown(known_low)}, whose logarithm is infinite; take a later one"
    low = require(low, noisy, message)
    first, last = jnp.log(alpha.rest(low)), jnp.log(alpha.rest(high))
    t = jnp.clip(alpha.time_of(jnp.exp(first + u * (last - first))), low, high)
    return Times(t, (last - first) * alpha.rest(t) / alphas.fall(alpha, t))


def _on_schedule(key, process, n, low, high):
    u = _stratified(key, n)
    low, high = _between(low, high, u.dtype)
    return cast(schedule_of(process), u.dtype), u, low, high


def log_times(key: PRNGKey, process: Any, n: int, *, low: Time = 1e-3, high: Time = 1.0) -> Times:
    """t uniform in log t, stratified, on any process: where the loss of an early time is rare and large, as that of
    tokens which noise replaces."""
    u = _stratified(key, n)
    low, high = _between(low, high, u.dtype)
    low = require(low, known(lambda low: low > 0, low), "log_times got low=0, whose logarithm is infinite; take more")
    span = jnp.log(high / low)
    t = jnp.clip(low * jnp.exp(u * span), low, high)
    return Times(t, span * t)


def schedule_of(process: Any) -> alphas.Alpha:
    """The schedule alpha of a process on tokens. Raises InputError for one that has none, or more than one number."""
    alpha = getattr(getattr(process, "noise", process), "alpha", None)
    if not isinstance(alpha, alphas.Alpha):
        raise InputError(
            f"a {type(process).__name__} has no single schedule alpha(t); expected a process on tokens that has, such "
            "as absorbing, uniform or hybrid noise"
        )
    return alpha


def quadrature_times(key: PRNGKey, process: Gaussian, n: int, *, low: Time = 1e-3, high: Time = 1.0) -> Times:
    """The n nodes of Gauss and Legendre in log-SNR: for an integrand that is known without noise, exact to rounding
    after a few dozen. Nothing is drawn: `key` is not used. Ends as for `importance_times`."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    t, slope = _in_log_snr(process, as_array(0.5 * (nodes + 1)), low, high)
    return Times(t, as_array(0.5 * n * weights) * slope)


def debiased_times(
    key: PRNGKey,
    process: Gaussian,
    n: int,
    *,
    low: Time = 0.0,
    high: Time = 1.0,
    flat: Time = 1e-3,
    published: bool = False,
) -> Times:
    """`importance_times` down to low = 0, where g^2 / sigma^2 is infinite: their density from t = `flat` on, and a flat
    one before it (Huang et al. 2021, "debiased" training), stratified. Needs a finite log-SNR at `flat` and `high`.

    `published` gives the weights of that training: then weight x likelihood loss is even over all t, and its mean
    counts a time before `flat` less than the likelihood does, by r(flat) / r(t), r = g^2 / sigma^2."""
    u, high_end = _stratified(key, n), high
    low, high = _between(low, high, u.dtype)
    flat = jnp.clip(as_array(flat).astype(u.dtype), low, high)
    start, end = _log_noise(process, flat, high_end, u.dtype)
    head = _rate(process, flat) * (flat - low)
    place = u * (head + end - start)
    later = process.time_of(jnp.exp(0.5 * (start + jnp.maximum(place - head, 0))))
    t = jnp.where(place < head, low + (flat - low) * (place / head), jnp.clip(later, flat, high))
    counted = _rate(process, t if published else jnp.maximum(t, flat))
    return Times(t, (head + end - start) / counted)


def soft_truncated(law: Law, *, power: float = 1.0, low: float = 1e-5, high: float = 1.0) -> Law:
    """`law` on [tau, high], with one tau for all n times, drawn from a density proportional to 1 / tau^power on [low,
    high] (Kim et al. 2022).

    The mean of weight x loss is the integral of P(tau <= t) x loss over [low, high]: large noise counts more than in
    the likelihood, and is seen by every batch. With q = 1 - power, P(tau <= t) = (t^q - low^q) / (high^q - low^q), and
    log(t / low) / log(high / low) at q = 0."""
    if concrete(low, high) and not 0 < low < high <= 1:
        raise InputError(f"soft truncation got low={low}, high={high}, expected 0 < low < high <= 1")
    return Partial(_soft_truncated, partial(law), *(as_array(value) for value in (power, low, high)))


def _soft_truncated(law, power, low, high, key: PRNGKey, process: Any, n: int) -> Times:
    tau_key, key = jax.random.split(key)
    u = jax.random.uniform(tau_key, ())
    power, low, high = (value.astype(u.dtype) for value in (power, low, high))
    reach, q = jnp.log(high / low), 1 - power
    some = jnp.where(q == 0, 1, q)
    way = jnp.where(q == 0, u * reach, jnp.log1p(u * jnp.expm1(some * reach)) / some)
    # Rounding must not empty the interval.
    tau = jnp.minimum(low * jnp.exp(way), high * (1 - 4 * jnp.finfo(u.dtype).eps))
    return law(key, process, n, low=tau, high=high)


def _stratified(key, n):
    """One uniform number in each of the n equal parts of (0, 1]."""
    return (jnp.arange(1.0, n + 1) - jax.random.uniform(key, (n,))) / n


def _spread(u, low, high) -> Times:
    low, high = _between(low, high, u.dtype)
    return Times(low + (high - low) * u, jnp.full_like(u, 1) * (high - low))


def _in_log_snr(process, u, low, high):
    """The times at fractions `u` of the way from `low` to `high` in log-SNR, and dt / du there."""
    first, last = _log_noise(process, low, high, u.dtype)
    low, high = _between(low, high, u.dtype)
    t = jnp.clip(process.time_of(jnp.exp(0.5 * (first + u * (last - first)))), low, high)
    return t, (last - first) / _rate(process, t)


def _between(low, high, dtype):
    """The limits of an integral, as arrays; known ones are checked at once, even while a caller is being traced."""
    inside = known(lambda a, b: (a >= 0) & (a < b) & (b <= 1), low, high)
    message = f"training times got low={shown(low)}, high={shown(high)}, expected 0 <= low < high <= 1"
    low, high = (as_array(end).astype(dtype) for end in (low, high))
    return require(low, inside, message), high


def _log_noise(process, low, high, dtype):
    """-log SNR at two times, which must be finite."""
    first, last = known(lambda p, a, b: (-p.log_snr(a), -p.log_snr(b)), process, low, high)
    ok = known(lambda a, b: jnp.isfinite(a) & jnp.isfinite(b), first, last)
    message = f"the log-SNR is infinite at t={shown(low)} or t={shown(high)}; choose ends inside (0, 1)"
    return require(first, ok, message).astype(dtype), last.astype(dtype)


def _rate(process, t):
    """g^2 / sigma^2 = d(-log SNR)/dt."""
    return -jax.jvp(process.log_snr, (t,), (jnp.ones_like(t),))[1]


# The published laws of the noise level -------------------------------------------------------------------------------


def lognormal_times(key: PRNGKey, process: Gaussian, n: int, *, mean: float = -1.2, std: float = 1.2) -> Times:
    """ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, Table 1), held in the process's range."""
    return _at_levels(process, jnp.exp(mean + std * jax.random.normal(key, (n,))))


def vp_times(key: PRNGKey, process: Gaussian, n: int, *, low: float = 1e-5, high: float = 1.0) -> Times:
    """The levels of Song et al.'s VP at t ~ U(low, high]."""
    alpha, sigma = Gaussian(schedules.LinearVP()).scales(_spread(1 - jax.random.uniform(key, (n,)), low, high).t)
    return _at_levels(process, sigma / alpha)


def ve_times(key: PRNGKey, process: Gaussian, n: int, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> Times:
    """Levels uniform in their logarithm, those of Song et al.'s VE at t ~ U(0, 1]."""
    ordered(sigma_min, sigma_max)
    return _at_levels(process, geometric(jax.random.uniform(key, (n,)), sigma_min, sigma_max))


def iddpm_times(
    key: PRNGKey, process: Gaussian, n: int, *, steps: int = 1000, c1: float = 0.001, c2: float = 0.008
) -> Times:
    """The levels of improved DDPM's steps, each as likely (Nichol and Dhariwal 2021)."""
    table = jnp.sqrt(jnp.expm1(schedules.IDDPM(steps, c1, c2).nodes[1:]))
    return _at_levels(process, table[jax.random.randint(key, (n,), 0, steps)])


LEVEL_LAWS = (lognormal_times, vp_times, ve_times, iddpm_times)
"""The laws whose weighted mean is no integral over time."""


def of_levels(law: Any) -> bool:
    """Whether a law, or a Partial of it with options, is one of noise levels, whose weighted mean is no integral over
    time."""
    while isinstance(law, functools.partial):
        law = law.func
    return law in LEVEL_LAWS


def _at_levels(process, levels) -> Times:
    """The times of noise levels, held in the process's range."""
    low, high = reach(process)
    t = process.time_of(jnp.clip(levels, low, high))
    return Times(jnp.clip(t, 0, 1), jnp.ones_like(t))
