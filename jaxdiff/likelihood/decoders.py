"""What the data are, given the least noisy state z = alpha x + sigma eps: decoder(process, denoise, x, z, t) = log
p(x | z), summed over x's axes; needs sigma(t) > 0.

It closes a variational bound at the data end, where E[log p(x | z) - log q(z | x)] is what the last of the noise
costs."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast, concrete, known, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import believe
from jaxdiff.types import Denoiser, Scalar, Time

__all__ = ["Checking", "Decoder", "checked", "discrete", "gaussian"]

Decoder = Callable[..., Any]
"""(process, denoise, x, z, t) -> log p(x | z), one number for one example."""


@runtime_checkable
class Checking(Protocol):
    """A decoder of some data alone: check(x) is x, or an InputError that says what is wrong with it."""

    def check(self, x: Array) -> Array: ...


def checked(decoder: Decoder, x: Array) -> Array:
    """`x`, refused at once where it is known and the decoder is not made for it."""
    return decoder.check(x) if isinstance(decoder, Checking) else x


def gaussian() -> Decoder:
    """log N(x; D(z, t), (sigma / alpha)^2), a density for continuous data.

    The mean is the belief; the variance is that of z / alpha about x, as if nothing else were known of x."""
    return Partial(_gaussian)


def _gaussian(process: Gaussian, denoise: Denoiser, x: Array, z: Array, t: Time) -> Scalar:
    x, t = aligned(x, t)
    alpha, sigma = process.scales(t)
    miss = (x - believe(denoise, z, t)) * (alpha / sigma)
    return -0.5 * jnp.sum(miss**2 + jnp.log(2 * jnp.pi) + 2 * jnp.log(sigma / alpha))


class Discrete(eqx.Module):
    """log softmax over grey levels x_k of -(z / alpha - x_k)^2 / (2 (sigma / alpha)^2), at the level of each
    element."""

    low: Array = eqx.field(converter=as_array)
    high: Array = eqx.field(converter=as_array)
    levels: int = eqx.field(static=True)

    def __call__(self, process: Gaussian, denoise: Denoiser, x: Array, z: Array, t: Time) -> Scalar:
        x, t = aligned(x, t)
        alpha, sigma = process.scales(t)
        step = self._step(x.dtype)
        level = jnp.round(self._place(self.check(x)))
        seen, width = self._place(z / alpha), sigma / alpha / step
        every = jnp.arange(self.levels, dtype=x.dtype)
        evidence = -0.5 * ((seen[..., None] - every) / width) ** 2
        return jnp.sum(-0.5 * ((seen - level) / width) ** 2 - jax.nn.logsumexp(evidence, axis=-1))

    def check(self, x: Array) -> Array:
        """`x`, if each of its elements is a grey level, to a hundredth of a step."""
        ends = f" from {self.low} to {self.high}" if concrete(self.low, self.high) else ""
        message = (
            f"the discrete decoder got an x off its {self.levels} grey levels{ends}; expected levels as data.to_model "
            "maps them, not dequantised: give those, or the decoder the number of levels that the data have"
        )
        return require(x, known(lambda self, x: self._holds(x), self, x), message)

    def _holds(self, x):
        place = self._place(x)
        near = jnp.abs(place - jnp.round(place)) < 0.01
        return jnp.all(near & (place > -0.5) & (place < self.levels - 0.5))

    def _step(self, dtype):
        low, high = cast((self.low, self.high), dtype)
        return (high - low) / (self.levels - 1)

    def _place(self, x):
        """Where `x` is, counted in steps from `low`: there the levels are whole numbers, exact in every dtype."""
        return (x - cast(self.low, x.dtype)) / self._step(x.dtype)


def discrete(levels: int = 256, low: float = -1.0, high: float = 1.0) -> Decoder:
    """For data on `levels` even steps x_k from `low` to `high` (by default 256 grey levels as `data.to_model` maps
    them): the probability of each element's own level is softmax_k(-(z / alpha - x_k)^2 / (2 (sigma / alpha)^2))
    (Kingma et al. 2021).

    That is Bayes' rule for levels that are equally likely, so it sums to 1 over them; the denoiser is not asked. The
    decoder raises InputError for an x off the levels, this function for fewer than two of them or low >= high."""
    if levels < 2:
        raise InputError(f"a discrete decoder got levels={levels}, expected at least 2 grey levels, such as 256")
    if concrete(low, high) and not low < high:
        raise InputError(f"a discrete decoder got low={low}, which is not below high={high}; swap or widen them")
    return Discrete(low, high, levels)
