"""Samplers of discrete diffusion: a kernel is the law of a step, `draw` its stepper, `sampler` the whole as a value."""

from jaxdiff.samplers.categorical.cache import cached
from jaxdiff.samplers.categorical.correctors import conditional, gibbs
from jaxdiff.samplers.categorical.draws import draw, greedy, move, pick, x0_then_posterior
from jaxdiff.samplers.categorical.hitting import calls, first_hitting
from jaxdiff.samplers.categorical.jumps import euler, reverse_rate, tau_leaping
from jaxdiff.samplers.categorical.kernels import Kernel, ancestral, cap, remask, rescale, tweedie
from jaxdiff.samplers.categorical.recipes import sampler

__all__ = [
    "Kernel",
    "ancestral",
    "cached",
    "calls",
    "cap",
    "conditional",
    "draw",
    "euler",
    "first_hitting",
    "gibbs",
    "greedy",
    "move",
    "pick",
    "remask",
    "rescale",
    "reverse_rate",
    "sampler",
    "tau_leaping",
    "tweedie",
    "x0_then_posterior",
]
