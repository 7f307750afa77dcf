"""The samplers that a config or the command line can name: each is (process, steps, options) -> Sampler.

`steps` are intervals of the grid; `CALLS` says how many denoiser calls that is."""

from jaxdiff import grids, samplers
from jaxdiff.processes import Gaussian
from jaxdiff.samplers import Sampler, edm

__all__ = ["ancestral", "ddim", "dpmpp_2m", "edm", "euler", "reverse_sde"]

CALLS = {
    "ancestral": lambda steps: steps,
    "ddim": lambda steps: steps,
    "dpmpp_2m": lambda steps: steps,
    "edm": lambda steps: 2 * steps - 1,
    "euler": lambda steps: steps,
    "reverse_sde": lambda steps: steps,
}


def euler(process: Gaussian, *, steps: int = 35) -> Sampler:
    """The probability flow by Euler steps on Karras's grid."""
    return Sampler(process, samplers.euler(process), grids.karras(process, steps))


def dpmpp_2m(process: Gaussian, *, steps: int = 35) -> Sampler:
    """DPM-Solver++(2M) on Karras's grid, with a first-order last step."""
    ts = grids.karras(process, steps)
    return Sampler(process, samplers.dpmpp_2m(process), ts, last=samplers.euler(process))


def ddim(process: Gaussian, *, steps: int = 35, eta: float = 0.0) -> Sampler:
    """DDIM on improved DDPM's noise levels, the iDDPM + DDIM column of Karras et al. (2022), Table 1."""
    return Sampler(process, samplers.ddim(process, eta), grids.iddpm(process, steps))


def ancestral(process: Gaussian, *, steps: int = 1000) -> Sampler:
    """DDPM's ancestral sampling, on steps uniform in log-SNR."""
    return Sampler(process, samplers.ancestral(process), grids.logsnr(process, steps))


def reverse_sde(process: Gaussian, *, steps: int = 1000, eta: float = 1.0) -> Sampler:
    """Euler-Maruyama on the reverse SDE; its first step is Euler's where alpha(1) = 0."""
    first = samplers.euler(process)
    return Sampler(process, samplers.reverse_sde(process, eta), grids.logsnr(process, steps), first=first)
