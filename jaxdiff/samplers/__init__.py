"""From noise to data: a stepper is one step, `sample` walks it down a grid, a `Sampler` is the whole as a value."""

from jaxdiff.samplers.draw import draw
from jaxdiff.samplers.flow import Flow, flow
from jaxdiff.samplers.loop import sample
from jaxdiff.samplers.modifiers import churn, langevin, product, project
from jaxdiff.samplers.ode import dpmpp_2m, euler, heun
from jaxdiff.samplers.recipes import Sampler, edm
from jaxdiff.samplers.sde import ancestral, ddim, reverse_sde
from jaxdiff.samplers.stepper import Stepper

__all__ = [
    "Flow",
    "Sampler",
    "Stepper",
    "ancestral",
    "churn",
    "ddim",
    "dpmpp_2m",
    "draw",
    "edm",
    "euler",
    "flow",
    "heun",
    "langevin",
    "product",
    "project",
    "reverse_sde",
    "sample",
]
