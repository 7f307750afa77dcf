"""Gaussian noising x_t = alpha(t) x0 + sigma(t) eps, and all that follows from the pair (alpha, sigma).

With f = (log alpha)' and g^2 = (sigma^2)' - 2 f sigma^2 the same marginals are those of dx = f x dt + g dW (Song et
al. 2021; Kingma et al. 2021), and p(x_s | x_t, x0) is Gaussian. The derivatives are autodiff's, so two descriptions
cannot disagree."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff import schedules
from jaxdiff.numerics import aligned, as_array, cast
from jaxdiff.processes.process import about_numbers, as_struct
from jaxdiff.types import Belief, Noise, PRNGKey, Scalar, State, Time


class Gaussian(eqx.Module):
    """A Gaussian process of one example of any shape; times may be arrays where the result is a number a time."""

    schedule: schedules.Schedule

    def _at(self, t) -> tuple[Any, Array]:
        t = as_array(t)
        return cast(self.schedule, t.dtype), t

    def scales(self, t: Time) -> tuple[Scalar, Scalar]:
        """(alpha, sigma) at `t`."""
        schedule, t = self._at(t)
        return schedule.alpha(t), schedule.sigma(t)

    def log_snr(self, t: Time) -> Scalar:
        """log(alpha^2 / sigma^2); infinite at the ends where alpha or sigma is 0."""
        alpha, sigma = self.scales(t)
        return 2 * (jnp.log(alpha) - jnp.log(sigma))

    def time_of(self, ratio: Time) -> Scalar:
        """The time at which sigma / alpha is `ratio`; outside [0, 1] where the process does not reach the ratio."""
        schedule, ratio = self._at(ratio)
        return schedule.time_of(ratio)

    def sde(self, t: Time) -> tuple[Scalar, Scalar]:
        """(f, g^2) of dx = f x dt + g dW: f = alpha' / alpha, g^2 = (sigma^2)' - 2 f sigma^2."""
        schedule, t = self._at(t)
        one = jnp.ones_like(t)
        alpha, d_alpha = jax.jvp(schedule.alpha, (t,), (one,))
        # Not through sigma: the derivative of a square root is infinite at t = 0.
        variance, d_variance = jax.jvp(schedule.variance, (t,), (one,))
        f = d_alpha / alpha
        return f, d_variance - 2 * f * variance

    def drift(self, x: State, t: Time) -> State:
        """f x."""
        x, t = aligned(x, t)
        return self.sde(t)[0] * x

    def diffuse(self, z: State, t: Time) -> State:
        """g z."""
        z, t = aligned(z, t)
        return jnp.sqrt(self.sde(t)[1]) * z

    def score(self, x: State, belief: Belief, t: Time) -> State:
        """grad log p_t(x) = (alpha E[x0 | x_t = x] - x) / sigma^2 (Tweedie)."""
        x, t = aligned(x, t)
        alpha, sigma = self.scales(t)
        return (alpha * belief - x) / sigma**2

    def posterior(self, x: State, x0: State, t: Time, s: Time) -> tuple[State, Scalar]:
        """Mean and standard deviation of p(x_s | x_t = x, x0), s < t (Ho et al. 2020, eq. 7, for any alpha and sigma).

        mean = (a sigma_s^2 x + alpha_s v x0) / sigma_t^2 and std = sigma_s sqrt(v) / sigma_t, with a = alpha_t /
        alpha_s and v = sigma_t^2 - a^2 sigma_s^2 the variance of p(x_t | x_s)."""
        (alpha, sigma), (alpha_s, sigma_s) = self.scales(t), self.scales(s)
        keep = alpha * sigma_s / (alpha_s * sigma)
        fresh = jnp.clip(1 - keep**2, min=0)  # v / sigma_t^2; rounding may leave it below 0 as s -> t
        return keep * (sigma_s / sigma) * x + fresh * alpha_s * x0, sigma_s * jnp.sqrt(fresh)

    def believed(self, belief: Any, x: State) -> Belief:
        """`belief`, refused when it is not an array like x."""
        return about_numbers(belief, x, x)

    def like(self, shape_like: Any) -> jax.ShapeDtypeStruct:
        """One example's shape and dtype, those of `shape_like`: an array, a shape, or a `jax.ShapeDtypeStruct`."""
        return as_struct(shape_like)

    def bridge(self, key: PRNGKey, x: State, x0: State, t: Time, s: Time, *, noise: Noise = jax.random.normal) -> State:
        """x_s ~ p(x_s | x_t = x, x0), s < t, with fresh noise: a draw from `posterior`."""
        x, t = aligned(x, t)
        mean, std = self.posterior(x, x0, t, as_array(s).astype(t.dtype))
        return mean + std * noise(key, x.shape, x.dtype)

    def prior(self, key: PRNGKey, like: Any, t: Time = 1.0, *, noise: Noise = jax.random.normal) -> State:
        """x at t = 1 (or where else sampling starts), drawn from N(0, sigma(t)^2) in the shape and dtype of `like`."""
        like = self.like(like)
        return cast(self.scales(t)[1], like.dtype) * noise(key, like.shape, like.dtype)

    def log_prior(self, x: State, t: Time = 1.0) -> Scalar:
        """log density of `prior` at `x`, summed over all of x's axes."""
        x, t = aligned(x, t)
        variance = self._at(t)[0].variance(t)
        return -0.5 * jnp.sum(x**2 / variance + jnp.log(2 * jnp.pi * variance))

    def perturb(self, key: PRNGKey, x0: State, t: Time, *, noise: Noise = jax.random.normal) -> State:
        """x_t = alpha x0 + sigma eps with fresh eps."""
        alpha, sigma = cast(self.scales(t), x0.dtype)
        return alpha * x0 + sigma * noise(key, x0.shape, x0.dtype)


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Gaussian:
    """Variance preserving with linear beta (Ho et al. 2020; Song et al. 2021)."""
    return Gaussian(schedules.LinearVP(beta_min, beta_max))


def subvp(beta_min: float = 0.1, beta_max: float = 20.0) -> Gaussian:
    """Sub-variance-preserving (Song et al. 2021)."""
    return Gaussian(schedules.SubVP(schedules.LinearVP(beta_min, beta_max)))


def ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Gaussian:
    """Variance exploding, geometric in t (Song et al. 2021); sigma(0) = sigma_min, so noise is left at the data end."""
    return Gaussian(schedules.VE(sigma_min, sigma_max))


def edm(sigma_max: float = 80.0) -> Gaussian:
    """alpha = 1, sigma = sigma_max t (Karras et al. 2022)."""
    return Gaussian(schedules.EDM(sigma_max))


def brownian(sigma_max: float = 100.0) -> Gaussian:
    """alpha = 1, sigma = sigma_max sqrt(t): variance exploding as Karras et al. (2022), Table 1, step through it."""
    return Gaussian(schedules.Brownian(sigma_max))


def vp_between(sigma_min: float | Scalar, sigma_max: float | Scalar, eps: float = 1e-3) -> Gaussian:
    """VP with the linear beta that has sigma / alpha = `sigma_min` at t = eps and `sigma_max` at 1 (Karras et al.
    2022)."""
    return Gaussian(schedules.LinearVP.between(sigma_min, sigma_max, eps))


def unscaled(process: Gaussian) -> Gaussian:
    """The noise levels of `process` at alpha = 1 (Karras et al. 2022, Table 1, scaling 1)."""
    return Gaussian(schedules.Unscaled(process.schedule))


def preserving(process: Gaussian) -> Gaussian:
    """The noise levels of `process` at alpha^2 + sigma^2 = 1 (Karras et al. 2022, Table 1, VP's scaling)."""
    return Gaussian(schedules.Preserving(process.schedule))


def cosine(s: float = 0.008) -> Gaussian:
    """Variance preserving with a cosine alpha (Nichol and Dhariwal 2021); alpha(1) = 0."""
    return Gaussian(schedules.Cosine(s))


def flow() -> Gaussian:
    """Rectified flow: alpha = 1 - t, sigma = t (Liu et al. 2023; Lipman et al. 2023)."""
    return Gaussian(schedules.Flow())


def logsnr(gamma: Callable[..., Any] | None = None) -> Gaussian:
    """Variance preserving from an increasing gamma(t) = -log SNR (Kingma et al. 2021), a learned one too.

    `gamma` is a function or, to be learned, a pytree that is called; the default is linear from -13.3 to 5."""
    return Gaussian(schedules.LogSNR(gamma))


def given(alpha: Callable[..., Any], variance: Callable[..., Any]) -> Gaussian:
    """Any alpha(t) and variance(t) = sigma^2, as functions or, to be learned, as pytrees that are called; sigma / alpha
    must rise over [0, 1]."""
    return Gaussian(schedules.Given(alpha, variance))


def iddpm(steps: int = 1000, c1: float = 0.001, c2: float = 0.008) -> Gaussian:
    """Improved DDPM's discrete chain, continued between its steps by a piecewise constant beta (Nichol and Dhariwal
    2021)."""
    return Gaussian(schedules.IDDPM(steps, c1, c2))
