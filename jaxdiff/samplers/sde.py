"""Stochastic steps: each draws x_s from a Gaussian whose mean is affine in x_t and the belief D."""

import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.numerics import as_array, cast
from jaxdiff.numerics.small import act
from jaxdiff.processes.diffusing import Diffusing
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.linear import Linear
from jaxdiff.samplers.brownian import increment, increments
from jaxdiff.samplers.singlestep import between, inside
from jaxdiff.samplers.stepper import Stepper, believe, one_step, starts_with_signal
from jaxdiff.types import Scalar


def ddim(process: Gaussian, eta: float | Scalar = 0.0) -> Stepper:
    """Song et al. (2021), eq. 12: Euler (eta = 0) to DDPM's ancestral step (eta = 1).

    x_s = alpha_s D + sqrt(sigma_s^2 - c^2) eps + c z, where c is eta times the standard deviation of p(x_s | x_t,
    x0)."""
    return one_step(_ddim, process, eta=as_array(eta))


def _ddim(process, eta, key, denoise, x, t, s, noise):
    data = believe(denoise, x, t)
    mean, fresh = _split(process, eta, data, x, t, s)
    return mean + fresh * increment(noise, key, x, t, s)


def _split(process, eta, data, x, t, s):
    """The mean of DDIM's step and the standard deviation of its noise."""
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(t), process.scales(s)
    fresh = cast(eta, x.dtype) * process.posterior(x, data, t, s)[1]
    old = jnp.sqrt(jnp.clip(sigma_s**2 - fresh**2, min=0))
    return alpha_s * data + old / sigma * (x - alpha * data), fresh


def dpmpp_sde(process: Gaussian, eta: float | Scalar = 1.0) -> Stepper:
    """DPM-Solver++ SDE, two calls (k-diffusion's dpmpp_sde, r = 1/2): DDIM's step with the belief at a midpoint in
    log(alpha / sigma), where such a step has led; both steps' noise is of one path.

    Needs alpha > 0 at the start and sigma > 0 at the end: give these steps to `first` and `last`."""
    return one_step(_dpmpp_sde, process, order=2, calls=2, eta=as_array(eta), demands=Partial(inside, process))


def _dpmpp_sde(process, eta, key, denoise, x, t, s, noise):
    middle = between(process, t, s, 0.5)
    near, whole = increments(noise, key, x, t, middle, s)
    mean, fresh = _split(process, eta, believe(denoise, x, t), x, t, middle)
    data = believe(denoise, mean + fresh * near, middle)
    mean, fresh = _split(process, eta, data, x, t, s)
    return mean + fresh * whole


def ancestral(process: Gaussian | Linear) -> Stepper:
    """DDPM's step: x_s ~ p(x_s | x_t, x0 = D) (Ho et al. 2020, Alg. 2), of any linear SDE; finite at both ends."""
    return one_step(_ancestral, process, stochastic=True)


def _ancestral(process, key, denoise, x, t, s, noise):
    mean, std = process.posterior(x, believe(denoise, x, t, process), t, s)
    z = increment(noise, key, x, t, s)
    return mean + (act(std, z) if isinstance(process, Linear) else std * z)


def reverse_sde(process: Diffusing, eta: float | Scalar = 1.0) -> Stepper:
    """Euler-Maruyama on dx = (drift - (1 + eta^2) / 2 G G' score) dt + eta G dW, backwards in t, for any linear SDE;
    f x and g^2 on a Gaussian process (Song et al. 2021, eq. 6).

    Every eta has the same marginals: 1 is Anderson's reverse SDE, 0 the probability flow. Needs alpha > 0 at the start
    (the drift f is infinite at alpha = 0), so there give the first step to `first`."""
    return one_step(_reverse_sde, process, eta=as_array(eta), demands=Partial(starts_with_signal, process))


def _reverse_sde(process, eta, key, denoise, x, t, s, noise):
    eta = cast(eta, x.dtype)
    score = process.score(x, believe(denoise, x, t, process), t)
    pull = process.diffuse(process.diffuse(score, t), t)
    back = t - s
    mean = x - back * (process.drift(x, t) - 0.5 * (1 + eta**2) * pull)
    return mean + eta * jnp.sqrt(back) * process.diffuse(increment(noise, key, x, t, s), t)
