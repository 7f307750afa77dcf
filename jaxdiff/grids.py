"""At which times to sample, and at which to train.

A sampling grid is n + 1 falling times from noise to data; the last is the data end, t = 0. Published grids are
sequences of noise levels sigma / alpha, so each works on every process by `process.time_of`. They start where the
process does, t = 1, unless `sigma_max` says otherwise, and stop short of sigma = 0 at `sigma_min`, from where one last
step goes to 0; a process that keeps noise at t = 0 (VE) ends there itself.

A training law returns `Times(t, weight)`. The mean of weight x loss estimates the integral of the loss over t, for
`uniform`, `stratified` and `importance` times alike. The published laws draw the noise level sigma / alpha itself, the
same on every process that reaches it, and their density is the objective's weight: `vp`, `ve`, `iddpm` and `lognormal`
times are the four columns of Karras et al. (2022), Table 1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import schedules
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import PRNGKey

__all__ = [
    "Times",
    "iddpm",
    "iddpm_times",
    "importance_times",
    "karras",
    "lognormal_times",
    "logsnr",
    "stratified_times",
    "uniform",
    "uniform_times",
    "ve",
    "ve_times",
    "vp",
    "vp_times",
]

Grid = Float[Array, " n_1"]


class Times(NamedTuple):
    """Training times in (0, 1] and the weight that each one's loss takes."""

    t: Float[Array, " n"]
    weight: Float[Array, " n"]


# Sampling ------------------------------------------------------------------------------------------------------------


def uniform(process: Gaussian, n: int) -> Grid:
    """t_i = 1 - i / n."""
    _positive(n)
    return jnp.linspace(1.0, 0.0, n + 1)


def karras(
    process: Gaussian, n: int, *, sigma_min: float | None = None, sigma_max: float | None = None, rho: float = 7.0
) -> Grid:
    """Levels (sigma_max^(1/rho) + u (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho (Karras et al. 2022, eq. 5)."""
    root = 1 / rho

    def ramp(u, low, high):
        return (high**root + u * (low**root - high**root)) ** rho

    return _levels(process, n, ramp, sigma_min, sigma_max, 0.002, 80.0)


def logsnr(process: Gaussian, n: int, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Grid:
    """Levels uniform in log-SNR, which is a geometric sequence (Lu et al. 2022)."""
    return _levels(process, n, _geometric, sigma_min, sigma_max, 0.002, 80.0)


def ve(process: Gaussian, n: int, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Grid:
    """Song et al.'s VE steps: a geometric sequence from 100 to .02, where the process reaches so far (Karras et al.
    2022, Table 1)."""
    return _levels(process, n, _geometric, sigma_min, sigma_max, 0.02, 100.0, cap=True)


def vp(
    process: Gaussian, n: int, *, sigma_min: float | None = None, sigma_max: float | None = None, eps: float = 1e-3
) -> Grid:
    """Song et al.'s VP steps: VP's levels at times uniform in [eps, 1] (Karras et al. 2022, Table 1).

    beta_min and beta_max are those by which VP has sigma_min at `eps` and sigma_max at 1: .1 and 20 by default."""

    def ramp(u, low, high):
        return jnp.sqrt(jnp.expm1(schedules.LinearVP.between(low, high, eps).integral(1 + u * (eps - 1))))

    song = Gaussian(schedules.LinearVP(0.1, 20.0))
    low, high = (sigma / alpha for alpha, sigma in (song.scales(eps), song.scales(1.0)))
    return _levels(process, n, ramp, sigma_min, sigma_max, low, high, cap=True)


def iddpm(
    process: Gaussian,
    n: int,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 81.0,
    steps: int = 1000,
    c1: float = 0.001,
    c2: float = 0.008,
) -> Grid:
    """Levels picked evenly from improved DDPM's table u_j between sigma_min and sigma_max (Karras et al. 2022, Table
    1)."""
    _positive(n)
    _ordered(sigma_min, sigma_max)
    return known(_picked, process, n, sigma_min, sigma_max, steps, c1, c2)


def _picked(process, n, sigma_min, sigma_max, steps, c1, c2) -> Grid:
    table = jnp.sqrt(jnp.expm1(schedules.IDDPM(steps, c1, c2).nodes[:0:-1]))  # u_0 > u_1 > ... > u_(steps - 1)
    low, high = _reach(process)
    keep = (table >= jnp.maximum(low, sigma_min)) & (table <= jnp.minimum(high, sigma_max))
    first = jnp.argmax(keep)
    count = require(
        keep.sum(), keep.sum() > 0, "no iDDPM noise level lies in the process's range; widen sigma_min, sigma_max"
    )
    picked = first + jnp.round((count - 1).astype(table.dtype) * (jnp.arange(n) / max(n - 1, 1))).astype(int)
    return _times(process, table[picked])


def _geometric(u, low, high):
    return jnp.exp(jnp.log(high) + u * (jnp.log(low) - jnp.log(high)))


def _levels(process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap=False) -> Grid:
    """Times of ramp(u, low, high), u from 0 to 1; `cap` keeps the published ends where the process reaches further."""
    _positive(n)
    _ordered(sigma_min, sigma_max)
    return known(_spaced, process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap)


def _spaced(process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap) -> Grid:
    lowest, highest = _reach(process)
    low = jnp.maximum(lowest, default_min) if sigma_min is None else _within(sigma_min, lowest, highest, "sigma_min")
    if sigma_max is not None:
        high = _within(sigma_max, lowest, highest, "sigma_max")
    elif cap:
        high = jnp.minimum(highest, default_max)
    else:
        high = jnp.where(jnp.isfinite(highest), highest, default_max)
    low = require(low, low < high, f"sigma_min {_shown(low)} is not below sigma_max {_shown(high)}; widen the range")
    # A process without noise at t = 0 spends its last step from sigma_min to there; one with noise ends at sigma_min.
    noisy_end = low <= lowest
    u = jnp.minimum(jnp.arange(n) / jnp.where(noisy_end, n, max(n - 1, 1)), 1.0)
    return _times(process, ramp(u, low, high), starts_at_one=sigma_max is None and not cap)


def _times(process, ratios, starts_at_one=False) -> Grid:
    t = process.time_of(ratios)
    # The prior lives at t = 1 exactly; rounding, or alpha(1) = 0, may have put the first level below it.
    first = jnp.ones_like(t[:1]) if starts_at_one else jnp.minimum(t[:1], 1)
    return jnp.concatenate([first, t[1:], jnp.zeros_like(t[:1])])


def _reach(process):
    """The lowest and the highest sigma / alpha of the process."""
    (alpha0, sigma0), (alpha1, sigma1) = process.scales(0.0), process.scales(1.0)
    return sigma0 / alpha0, sigma1 / alpha1


def _within(value, low, high, name):
    # One part in 1e5 of slack: sigma / alpha of the ends is itself rounded.
    ok = (value >= low * (1 - 1e-5)) & (value <= high * (1 + 1e-5))
    reach = f"[{_shown(low)}, {_shown(high)}]"
    message = f"{name}={_shown(value)} is outside the process's noise levels {reach}; choose it within them"
    return jnp.clip(require(as_array(value), ok, message), low, high)


def _shown(value):
    return f"{float(value):g}" if concrete(value) else "(traced)"


def _positive(n):
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"a sampling grid got n={n!r} steps, expected a whole number of at least 1")


def _ordered(sigma_min, sigma_max):
    if sigma_min is not None and sigma_max is not None and sigma_min >= sigma_max:
        raise InputError(f"sigma_min={sigma_min} is not below sigma_max={sigma_max}; swap or widen them")


# Training ------------------------------------------------------------------------------------------------------------


def uniform_times(key: PRNGKey, process: Gaussian, n: int, *, low: float = 1e-5, high: float = 1.0) -> Times:
    """Independent t ~ U(low, high]."""
    return _spread(1 - jax.random.uniform(key, (n,)), low, high)


def stratified_times(key: PRNGKey, process: Gaussian, n: int, *, low: float = 1e-5, high: float = 1.0) -> Times:
    """One uniform t in each of n equal parts of (low, high]: the same integral as `uniform_times`, less variance."""
    return _spread((jnp.arange(1.0, n + 1) - jax.random.uniform(key, (n,))) / n, low, high)


def lognormal_times(key: PRNGKey, process: Gaussian, n: int, *, mean: float = -1.2, std: float = 1.2) -> Times:
    """ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, Table 1), held in the process's range."""
    return _at_levels(process, jnp.exp(mean + std * jax.random.normal(key, (n,))))


def vp_times(key: PRNGKey, process: Gaussian, n: int, *, low: float = 1e-5, high: float = 1.0) -> Times:
    """The levels of Song et al.'s VP at t ~ U(low, high]."""
    alpha, sigma = Gaussian(schedules.LinearVP()).scales(_spread(1 - jax.random.uniform(key, (n,)), low, high).t)
    return _at_levels(process, sigma / alpha)


def ve_times(key: PRNGKey, process: Gaussian, n: int, *, sigma_min: float = 0.02, sigma_max: float = 100.0) -> Times:
    """Levels uniform in their logarithm, those of Song et al.'s VE at t ~ U(0, 1]."""
    _ordered(sigma_min, sigma_max)
    return _at_levels(process, _geometric(jax.random.uniform(key, (n,)), sigma_min, sigma_max))


def iddpm_times(
    key: PRNGKey, process: Gaussian, n: int, *, steps: int = 1000, c1: float = 0.001, c2: float = 0.008
) -> Times:
    """The levels of improved DDPM's steps, each as likely (Nichol and Dhariwal 2021)."""
    table = jnp.sqrt(jnp.expm1(schedules.IDDPM(steps, c1, c2).nodes[1:]))
    return _at_levels(process, table[jax.random.randint(key, (n,), 0, steps)])


def _at_levels(process, levels) -> Times:
    """The times of noise levels, held in the process's range."""
    low, high = _reach(process)
    t = process.time_of(jnp.clip(levels, low, high))
    return Times(jnp.clip(t, 0, 1), jnp.ones_like(t))


def importance_times(key: PRNGKey, process: Gaussian, n: int, *, low: float = 1e-3, high: float = 1.0) -> Times:
    """t with density proportional to g^2 / sigma^2, stratified: flat likelihood-weighted losses (Song et al. 2021).

    Since g^2 / sigma^2 = d(-log SNR)/dt, these are times uniform in log-SNR, on every process. Raises InputError when
    the log-SNR is infinite at `low` or `high` (flow and cosine at 1): move that end inwards."""
    ends = known(lambda p: (-p.log_snr(low), -p.log_snr(high)), process)
    ok = jnp.isfinite(ends[0]) & jnp.isfinite(ends[1])
    first = require(ends[0], ok, f"the log-SNR is infinite at t={low} or t={high}; choose ends inside (0, 1)")
    u = (jnp.arange(0.0, n) + jax.random.uniform(key, (n,))) / n
    t = jnp.clip(process.time_of(jnp.exp(0.5 * (first + u * (ends[1] - first)))), low, high)
    slope = jax.jvp(process.log_snr, (t,), (jnp.ones_like(t),))[1]
    return Times(t, (ends[1] - first) / -slope)


def _spread(u, low, high) -> Times:
    if not 0 <= low < high <= 1:
        raise InputError(f"training times got low={low}, high={high}, expected 0 <= low < high <= 1")
    return Times(low + (high - low) * u, jnp.full_like(u, high - low))
