"""UniPC (Zhao et al. 2023): each belief is used twice, to correct the step that led to it and to predict the next, so
one denoiser call a step gives one order more than the same multistep method."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff.errors import InputError
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.exponential import ABSENT, DATA, exact, finite
from jaxdiff.samplers.stepper import Stepper, believe, ends_noisy


def bh1(h: Any) -> Any:
    """B1(h) = h, of the published coefficients."""
    return h


def bh2(h: Any) -> Any:
    """B2(h) = 1 - e^-h, of the published coefficients."""
    return -jnp.expm1(-h)


def unipc(process: Gaussian, order: int = 2, *, published: Callable[..., Any] | None = None) -> Stepper:
    """UniPC of `order` p = 2 or 3 in data form: UniP-p predicts, UniC-p corrects at the next call; order p + 1.

    The coefficients solve the order conditions: they integrate the polynomials through p and p + 1 beliefs exactly.
    `published=bh1` or `bh2` takes B(h) / 2 for the coefficient of a single difference, as the authors' code does. The
    last step is not corrected, at no cost in order. Needs sigma_s > 0, so give the end to `last`. Raises
    InputError for another order."""
    if order not in (2, 3):
        raise InputError(f"unipc got order={order}, expected 2 or 3")
    return _UniPC(process, order, published)


class _UniPC(Stepper):
    process: Gaussian
    points: int = eqx.field(static=True)
    published: Callable[..., Any] | None = eqx.field(static=True)

    @property
    def order(self):
        return self.points + 1

    def demands(self, ts):
        return ends_noisy(self.process, ts)

    def init(self, x, t):
        """The corrected x before, its time, and the beliefs up to then with their log(alpha / sigma)."""
        return x, t, (jnp.zeros_like(x),) * self.points, (jnp.full_like(t, ABSENT),) * self.points

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        before, u, beliefs, levels = carry
        data, level = believe(denoise, x, t), DATA.level(self.process, t)
        # The step from u to t again, with the belief at its end; none has led here at first, or none from alpha > 0.
        begun = jnp.isfinite(levels[0])
        places = (jnp.where(begun, level, ABSENT), *levels[1:])
        corrected = self.travel(before, u, t, beliefs[0], (data, *beliefs[1:]), places)
        x = jnp.where(begun, corrected, x)
        beliefs, levels = (data, *beliefs[:-1]), (level, *levels[:-1])
        return self.travel(x, t, s, data, beliefs[1:], levels[1:]), (x, t, beliefs, levels)

    def travel(self, x, t, s, data, others, levels):
        process = self.process
        here, there = (DATA.level(process, time) for time in (t, s))
        places = [(level - here) / (there - here) for level in levels]
        return DATA.travel(process, DATA.beliefs(process, data, x, t), t, s, others, places, self.density(places))

    def density(self, places):
        if self.published is None:
            return exact
        only = ~jnp.isfinite(places[1]) if len(places) > 1 else True
        return _Published(self.published, only)


class _Published(eqx.Module):
    """`exact`, but for E v where it is the `only` coefficient: B(h) / 2 over 1 - e^-h."""

    b: Callable[..., Any] = eqx.field(static=True)
    only: Any

    def __call__(self, z, n):
        one, first, *rest = exact(z, n)
        return [one, jnp.where(self.only, finite(0.5 * self.b(z) / bh2(z)), first), *rest]
