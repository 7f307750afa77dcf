"""Every Gaussian target is y = a x0 + b eps, and x_t = alpha x0 + sigma eps. So a parameterisation is the row (a, b),
and all conversions are one Cramer's rule. EDM preconditioning is another row, which also scales the network's input.

A row is undefined where it is parallel to x_t's: `noise` and `scaled_score` where alpha = 0, `score` at both ends,
`velocity` where sigma' is infinite (t = 0 of VP, Brownian, cosine and iDDPM). There `to_data` divides by zero, and a
network has nothing to learn."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.numerics import aligned, as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Scalar, Time

__all__ = [
    "EDM",
    "InputScaled",
    "Row",
    "data",
    "edm",
    "from_data",
    "noise",
    "scaled_score",
    "score",
    "to_data",
    "v",
    "velocity",
]

Row = Callable[[Gaussian, Time], tuple[Scalar, Scalar]]
"""(process, t) -> (a, b) of the target a x0 + b eps."""


@runtime_checkable
class InputScaled(Protocol):
    """A row that also says by what its network's input is multiplied."""

    def input_scale(self, process: Gaussian, t: Time) -> Scalar: ...


def noise(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """eps (Ho et al. 2020)."""
    t = as_array(t)
    return jnp.zeros_like(t), jnp.ones_like(t)


def data(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """x0."""
    t = as_array(t)
    return jnp.ones_like(t), jnp.zeros_like(t)


def velocity(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """alpha' x0 + sigma' eps, the speed of x_t: eps - x0 for rectified flow (Lipman et al. 2023)."""
    t = as_array(t)
    return jax.jvp(process.scales, (t,), (jnp.ones_like(t),))[1]


def v(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """alpha eps - sigma x0 (Salimans and Ho 2022)."""
    alpha, sigma = process.scales(t)
    return -sigma, alpha


def score(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """-eps / sigma = grad log p(x_t | x0)."""
    _, sigma = process.scales(t)
    return jnp.zeros_like(sigma), -1 / sigma


def scaled_score(process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
    """-eps = sigma grad log p(x_t | x0), what Song et al.'s VE networks predict (Karras et al. 2022, Table 1)."""
    t = as_array(t)
    return jnp.zeros_like(t), -jnp.ones_like(t)


class EDM(eqx.Module):
    """Karras et al. (2022), Table 1, for any (alpha, sigma): the unit-variance row orthogonal to x_t.

    a = sigma / (sigma_data T), b = -alpha sigma_data / T, c_in = 1 / T, T^2 = alpha^2 sigma_data^2 + sigma^2."""

    sigma_data: Array = eqx.field(converter=as_array, default=0.5)

    def _total(self, process, t):
        alpha, sigma = process.scales(t)
        spread = cast(self.sigma_data, alpha.dtype)
        return alpha, sigma, spread, jnp.sqrt(alpha**2 * spread**2 + sigma**2)

    def __call__(self, process: Gaussian, t: Time) -> tuple[Scalar, Scalar]:
        alpha, sigma, spread, total = self._total(process, t)
        return sigma / (spread * total), -alpha * spread / total

    def input_scale(self, process: Gaussian, t: Time) -> Scalar:
        return 1 / self._total(process, t)[3]


def edm(sigma_data: float | Float[Array, "..."] = 0.5) -> EDM:
    """EDM preconditioning for data of standard deviation `sigma_data` (one number, or one a channel)."""
    return EDM(sigma_data)


def to_data(row: Row, process: Gaussian, y: Array, x: Array, t: Time) -> Array:
    """Recover x0 from a prediction `y` of `row` and the noisy `x`: (sigma y - b x) / (a sigma - b alpha).

    Where the two rows are parallel (sigma = 0 for `data`) it is y / a."""
    x, t = aligned(x, t)
    alpha, sigma = process.scales(t)
    a, b = row(process, t)
    determinant = a * sigma - b * alpha
    parallel = determinant == 0
    # One division by what is not 0: in a branch not taken, y / 0 would still make the gradient NaN.
    return jnp.where(parallel, y, sigma * y - b * x) / jnp.where(parallel, a, determinant)


def from_data(row: Row, process: Gaussian, x0: Array, x: Array, t: Time) -> Array:
    """The target of `row`, a x0 + b (x - alpha x0) / sigma, when the noisy `x` has clean data `x0`; needs sigma > 0 or
    b = 0."""
    x, t = aligned(x, t)
    alpha, sigma = process.scales(t)
    a, b = row(process, t)
    return a * x0 + jnp.where(b == 0, 0, b * (x - alpha * x0) / sigma)
