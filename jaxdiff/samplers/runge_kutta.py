"""Deterministic steps in the process's own time, along the tangent dx/dt = alpha' D + sigma' eps (Karras et al. 2022,
eq. 4 and Algorithm 3).

Where `ode.euler` and `ode.heun` follow the curve that alpha and sigma draw, these follow its tangent, so here it
matters how a process runs through its noise levels: the same levels in another time or at another scaling are another
sampler. These are the published VP and VE samplers, and what Karras et al. compare."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, concrete
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import Stepper, believe, one_step
from jaxdiff.types import Scalar


def euler_in_t(process: Gaussian) -> Stepper:
    """x + (s - t) dx/dt: first order, one denoiser call; needs sigma' finite at t, so t > 0."""
    return one_step(_euler, process)


def runge_kutta_in_t(process: Gaussian, alpha: float | Scalar = 1.0) -> Stepper:
    """Second order, two denoiser calls, the second at t + alpha (s - t): 1 is Heun, 1/2 the midpoint rule, 2/3 Ralston.

    x_s = x + h ((1 - 1 / 2 alpha) d + (1 / 2 alpha) d'), d' the slope at x + alpha h d. Needs sigma > 0 where it is
    asked for d', so give the end to `last=euler_in_t(process)`. Raises InputError unless 0 < alpha <= 1."""
    if concrete(alpha) and not 0 < alpha <= 1:
        raise InputError(f"runge_kutta_in_t got alpha={alpha}, expected 0 < alpha <= 1: 1 is Heun, 1/2 the midpoint")
    alpha = as_array(alpha)
    return one_step(_runge_kutta, process, alpha, order=2, calls=2, demands=Partial(_ends_noisy, process, alpha))


def _slope(process, denoise, x, t):
    (alpha, sigma), (d_alpha, d_sigma) = jax.jvp(process.scales, (t,), (jnp.ones_like(t),))
    data = believe(denoise, x, t)
    return d_alpha * data + d_sigma / sigma * (x - alpha * data)


def _euler(process, key, denoise, x, t, s, noise):
    return x + (s - t) * _slope(process, denoise, x, t)


def _runge_kutta(process, alpha, key, denoise, x, t, s, noise):
    alpha, h = cast(alpha, x.dtype), s - t
    d = _slope(process, denoise, x, t)
    d1 = _slope(process, denoise, x + alpha * h * d, t + alpha * h)
    late = 0.5 / alpha
    return x + h * ((1 - late) * d + late * d1)


def _ends_noisy(process, alpha, ts):
    t, s = ts[-2], ts[-1]
    message = (
        "a second-order step divides by sigma at its second call, and there sigma is 0 at the last time; give the last "
        "step to a first-order stepper: sample(..., last=euler(process)) or euler_in_t"
    )
    return ((process.scales(t + cast(alpha, ts.dtype) * (s - t))[1] > 0, message),)
