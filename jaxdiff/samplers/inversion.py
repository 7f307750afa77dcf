"""Data to noise: a deterministic stepper walked up its grid."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.numerics import partial, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.loop import check, run
from jaxdiff.samplers.stepper import Stepper
from jaxdiff.types import Denoiser, State


def invert(
    process: Gaussian, stepper: Stepper, denoise: Denoiser, x: State, ts: Any, *, trajectory: bool = False
) -> State:
    """Carry `x` from ts[-1] up to ts[0]: the latent from which the sampler of the same times makes it, to the error of
    the method.

    With `euler` this is DDIM inversion (Song et al. 2021): first order, one call a step, exact only on the exact flow.
    `inverse(process, euler(process))` undoes the steps themselves. `ts` fall, as for `sample`, and end with noise: at
    sigma = 0 the direction of the noise is not known. Raises InputError for such times, and for a stepper that
    draws noise."""
    ts = check(stepper, ts)
    message = "inversion starts from x with noise, and sigma is 0 at the last time; end the grid above: ts[:-1]"
    ts = require(ts, process.scales(ts[-1])[1] > 0, message)
    return run(
        jax.random.key(0), stepper, partial(denoise), x, ts[::-1], None, None, False, trajectory, Partial(_silent)
    )


def _silent(key, shape, dtype):
    raise InputError("inversion got a stepper that draws noise, whose steps cannot be undone; use a deterministic one")


def inverse(process: Gaussian, inner: Stepper, *, rounds: int = 3) -> Stepper:
    """The stepper that goes up by undoing `inner`'s step down, for `invert`: x_t with step(x_t; t -> s) = x_s.

    Starts from `inner` itself walked up and repairs it `rounds` times, x_t += (sigma_t / sigma_s) (x_s - step(x_t)),
    each of which gains one order in the step size, at inner's price. Raises InputError for a multistep `inner`."""
    if rounds < 0:
        raise InputError(f"inverse got rounds={rounds}, expected 0 or more")
    return Stepper(Partial(_init, inner), Partial(_Inverse(rounds), process, inner), inner.demands)


def _init(inner, x, t):
    carry = inner.init(x, t)
    if jax.tree.leaves(carry):
        raise InputError("inverse got a multistep stepper, whose step is no function of x alone; use a one-step one")
    return carry


@dataclass(frozen=True)
class _Inverse:
    """The number of repairs is part of the program."""

    rounds: int

    def __call__(self, process, inner, key, denoise, carry, x, s, t, *, noise=jax.random.normal):
        gain = process.scales(t)[1] / process.scales(s)[1]

        def repair(guess, _):
            back, _ = inner.step(key, denoise, carry, guess, t, s, noise=noise)
            return guess + gain * (x - back), None

        guess, _ = inner.step(key, denoise, carry, x, s, t, noise=noise)
        return jax.lax.scan(repair, guess, length=self.rounds)[0], carry
