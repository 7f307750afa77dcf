"""How much signal and how much noise: x_t = alpha(t) x0 + sigma(t) eps, with data at t = 0 and noise at t = 1.

A schedule is alpha, sigma and the inverse of their ratio; drift, diffusion, log-SNR and velocity follow from them
(`processes.gaussian`). Beside sigma stands its square `variance`, because sigma'(0) is infinite for most schedules
while (sigma^2)'(0) is not. Every formula holds its relative precision in float32 over the whole of [0, 1]: `expm1`
where 1 - exp(-B) cancels, products of sines where cos^2 - cos^2 does.

`B(t)` is the integral of beta: a variance-preserving schedule has alpha = exp(-B/2), sigma^2 = 1 - exp(-B)."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial
from jaxdiff.numerics.roots import inverse
from jaxdiff.types import Scalar, Time

__all__ = [
    "EDM",
    "IDDPM",
    "VE",
    "Brownian",
    "Cosine",
    "Flow",
    "Given",
    "LinearGamma",
    "LinearVP",
    "LogSNR",
    "Preserving",
    "Schedule",
    "SubVP",
    "Unscaled",
]


@runtime_checkable
class Schedule(Protocol):
    """alpha(t), sigma(t), variance(t) = sigma^2, and time_of(sigma / alpha) = t."""

    def alpha(self, t: Time) -> Scalar: ...
    def sigma(self, t: Time) -> Scalar: ...
    def variance(self, t: Time) -> Scalar: ...
    def time_of(self, ratio: Time) -> Scalar: ...


class _FromSigma(eqx.Module):
    """A schedule whose sigma is the simpler of the two."""

    def variance(self, t):
        return self.sigma(t) ** 2  # pyright: ignore[reportAttributeAccessIssue]


class _FromVariance(eqx.Module):
    """A schedule whose variance is the simpler of the two."""

    def sigma(self, t):
        return jnp.sqrt(self.variance(t))  # pyright: ignore[reportAttributeAccessIssue]


class LinearVP(_FromVariance):
    """beta(t) rises linearly (Ho et al. 2020; Song et al. 2021): B = beta_min t + (beta_max - beta_min) t^2 / 2."""

    beta_min: Array = eqx.field(converter=as_array, default=0.1)
    beta_max: Array = eqx.field(converter=as_array, default=20.0)

    def __check_init__(self):
        _ordered("beta_min", self.beta_min, "beta_max", self.beta_max)

    @classmethod
    def between(cls, sigma_min: Time, sigma_max: Time, eps: float = 1e-3) -> "LinearVP":
        """The one whose sigma / alpha is `sigma_min` at t = eps and `sigma_max` at t = 1 (Karras et al. 2022, Table 1).

        B(eps) = ln(1 + sigma_min^2), B(1) = ln(1 + sigma_max^2). Where B(eps) < eps^2 B(1), beta is negative before
        eps: such a schedule is one on [eps, 1] and at 0 alone."""
        first, whole = jnp.log1p(as_array(sigma_min) ** 2), jnp.log1p(as_array(sigma_max) ** 2)
        rise = 2 * (first / eps - whole) / (eps - 1)
        return cls(whole - 0.5 * rise, whole + 0.5 * rise)

    def integral(self, t):
        return t * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t)

    def alpha(self, t):
        return jnp.exp(-0.5 * self.integral(t))

    def variance(self, t):
        return -jnp.expm1(-self.integral(t))

    def time_of(self, ratio):
        return self.time_of_integral(jnp.log1p(ratio**2))

    def time_of_integral(self, integral):
        slope = self.beta_max - self.beta_min
        # 2c / (b + sqrt(b^2 + 4ac)): the root that does not cancel where B is small.
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))


class SubVP(_FromSigma):
    """Sub-VP (Song et al. 2021): VP's alpha, and VP's variance as the standard deviation, sigma = 1 - exp(-B)."""

    vp: LinearVP

    def alpha(self, t):
        return self.vp.alpha(t)

    def sigma(self, t):
        return self.vp.variance(t)

    def time_of(self, ratio):
        return self.vp.time_of_integral(2 * jnp.arcsinh(ratio / 2))  # sigma / alpha = 2 sinh(B / 2)


class VE(_FromSigma):
    """Variance exploding (Song et al. 2021): sigma = sigma_min (sigma_max / sigma_min)^t; noise is left at t = 0."""

    sigma_min: Array = eqx.field(converter=as_array, default=0.02)
    sigma_max: Array = eqx.field(converter=as_array, default=100.0)

    def __check_init__(self):
        _ordered("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return self.sigma_min * jnp.exp(t * jnp.log(self.sigma_max / self.sigma_min))

    def time_of(self, ratio):
        return jnp.log(ratio / self.sigma_min) / jnp.log(self.sigma_max / self.sigma_min)


class EDM(_FromSigma):
    """Karras et al. (2022): alpha = 1, sigma = sigma_max t."""

    sigma_max: Array = eqx.field(converter=as_array, default=80.0)

    def __check_init__(self):
        _positive("sigma_max", self.sigma_max)

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return self.sigma_max * t

    def time_of(self, ratio):
        return ratio / self.sigma_max


class Brownian(_FromVariance):
    """Brownian motion, x_t = x0 + sigma_max W(t): VE in the time of Karras et al. (2022), Table 1, sigma = sigma_max
    sqrt(t)."""

    sigma_max: Array = eqx.field(converter=as_array, default=100.0)

    def __check_init__(self):
        _positive("sigma_max", self.sigma_max)

    def alpha(self, t):
        return jnp.ones_like(t)

    def variance(self, t):
        return self.sigma_max**2 * t

    def time_of(self, ratio):
        return (ratio / self.sigma_max) ** 2


class Unscaled(_FromVariance):
    """Another schedule's noise levels without its scaling (Karras et al. 2022: s = 1): alpha = 1, sigma = sigma / alpha
    of `inner`, which must keep alpha > 0."""

    inner: Schedule

    def alpha(self, t):
        return jnp.ones_like(t)

    def variance(self, t):
        return self.inner.variance(t) / self.inner.alpha(t) ** 2

    def time_of(self, ratio):
        return self.inner.time_of(ratio)


class Preserving(_FromVariance):
    """Another schedule's noise levels, scaled to alpha^2 + sigma^2 = 1 (Karras et al. 2022: s = 1 / sqrt(1 +
    sigma^2))."""

    inner: Schedule

    def _total(self, t):
        return self.inner.alpha(t) ** 2 + self.inner.variance(t)

    def alpha(self, t):
        return self.inner.alpha(t) / jnp.sqrt(self._total(t))

    def variance(self, t):
        return self.inner.variance(t) / self._total(t)

    def time_of(self, ratio):
        return self.inner.time_of(ratio)


class Flow(_FromSigma):
    """Rectified flow, the straight line from data to noise: alpha = 1 - t, sigma = t."""

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t * jnp.ones_like(t)

    def time_of(self, ratio):
        return 1 / (1 + 1 / ratio)  # 0 at 0 and 1 at infinity


class Cosine(_FromVariance):
    """Nichol and Dhariwal (2021): alpha = cos(theta) / cos(theta_0), theta = (pi / 2) (t + s) / (1 + s), sigma^2 = 1 -
    alpha^2."""

    s: Array = eqx.field(converter=as_array, default=0.008)

    def __check_init__(self):
        _positive("s", self.s)

    def _angle(self, t):
        return 0.5 * jnp.pi * t / (1 + self.s)

    def alpha(self, t):
        return jnp.sin(self._angle(1 - t)) / jnp.cos(self._angle(self.s))

    def variance(self, t):
        # cos^2(a) - cos^2(b) = sin(b - a) sin(b + a)
        start = self._angle(self.s)
        return jnp.sin(self._angle(t)) * jnp.sin(self._angle(t) + 2 * start) / jnp.cos(start) ** 2

    def time_of(self, ratio):
        # tan of theta - theta_0 from alpha = 1 / sqrt(1 + ratio^2), divided by ratio^2 so that infinity is a number.
        sin, cos = jnp.sin(self._angle(self.s)), jnp.cos(self._angle(self.s))
        inverse = 1 / ratio
        root = jnp.sqrt(1 + (sin * inverse) ** 2)
        angle = jnp.arctan2(cos, (root + sin * inverse) * (cos**2 * inverse + sin * root))
        return angle * (1 + self.s) * (2 / jnp.pi)


class LinearGamma(eqx.Module):
    """gamma(t) = -log SNR, linear from `start` (data end) to `end` (Kingma et al. 2021)."""

    start: Array = eqx.field(converter=as_array, default=-13.3)
    end: Array = eqx.field(converter=as_array, default=5.0)

    def __check_init__(self):
        _ordered("start", self.start, "end", self.end)

    def __call__(self, t):
        return self.start + (self.end - self.start) * t


class LogSNR(eqx.Module):
    """Variance preserving, from any increasing gamma(t) = -log SNR (Kingma et al. 2021): sigma^2 = sigmoid(gamma)."""

    gamma: Callable[..., Any]

    def __init__(self, gamma: Callable[..., Any] | None = None):
        self.gamma = LinearGamma() if gamma is None else partial(gamma)

    def alpha(self, t):
        # Not the root of a sigmoid, whose derivative (alpha') cancels where alpha is near 1.
        return jnp.exp(-0.5 * jax.nn.softplus(self.gamma(t)))

    def sigma(self, t):
        return jnp.sqrt(self.variance(t))

    def variance(self, t):
        return jax.nn.sigmoid(self.gamma(t))

    def time_of(self, ratio):
        return inverse(self.gamma, 2 * jnp.log(ratio))


class Given(_FromVariance):
    """Any two functions of time, alpha(t) falling and variance(t) = sigma^2 rising: for a schedule of one's own, a
    learned one too.

    Each is a function or a pytree that is called, elementwise and differentiable inside (0, 1). Its inverse is
    numerical. Raises InputError where sigma / alpha does not rise over [0, 1]."""

    level: Callable[..., Any]
    power: Callable[..., Any]

    def __init__(self, alpha: Callable[..., Any], variance: Callable[..., Any]):
        self.level, self.power = partial(alpha), partial(variance)

    def __check_init__(self):
        if concrete(self):
            known(_rising, self)

    def alpha(self, t):
        return self.level(t)

    def variance(self, t):
        return self.power(t)

    def time_of(self, ratio):
        return inverse(self._log_level, 2 * jnp.log(ratio))

    def _log_level(self, t):
        return jnp.log(self.power(t)) - 2 * jnp.log(self.level(t))


def _rising(schedule):
    t = jnp.linspace(0.0, 1.0, 65)
    alpha, variance = as_array(schedule.alpha(t)), as_array(schedule.variance(t))
    if not concrete(alpha, variance):  # made of what a caller traces: nothing is known of it yet
        return
    alpha, variance = np.asarray(alpha), np.asarray(variance)
    if alpha.shape != t.shape or variance.shape != t.shape:
        raise InputError(
            f"alpha and variance of {t.shape} times have shapes {alpha.shape} and {variance.shape}; expected functions "
            "that work element by element"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(variance) / alpha
    if not (np.all(alpha >= 0) and np.all(variance >= 0) and np.all(np.diff(ratio) > 0)):
        raise InputError(
            f"sigma / alpha of the given schedule goes from {ratio[0]:g} to {ratio[-1]:g} and does not rise all the "
            "way; expected alpha >= 0, variance >= 0 and a ratio that only rises over [0, 1]"
        )


class IDDPM(_FromVariance):
    """The chain of improved DDPM (Nichol and Dhariwal 2021) as VP with piecewise constant beta: B is linear between
    nodes.

    The nodes t = k / steps carry B_k = sum of -log max(abar_(j-1) / abar_j, c1), abar_j = sin^2(pi j / (2 steps (1 +
    c2))), so that sigma / alpha at them is the table u_j of Karras et al. (2022), Table 1."""

    nodes: Float[Array, " steps_1"]
    node: Float[Array, " steps_1"]
    rest: Float[Array, " steps_1"]

    def __init__(self, steps: int = 1000, c1: float = 0.001, c2: float = 0.008):
        if steps < 1:
            raise InputError(f"iddpm got steps={steps}, expected a positive number of steps such as 1000")
        abar = np.sin(0.5 * np.pi * np.arange(steps, -1, -1) / (steps * (c2 + 1))) ** 2
        self.nodes = as_array(np.concatenate([[0.0], np.cumsum(-np.log(np.maximum(abar[1:] / abar[:-1], c1)))]))
        # k / steps in two float32 parts: in one it is off by 3e-8, which the last node's slope (6,900) magnifies.
        exact = np.arange(steps + 1) / steps
        self.node = as_array(exact.astype(np.float32))
        self.rest = as_array((exact - exact.astype(np.float32)).astype(np.float32))

    @property
    def steps(self) -> int:
        return len(self.nodes) - 1

    def integral(self, t):
        k = jnp.clip(jnp.floor(t * self.steps).astype(int), 0, self.steps - 1)
        fraction = ((t - self.node[k]) - self.rest[k]) * self.steps
        return self.nodes[k] + fraction * (self.nodes[k + 1] - self.nodes[k])

    def alpha(self, t):
        return jnp.exp(-0.5 * self.integral(t))

    def variance(self, t):
        return -jnp.expm1(-self.integral(t))

    def time_of(self, ratio):
        integral = jnp.log1p(ratio**2)
        k = jnp.clip(jnp.searchsorted(self.nodes, integral, side="right") - 1, 0, self.steps - 1)
        fraction = (integral - self.nodes[k]) / (self.nodes[k + 1] - self.nodes[k])
        return self.node[k] + (self.rest[k] + fraction / self.steps)


def _positive(name, value):
    if concrete(value) and not np.all(np.asarray(value) > 0):
        raise InputError(f"{name} is {value}, expected a number above 0")


def _ordered(low_name, low, high_name, high):
    if concrete(low, high) and not np.all(np.asarray(low) < np.asarray(high)):
        raise InputError(f"{low_name}={low} is not below {high_name}={high}; swap or widen them")
