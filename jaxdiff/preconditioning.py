"""How a network is made a denoiser, D = c_skip x + c_out F(c_in x; c_noise): the four columns of Karras et al. (2022),
Table 1, as values.

c_skip and c_out are a row (`parameterizations`): what F predicts. c_in scales what it sees, c_noise says the noise
level in the units that it learned. Each is a function of (process, t) through alpha and sigma alone, so a network runs
on any process. Swap one part with `_replace`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff import denoisers, parameterizations, schedules
from jaxdiff.denoisers import Network, log_ratio, unit_scale
from jaxdiff.numerics import cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Scalar, Time

__all__ = [
    "Preconditioning",
    "data_scale",
    "edm",
    "iddpm",
    "iddpm_index",
    "log_half",
    "log_ratio",
    "unit_scale",
    "ve",
    "vp",
    "vp_time",
]


class Preconditioning(NamedTuple):
    """What a network predicts, sees and hears; `c_in=None` is the row's own scale, else unit variance."""

    row: Any
    c_in: Callable[..., Any] | None = None
    c_noise: Callable[..., Any] = log_ratio

    def network(self, apply: Callable[..., Any], process: Gaussian) -> Network:
        """`denoisers.from_network` with these three."""
        return denoisers.from_network(apply, self.row, process, c_in=self.c_in, c_noise=self.c_noise)


def vp(*, beta_min: float = 0.1, beta_max: float = 20.0, steps: int = 1000) -> Preconditioning:
    """Song et al.'s VP networks: c_skip = 1, c_out = -sigma, c_in = 1 / sqrt(sigma^2 + 1), c_noise = 999 t(sigma)."""
    c_noise = Partial(vp_time, beta_min=beta_min, beta_max=beta_max, steps=steps)
    return Preconditioning(parameterizations.noise, unit_scale, c_noise)


def ve() -> Preconditioning:
    """Song et al.'s VE networks: c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma / 2)."""
    return Preconditioning(parameterizations.scaled_score, data_scale, log_half)


def iddpm(*, steps: int = 1000, c1: float = 0.001, c2: float = 0.008) -> Preconditioning:
    """Improved DDPM's networks: c_skip = 1, c_out = -sigma, c_in = 1 / sqrt(sigma^2 + 1), c_noise the step's index."""
    return Preconditioning(parameterizations.noise, unit_scale, Partial(iddpm_index, steps=steps, c1=c1, c2=c2))


def edm(sigma_data: float = 0.5) -> Preconditioning:
    """Karras et al.'s own: c_skip = sigma_data^2 / (sigma^2 + sigma_data^2), c_noise = ln(sigma) / 4."""
    return Preconditioning(parameterizations.edm(sigma_data))


def data_scale(process: Gaussian, t: Time) -> Scalar:
    """1 / alpha: the network sees the data at their own scale, and noise of any size on them."""
    return 1 / process.scales(t)[0]


def _level(process, t):
    alpha, sigma = process.scales(t)
    return sigma / alpha


def vp_time(process: Gaussian, t: Time, *, beta_min: float = 0.1, beta_max: float = 20.0, steps: int = 1000) -> Scalar:
    """(steps - 1) times the time at which Song et al.'s VP has this noise level."""
    level = jnp.minimum(_level(process, t), 1e6)  # which it reaches long after t = 1; alpha = 0 is no number for it
    return (steps - 1) * cast(schedules.LinearVP(beta_min, beta_max), level.dtype).time_of(level)


def log_half(process: Gaussian, t: Time) -> Scalar:
    """ln(sigma / 2 alpha), the ratio held in [1e-6, 1e6] as its limits are no input for a network."""
    return jnp.log(0.5 * jnp.clip(_level(process, t), 1e-6, 1e6))


def iddpm_index(process: Gaussian, t: Time, *, steps: int = 1000, c1: float = 0.001, c2: float = 0.008) -> Scalar:
    """The index from 0 to steps - 1 of the nearest noise level among improved DDPM's."""
    level = _level(process, t)
    table = jnp.sqrt(jnp.expm1(schedules.IDDPM(steps, c1, c2).nodes[1:])).astype(level.dtype)
    return jnp.argmin(jnp.abs(table - level[..., None]), axis=-1).astype(level.dtype)
