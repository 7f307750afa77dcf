"""Single-step methods: DPM-Solver (noise form) and DPM-Solver++ (data form) of order 2 and 3, which ask the denoiser
again between t and s, at fractions of the step in log(alpha / sigma)."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.random import normal

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, concrete
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.exponential import DATA, NOISE, Form, flat
from jaxdiff.samplers.stepper import Stepper, believe, ends_noisy
from jaxdiff.types import Scalar, Time


def dpm_2s(process: Gaussian, r: float | Scalar = 0.5) -> Stepper:
    """DPM-Solver-2, second order, two calls (Lu et al. 2022a, Alg. 4): the noise asked again at the fraction `r`.

    With r = 1/2 this is the midpoint rule in log sigma, k-diffusion's dpm_2. Needs alpha > 0 at the start and sigma >
    0 at the end: give these steps to `first` and `last`. Raises InputError unless 0 < r <= 1."""
    return _Two(process, NOISE, _fraction(r))


def dpmpp_2s(process: Gaussian, r: float | Scalar = 0.5) -> Stepper:
    """DPM-Solver++(2S), second order, two calls (Lu et al. 2022b, Alg. 1): as `dpm_2s`, on D in place of the noise."""
    return _Two(process, DATA, _fraction(r))


def dpm_3s(process: Gaussian, r: float | Scalar = 1 / 3) -> Stepper:
    """DPM-Solver-3, third order, three calls (Lu et al. 2022a, Alg. 5): the noise at the fractions `r` and 2/3.

    (The second fraction is theirs: any other makes the method second order.) Needs and raises what `dpm_2s` does."""
    return _Three(process, NOISE, _fraction(r))


def dpmpp_3s(process: Gaussian, r: float | Scalar = 1 / 3) -> Stepper:
    """DPM-Solver++(3S), third order, three calls: as `dpm_3s`, on D in place of the noise."""
    return _Three(process, DATA, _fraction(r))


def _fraction(r):
    if concrete(r) and not 0 < r <= 1:
        raise InputError(f"a single-step solver got r={r}, expected a fraction of the step in (0, 1]")
    return as_array(r)


def inside(process: Gaussian, ts: Any) -> tuple[Any, ...]:
    """The demand of a step that asks at a fraction of itself in log(alpha / sigma)."""
    message = (
        "a single-step solver asks at a fraction of the step in log(alpha / sigma), and alpha is 0 at the first time; "
        "give the first step to another stepper: sample(..., first=euler(process))"
    )
    return ((process.scales(ts[0])[0] > 0, message), *ends_noisy(process, ts))


def between(process: Gaussian, t: Time, s: Time, r: Any) -> Scalar:
    """The time at the fraction `r` of the way from t to s in log(alpha / sigma)."""
    a, b = (jnp.log(sigma) - jnp.log(alpha) for alpha, sigma in (process.scales(t), process.scales(s)))
    # Either end may be the earlier one: `invert` and `encode` walk up.
    return jnp.clip(process.time_of(jnp.exp(a + r * (b - a))), jnp.minimum(s, t), jnp.maximum(s, t))


class _SingleStep(Stepper):
    process: Gaussian
    form: Form = eqx.field(static=True)
    r: Scalar

    def demands(self, ts):
        return inside(self.process, ts)

    def beliefs(self, denoise, x, t):
        return self.form.beliefs(self.process, believe(denoise, x, t), x, t)


class _Two(_SingleStep):
    order = calls = 2

    def step(self, key, denoise, carry, x, t, s, *, noise=normal):
        process, travel, r = self.process, self.form.travel, cast(self.r, x.dtype)
        middle = between(process, t, s, r)
        now = self.beliefs(denoise, x, t)
        f1, _ = self.beliefs(denoise, travel(process, now, t, middle), middle)
        return travel(process, now, t, s, [f1], [r], flat), carry


class _Three(_SingleStep):
    order = calls = 3

    def step(self, key, denoise, carry, x, t, s, *, noise=normal):
        process, travel = self.process, self.form.travel
        r, r2 = cast(self.r, x.dtype), jnp.asarray(2 / 3, x.dtype)
        early, late = (between(process, t, s, v) for v in (r, r2))
        now = self.beliefs(denoise, x, t)
        f1, _ = self.beliefs(denoise, travel(process, now, t, early), early)
        f2, _ = self.beliefs(denoise, travel(process, now, t, late, [f1], [r / r2]), late)
        return travel(process, now, t, s, [f2], [r2]), carry
