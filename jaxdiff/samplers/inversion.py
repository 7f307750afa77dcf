"""Data to noise: a deterministic stepper walked up its grid, to its error (`invert`), or so that the way back is exact
(`encode`, `decode`)."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, concrete, partial, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.loop import check, run
from jaxdiff.samplers.stepper import Around, Stepper, memoryless
from jaxdiff.types import Denoiser, State

FUNCTION = "whose step is no function of x alone; use a one-step one"
"""Why a step with a memory can't be undone."""


def invert(
    process: Gaussian, stepper: Stepper, denoise: Denoiser, x: State, ts: Any, *, trajectory: bool = False
) -> State:
    """Carry `x` from ts[-1] up to ts[0]: the latent from which the sampler of the same times makes it, to the error of
    the method.

    With `euler` this is DDIM inversion (Song et al. 2021): first order, one call a step, exact only on the exact flow.
    `inverse(process, euler(process))` undoes the steps themselves. `ts` fall, as for `sample`, and end with noise: at
    sigma = 0 the direction of the noise is not known. Raises InputError for such times, and for a stepper that
    draws noise."""
    ts = _noisy(process, stepper, ts)
    return run(
        jax.random.key(0), stepper, partial(denoise), x, ts[::-1], None, None, False, trajectory, Partial(_silent)
    )


def _noisy(process, stepper, ts):
    ts = check(stepper, ts)
    message = "inversion starts from x with noise, and sigma is 0 at the last time; end the grid above: ts[:-1]"
    return require(ts, process.scales(ts[-1])[1] > 0, message)


def _silent(key, shape, dtype):
    raise InputError("inversion got a stepper that draws noise, whose steps cannot be undone; use a deterministic one")


def inverse(process: Gaussian, inner: Stepper, *, rounds: int = 3) -> Stepper:
    """The stepper that goes up by undoing `inner`'s step down, for `invert`: x_t with step(x_t; t -> s) = x_s.

    Starts from `inner` itself walked up and repairs it `rounds` times, x_t += (sigma_t / sigma_s) (x_s - step(x_t)),
    each of which gains one order in the step size, at inner's price. Raises InputError for a multistep `inner`."""
    if rounds < 0:
        raise InputError(f"inverse got rounds={rounds}, expected 0 or more")
    return _Inverse(inner, process, rounds)


class _Inverse(Around):
    process: Gaussian
    rounds: int = eqx.field(static=True)

    @property
    def calls(self):
        return self.inner.calls * (1 + self.rounds)

    def init(self, x, t):
        return memoryless("inverse", self.inner, x, t, why=FUNCTION)

    def step(self, key, denoise, carry, x, s, t, *, noise=jax.random.normal):
        inner, gain = self.inner, self.process.scales(t)[1] / self.process.scales(s)[1]

        def repair(guess, _):
            back, _ = inner.step(key, denoise, carry, guess, t, s, noise=noise)
            return guess + gain * (x - back), None

        guess, _ = inner.step(key, denoise, carry, x, s, t, noise=noise)
        return jax.lax.scan(repair, guess, length=self.rounds)[0], carry


class Twins(NamedTuple):
    """Two states a little apart, from which the way back is exact; of a fresh latent or sample, `Twins(x, x)`."""

    x: Array
    twin: Array


def encode(
    process: Gaussian, stepper: Stepper, denoise: Denoiser, x: Array, ts: Any, *, mix: float | Array = 0.999
) -> Twins:
    """The latent twins of `x` at ts[0], which `decode` with the same arguments carries back to x, for any denoiser on
    any grid, to rounding and what the denoiser makes of that (McCallum and Foster 2024).

    With psi(x; t -> s) = step(x; t -> s) - x and `mix` = m, a step up from s to t of the twins (x, w) is

        x_t = m x_s + (1 - m) w_s + psi(w_s; s -> t),    w_t = w_s - psi(x_t; t -> s),

    in units of sqrt(alpha^2 + sigma^2), which is solved for (x_s, w_s) without an equation: of `stepper`'s order, at
    two of its steps each. `ts` fall, as for `sample`, and end with noise. Raises InputError for other times, a `mix`
    outside (0, 1], and a stepper that draws noise or remembers."""
    return _paired(process, stepper, denoise, Twins(x, x), ts, mix, up=True)


def decode(
    process: Gaussian, stepper: Stepper, denoise: Denoiser, twins: Twins, ts: Any, *, mix: float | Array = 0.999
) -> Twins:
    """`encode` undone step by step, from ts[0] down to ts[-1]; from `Twins(x, x)` of a fresh latent it is a sampler of
    the stepper's order."""
    return _paired(process, stepper, denoise, twins, ts, mix, up=False)


def _paired(process, stepper, denoise, twins, ts, mix, *, up):
    if concrete(mix) and not 0 < mix <= 1:
        raise InputError(f"encode and decode got mix={mix}, expected 0 < mix <= 1 such as .999")
    return _couple(process, stepper, partial(denoise), twins, _noisy(process, stepper, ts), as_array(mix), up)


@eqx.filter_jit
def _couple(process, stepper, denoise, twins, ts, mix, up):
    dtype = twins.x.dtype
    ts, mix = ts.astype(dtype), cast(mix, dtype)
    key = jax.random.key(0)

    def unit(t):
        return jnp.hypot(*process.scales(t))

    def psi(x, t, s):
        # In one unit for all levels: a twin of sigma = 80 would round away digits of one of sigma = .002.
        x_t = unit(t) * x
        carry = memoryless("encode or decode", stepper, x_t, t, why=FUNCTION)
        return stepper.step(key, denoise, carry, x_t, t, s, noise=Partial(_silent))[0] / unit(s) - x

    def rise(twins, times):
        (x, w), (t, s) = twins, times
        x = mix * x + (1 - mix) * w + psi(w, s, t)
        return Twins(x, w - psi(x, t, s)), None

    def fall(twins, times):
        (x, w), (t, s) = twins, times
        w = w + psi(x, t, s)
        return Twins((x - (1 - mix) * w - psi(w, s, t)) / mix, w), None

    begin, end = (ts[-1], ts[0]) if up else (ts[0], ts[-1])
    twins = jax.tree.map(lambda x: x / unit(begin), twins)
    twins, _ = jax.lax.scan(rise if up else fall, twins, (ts[:-1], ts[1:]), reverse=up)
    return jax.tree.map(lambda x: unit(end) * x, twins)
