"""Multistep methods: one denoiser call a step, the belief extrapolated from the steps before.

All are `exponential`'s formula, told apart by the belief that is interpolated, the variable in which it is a
polynomial, and the density. The carry holds the last beliefs and where they were met. While it is filling, a step has
a lower order: order k needs steps of order k - 1 there, or a start at so much noise that D hardly moves
(`warmed` gives them)."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.brownian import increment
from jaxdiff.samplers.exponential import ABSENT, DATA, NOISE, Density, Form, bend, exact, finite, flat, halved
from jaxdiff.samplers.stepper import Stepper, believe, ends_noisy, positive
from jaxdiff.types import Scalar


def dpmpp_2m(process: Gaussian) -> Stepper:
    """DPM-Solver++(2M), second order (Lu et al. 2022b): Euler with D extrapolated in log(alpha / sigma).

    Needs sigma_s > 0, so give the end to `last`."""
    return _Multistep(process, DATA, 2, flat)


def dpmpp_3m(process: Gaussian, *, published: bool = False) -> Stepper:
    """DPM-Solver++(3M), third order: D is a parabola in log(alpha / sigma), integrated exactly.

    `published` is the form of Lu et al.'s code, whose second difference lacks a factor 2: second order. Needs sigma_s >
    0, so give the end to `last`."""
    return _Multistep(process, DATA, 3, halved if published else exact)


def dpm_2m(process: Gaussian) -> Stepper:
    """DPM-Solver(2M), second order (Lu et al. 2022a): as `dpmpp_2m`, with the noise extrapolated in place of D."""
    return _Multistep(process, NOISE, 2, flat)


def dpm_3m(process: Gaussian, *, published: bool = False) -> Stepper:
    """DPM-Solver(3M), third order; the same as deis(3). `published` as in `dpmpp_3m`."""
    return _Multistep(process, NOISE, 3, halved if published else exact)


def deis(process: Gaussian, order: int = 3) -> Stepper:
    """DEIS, exponential Adams-Bashforth of order 1 to 4 (Zhang and Chen 2023): the noise is a polynomial in log(sigma /
    alpha), integrated exactly.

    (Their rho-AB, a polynomial in sigma / alpha, is `lms`; their t-AB hangs on the clock of the process.) Needs sigma_s
    > 0, so give the end to `last`. Raises InputError for another order."""
    return _Multistep(process, NOISE, _order("deis", order), exact)


def lms(process: Gaussian, order: int = 4) -> Stepper:
    """The linear multistep method of order 1 to 4 (Adams-Bashforth; k-diffusion's lms): the noise is a polynomial in
    sigma / alpha. Defined at sigma_s = 0. Raises InputError for another order."""
    return _Multistep(process, NOISE, _order("lms", order), flat, in_ratio=True)


def dpmpp_2m_sde(process: Gaussian, eta: float | Scalar = 1.0, *, heun: bool = False) -> Stepper:
    """SDE-DPM-Solver++(2M): the reverse SDE with its linear part and its noise exact and D extrapolated.

    `eta` scales the noise as in `reverse_sde` (k-diffusion's eta is its square). `heun` integrates the line exactly
    (k-diffusion's solver_type "heun") instead of by its middle. Needs sigma_s > 0, so give the end to `last`."""
    return _Stochastic(process, DATA, 2, exact if heun else flat, eta=as_array(eta))


def dpmpp_3m_sde(process: Gaussian, eta: float | Scalar = 1.0, *, published: bool = False) -> Stepper:
    """SDE-DPM-Solver++(3M), as `dpmpp_2m_sde` with D a parabola; `published` as in `dpmpp_3m`."""
    return _Stochastic(process, DATA, 3, halved if published else exact, eta=as_array(eta))


def _order(name, order):
    if order not in (1, 2, 3, 4):
        raise InputError(f"{name} got order={order}, expected 1, 2, 3 or 4")
    return order


class _Multistep(Stepper):
    process: Gaussian
    form: Form = eqx.field(static=True)
    points: int = eqx.field(static=True)
    density: Density = eqx.field(static=True)
    in_ratio: bool = eqx.field(static=True, default=False)  # the variable is p / q itself, not its logarithm

    @property
    def order(self):
        return 2 if self.density is halved else self.points

    def init(self, x, t):
        return (jnp.zeros_like(x),) * (self.points - 1), (jnp.full_like(t, ABSENT),) * (self.points - 1)

    def demands(self, ts):
        return () if self.in_ratio else ends_noisy(self.process, ts)

    def recall(self, carry, f, t, s):
        """The beliefs remembered and their places, with the next carry."""
        before, met = carry
        here, there = (self.form.level(self.process, time) for time in (t, s))
        if self.in_ratio:
            here, there = jnp.exp(here), jnp.exp(there)
        places = [(place - here) / (there - here) for place in met]
        return before, places, ((f, *before)[: self.points - 1], (here, *met)[: self.points - 1])

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        beliefs = self.form.beliefs(self.process, believe(denoise, x, t), x, t)
        before, places, carry = self.recall(carry, beliefs[0], t, s)
        return self.form.travel(self.process, beliefs, t, s, before, places, self.density), carry


class _Stochastic(_Multistep):
    eta: Scalar = eqx.field(kw_only=True)

    @property
    def order(self):
        return min(2, self.points)

    @property
    def stochastic(self):
        return positive(self.eta)

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        """x_s = (sigma_s / sigma) k x + alpha_s (1 - k e^-h) E[D(v)] + sigma_s sqrt(1 - k^2) z with k = e^(-eta^2 h),
        h = log(alpha_s / sigma_s) - log(alpha / sigma), and density e^((1 + eta^2) h v)."""
        (alpha, sigma), (alpha_s, sigma_s) = self.process.scales(t), self.process.scales(s)
        data = believe(denoise, x, t)
        before, places, carry = self.recall(carry, data, t, s)
        square = cast(self.eta, x.dtype) ** 2
        h = self.form.level(self.process, s) - self.form.level(self.process, t)
        keep = jnp.exp(-h)
        old, pull = keep**square, 1 - keep ** (1 + square)
        fresh = jnp.sqrt(jnp.where(square > 0, -jnp.expm1(-2 * square * h), 0))
        mean = alpha_s * data + sigma_s * old / sigma * (x - alpha * data)
        mean += alpha_s * pull * bend((data, *before), places, self.density(finite((1 + square) * h), len(places)))
        return mean + sigma_s * fresh * increment(noise, key, x, t, s), carry
