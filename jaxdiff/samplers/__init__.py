"""From noise to data: a stepper is one step, `sample` walks it down a grid, a `Sampler` is the whole as a value."""

from jaxdiff.samplers import autoregressive, categorical, clocks, named
from jaxdiff.samplers.ancestral_form import ancestral_form
from jaxdiff.samplers.brownian import one_path
from jaxdiff.samplers.draw import draw, draw_chunks
from jaxdiff.samplers.flow import Flow, flow
from jaxdiff.samplers.inversion import Twins, decode, encode, inverse, invert
from jaxdiff.samplers.loop import sample
from jaxdiff.samplers.modifiers import churn, langevin, product, project, recasting
from jaxdiff.samplers.multistep import deis, dpm_2m, dpm_3m, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, lms
from jaxdiff.samplers.ode import euler, heun
from jaxdiff.samplers.recipes import Sampler, edm, generalised
from jaxdiff.samplers.runge_kutta import euler_in_t, runge_kutta_in_t
from jaxdiff.samplers.sde import ancestral, ddim, dpmpp_sde, reverse_sde
from jaxdiff.samplers.singlestep import dpm_2s, dpm_3s, dpmpp_2s, dpmpp_3s
from jaxdiff.samplers.stepper import Stepper, ends
from jaxdiff.samplers.turns import dpm_fast, in_turn, warmed
from jaxdiff.samplers.unipc import bh1, bh2, unipc

__all__ = [
    "Flow",
    "Sampler",
    "Stepper",
    "Twins",
    "ancestral",
    "ancestral_form",
    "autoregressive",
    "bh1",
    "bh2",
    "categorical",
    "churn",
    "clocks",
    "ddim",
    "decode",
    "deis",
    "dpm_2m",
    "dpm_2s",
    "dpm_3m",
    "dpm_3s",
    "dpm_fast",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "dpmpp_sde",
    "draw",
    "draw_chunks",
    "edm",
    "encode",
    "ends",
    "euler",
    "euler_in_t",
    "flow",
    "generalised",
    "heun",
    "in_turn",
    "inverse",
    "invert",
    "langevin",
    "lms",
    "named",
    "one_path",
    "product",
    "project",
    "recasting",
    "reverse_sde",
    "runge_kutta_in_t",
    "sample",
    "unipc",
    "warmed",
]
