"""At which times to sample: a sampling grid is n + 1 falling times from noise to data; the last is the data end, t = 0.

Published grids are sequences of noise levels sigma / alpha, so each works on every process by `process.time_of`. They
start where the process does, t = 1, unless `sigma_max` says otherwise, and stop short of sigma = 0 at `sigma_min`, from
where one last step goes to 0; a process that keeps noise at t = 0 (VE) ends there itself."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff import schedules
from jaxdiff.errors import InputError
from jaxdiff.grids.levels import geometric, ordered, reach, shown
from jaxdiff.numerics import as_array, known, require
from jaxdiff.processes.categorical import Categorical
from jaxdiff.processes.gaussian import Gaussian

Grid = Float[Array, " n_1"]


def uniform(process: Gaussian | Categorical, n: int) -> Grid:
    """t_i = 1 - i / n, of any process: tokens have no sigma / alpha for the other grids to be made of."""
    counted(n)
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
    return _levels(process, n, geometric, sigma_min, sigma_max, 0.002, 80.0)


def ve(process: Gaussian, n: int, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Grid:
    """Song et al.'s VE steps: a geometric sequence from 100 to .02, where the process reaches so far (Karras et al.
    2022, Table 1)."""
    return _levels(process, n, geometric, sigma_min, sigma_max, 0.02, 100.0, cap=True)


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
    counted(n)
    ordered(sigma_min, sigma_max)
    return known(_picked, process, n, sigma_min, sigma_max, steps, c1, c2)


def _picked(process, n, sigma_min, sigma_max, steps, c1, c2) -> Grid:
    table = jnp.sqrt(jnp.expm1(schedules.IDDPM(steps, c1, c2).nodes[:0:-1]))  # u_0 > u_1 > ... > u_(steps - 1)
    low, high = reach(process)
    keep = (table >= jnp.maximum(low, sigma_min)) & (table <= jnp.minimum(high, sigma_max))
    first = jnp.argmax(keep)
    message = "no iDDPM noise level lies in the process's range; widen sigma_min, sigma_max"
    table, count = require(table, keep.sum() > 0, message), keep.sum()
    picked = first + jnp.round((count - 1).astype(table.dtype) * (jnp.arange(n) / max(n - 1, 1))).astype(int)
    return falling_times(process, table[picked])


def _levels(process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap=False) -> Grid:
    """Times of ramp(u, low, high), u from 0 to 1; `cap` keeps the published ends where the process reaches further."""
    counted(n)
    ordered(sigma_min, sigma_max)
    return known(_spaced, process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap)


def _spaced(process, n, ramp, sigma_min, sigma_max, default_min, default_max, cap) -> Grid:
    low, high, noisy_end = ends(process, sigma_min, sigma_max, default_min, default_max, cap)
    u = jnp.minimum(jnp.arange(n) / jnp.where(noisy_end, n, max(n - 1, 1)), 1.0)
    return falling_times(process, ramp(u, low, high), starts_at_one=sigma_max is None and not cap)


def ends(process, sigma_min, sigma_max, default_min, default_max, cap=False):
    """The lowest and the highest level of a grid, and whether the process itself ends at the lowest."""
    lowest, highest = reach(process)
    low = jnp.maximum(lowest, default_min) if sigma_min is None else _within(sigma_min, lowest, highest, "sigma_min")
    if sigma_max is not None:
        high = _within(sigma_max, lowest, highest, "sigma_max")
    elif cap:
        high = jnp.minimum(highest, default_max)
    else:
        high = jnp.where(jnp.isfinite(highest), highest, default_max)
    low = require(low, low < high, f"sigma_min {shown(low)} is not below sigma_max {shown(high)}; widen the range")
    # A process without noise at t = 0 spends its last step from sigma_min to there; one with noise ends at sigma_min.
    return low, high, low <= lowest


def falling_times(process, ratios, starts_at_one=False) -> Grid:
    """The times of falling levels, and t = 0 after them."""
    t = process.time_of(ratios)
    # The prior lives at t = 1 exactly; rounding, or alpha(1) = 0, may have put the first level below it.
    first = jnp.ones_like(t[:1]) if starts_at_one else jnp.minimum(t[:1], 1)
    return jnp.concatenate([first, t[1:], jnp.zeros_like(t[:1])])


def _within(value, low, high, name):
    # One part in 1e5 of slack: sigma / alpha of the ends is itself rounded.
    ok = (value >= low * (1 - 1e-5)) & (value <= high * (1 + 1e-5))
    reach = f"[{shown(low)}, {shown(high)}]"
    message = f"{name}={shown(value)} is outside the process's noise levels {reach}; choose it within them"
    return jnp.clip(require(as_array(value), ok, message), low, high)


def counted(n):
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"a sampling grid got n={n!r} steps, expected a whole number of at least 1")
