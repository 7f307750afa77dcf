"""A noise schedule that is learned: an increasing gamma(t) = -log SNR for `processes.logsnr` (Kingma et al. 2021).

Its ends say how much noise the least noisy state keeps and how much signal the noisiest: the likelihood bound depends
on them. What it does in between changes no bound, only the variance of its estimate (`likelihood.vdm`). So a learned
schedule keeps the two apart, and `ends_only` and `interior_only` let a gradient into one of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial
from jaxdiff.types import PRNGKey

__all__ = ["Learned", "Monotone", "ends_only", "interior_only", "learned", "monotone"]


class Monotone(eqx.Module):
    """n(t) = a t + sum_j c_j (s(b_j t + d_j) - s(d_j)), with s the logistic function and a, b_j, c_j > 0: the softplus
    of the leaves, so that n rises whatever these are, from n(0) = 0.

    This is l1(t) + l3(s(l2(l1(t)))) of Kingma et al. (2021), with weights that are positive, less what cancels: l1's
    scale and all constants."""

    slope: Float[Array, ""]
    rates: Float[Array, " hidden"]
    shifts: Float[Array, " hidden"]
    heights: Float[Array, " hidden"]

    def __call__(self, t):
        slope, rates, heights = map(jax.nn.softplus, (self.slope, self.rates, self.heights))
        t = as_array(t)
        steps = jax.nn.sigmoid(rates * t[..., None] + self.shifts) - jax.nn.sigmoid(self.shifts)
        return slope * t + jnp.sum(heights * steps, -1)


def monotone(key: PRNGKey, *, hidden: int = 1024) -> Monotone:
    """A random Monotone near a straight line: `hidden` steps, centred anywhere in [0, 1], of every steepness from 1 to
    32, that climb as much together as the line does. Raises InputError for fewer than one."""
    if hidden < 1:
        raise InputError(f"a monotone network got hidden={hidden}, expected at least 1 hidden unit, such as 1024")
    where, how_steep = jax.random.split(key)
    rates = 32.0 ** jax.random.uniform(how_steep, (hidden,))
    shifts = -rates * jax.random.uniform(where, (hidden,))
    heights = jnp.full((hidden,), 1 / hidden)
    return Monotone(_before_softplus(jnp.ones(())), _before_softplus(rates), shifts, _before_softplus(heights))


def _before_softplus(y):
    return y + jnp.log(-jnp.expm1(-y))


class Learned(eqx.Module):
    """gamma(t) = g0 + (g1 - g0) (n(t) - n(0)) / (n(1) - n(0)) for an increasing `interior` n: it holds its ends g0 =
    start and g1 = start + exp(log_span) whatever n does, and g0 < g1 whatever a gradient does."""

    interior: Callable[..., Any]
    start: Array = eqx.field(converter=as_array)
    log_span: Array = eqx.field(converter=as_array)

    @property
    def end(self) -> Float[Array, ""]:
        """gamma(1)."""
        return self.start + jnp.exp(self.log_span)

    def __call__(self, t):
        t = as_array(t)
        first, last = (self.interior(jnp.full_like(t, end)) for end in (0, 1))
        return self.start + jnp.exp(self.log_span) * ((self.interior(t) - first) / (last - first))


def learned(interior: Callable[..., Any], start: float = -13.3, end: float = 5.0) -> Learned:
    """The schedule from gamma(0) = `start` to gamma(1) = `end` on the way of `interior`: a `Monotone` to learn it, or
    any increasing function of arrays of times, such as the identity where the ends alone are learned.

    Raises InputError when start >= end or `interior` does not rise over [0, 1]."""
    if concrete(start, end) and not start < end:
        raise InputError(f"a learned gamma got start={start}, which is not below end={end}; swap or widen them")
    if concrete(interior) and not known(_rises, interior):
        raise InputError(
            "the interior of a learned gamma does not rise over [0, 1]; expected an increasing function, elementwise"
        )
    return Learned(partial(interior), start, jnp.log(as_array(end) - as_array(start)))


def _rises(interior):
    t = jnp.linspace(0.0, 1.0, 9)
    n = interior(t)
    return n.shape == t.shape and bool(jnp.all(jnp.diff(n) > 0))


def ends_only(gamma: Learned) -> Learned:
    """`gamma` with gradients in its ends alone."""
    return dataclasses.replace(gamma, interior=jax.lax.stop_gradient(gamma.interior))


def interior_only(gamma: Learned) -> Learned:
    """`gamma` with gradients in its interior alone."""
    start, log_span = jax.lax.stop_gradient((gamma.start, gamma.log_span))
    return dataclasses.replace(gamma, start=start, log_span=log_span)
