"""How much of a token sequence is still data: alpha(t) falls from 1 at t = 0, where all is data, to (nearly) 0 at 1.

A discrete process keeps each token with probability alpha(t) (`processes.absorbing`, `processes.uniform`). Beside
alpha stands `rest` = 1 - alpha, written so that it keeps its relative precision where alpha is near 1, and `time_of`,
the inverse of `rest`. The bounds of the absorbing process do not depend on the schedule; their variance does."""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete
from jaxdiff.types import Scalar, Time

__all__ = ["Alpha", "Cosine", "Linear", "Polynomial", "TotalNoise", "cosine", "cosine_squared", "fall", "linear"]
__all__ += ["constant_rate", "geometric", "log_linear", "polynomial"]


@runtime_checkable
class Alpha(Protocol):
    """alpha(t), rest(t) = 1 - alpha(t), and time_of(rest) = t."""

    def __call__(self, t: Time) -> Scalar: ...
    def rest(self, t: Time) -> Scalar: ...
    def time_of(self, rest: Time) -> Scalar: ...


def fall(alpha: Alpha, t: Time) -> Scalar:
    """-alpha'(t), the rate at which data are lost."""
    t = as_array(t)
    return jax.jvp(alpha.rest, (t,), (jnp.ones_like(t),))[1]


class Polynomial(eqx.Module):
    """alpha = 1 - (1 - floor) t^power."""

    power: Array = eqx.field(converter=as_array, default=1.0)
    floor: Array = eqx.field(converter=as_array, default=0.0)

    def __check_init__(self):
        _check_floor(self.floor)
        if concrete(self.power) and not self.power > 0:
            raise InputError(f"a polynomial alpha got power={self.power}, expected a number above 0, such as 1")

    def __call__(self, t):
        return 1 - self.rest(t)

    def rest(self, t):
        return (1 - self.floor) * t**self.power

    def time_of(self, rest):
        return (rest / (1 - self.floor)) ** (1 / self.power)


class Linear(eqx.Module):
    """alpha = 1 - (1 - floor) t: the log-linear schedule of Lou et al. (2024), whose -log alpha = -log(1 - (1 - floor)
    t)."""

    floor: Array = eqx.field(converter=as_array, default=0.0)

    def __check_init__(self):
        _check_floor(self.floor)

    def __call__(self, t):
        return (1 - t) + self.floor * t

    def rest(self, t):
        return (1 - self.floor) * t

    def time_of(self, rest):
        return rest / (1 - self.floor)


class Cosine(eqx.Module):
    """alpha = floor + (1 - floor) cos(pi t / 2)^power, of power 1 or 2."""

    floor: Array = eqx.field(converter=as_array, default=0.0)
    squared: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        _check_floor(self.floor)

    def __call__(self, t):
        # cos(pi t / 2) as a sine, which keeps its relative precision at t = 1.
        cos = jnp.sin(0.5 * jnp.pi * (1 - t))
        return self.floor + (1 - self.floor) * (cos**2 if self.squared else cos)

    def rest(self, t):
        lost = jnp.sin(0.5 * jnp.pi * t) ** 2 if self.squared else 2 * jnp.sin(0.25 * jnp.pi * t) ** 2
        return (1 - self.floor) * lost

    def time_of(self, rest):
        lost = jnp.sqrt(rest / (1 - self.floor))
        if self.squared:
            return 2 / jnp.pi * jnp.arcsin(jnp.clip(lost, 0, 1))
        return 4 / jnp.pi * jnp.arcsin(jnp.clip(lost / jnp.sqrt(jnp.full_like(lost, 2)), 0, 1))


class TotalNoise(eqx.Module):
    """alpha = exp(-noise), with noise(t) = low + (high - low) t, or low^(1 - t) high^t where `geometric`."""

    low: Array = eqx.field(converter=as_array)
    high: Array = eqx.field(converter=as_array)
    geometric: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        least = 0 if not self.geometric else jnp.finfo(self.low.dtype).tiny
        if concrete(self.low, self.high) and not least <= self.low < self.high:
            raise InputError(
                f"a total noise got low={self.low}, high={self.high}; expected {'0 <' if self.geometric else '0 <='} "
                "low < high, such as 0.001 and 7"
            )

    def noise(self, t):
        """-log alpha."""
        if self.geometric:
            return self.low * jnp.exp(t * jnp.log(self.high / self.low))
        return self.low + (self.high - self.low) * t

    def __call__(self, t):
        return jnp.exp(-self.noise(t))

    def rest(self, t):
        return -jnp.expm1(-self.noise(t))

    def time_of(self, rest):
        noise = -jnp.log1p(-rest)
        if self.geometric:
            return jnp.log(noise / self.low) / jnp.log(self.high / self.low)
        return (noise - self.low) / (self.high - self.low)


def linear() -> Linear:
    """alpha = 1 - t."""
    return Linear()


def log_linear(floor: float = 1e-3) -> Linear:
    """alpha = 1 - (1 - floor) t (Lou et al. 2024), which keeps a share `floor` of the data at t = 1."""
    return Linear(floor)


def polynomial(power: float = 2.0) -> Polynomial:
    """alpha = 1 - t^power (Shi et al. 2024)."""
    return Polynomial(power)


def cosine(floor: float = 0.0) -> Cosine:
    """alpha = floor + (1 - floor) cos(pi t / 2)."""
    return Cosine(floor)


def cosine_squared(floor: float = 0.0) -> Cosine:
    """alpha = floor + (1 - floor) cos(pi t / 2)^2."""
    return Cosine(floor, True)


def geometric(low: float = 1e-3, high: float = 10.0) -> TotalNoise:
    """-log alpha = low^(1 - t) high^t; `low` > 0 leaves noise at the data end, exp(-high) data at the other."""
    return TotalNoise(low, high, True)


def constant_rate(total: float = 10.0) -> TotalNoise:
    """-log alpha = total t: tokens are lost at one rate, and exp(-total) of them are data at t = 1."""
    return TotalNoise(0.0, total)


def _check_floor(floor):
    if concrete(floor) and not (floor >= 0) & (floor < 1):
        raise InputError(f"an alpha schedule got floor={floor}, expected 0 <= floor < 1, the data kept at t = 1")
