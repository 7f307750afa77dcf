"""What noise does to data: one frozen pytree a process, data at t = 0 and noise at t = 1."""

from jaxdiff.processes import rates
from jaxdiff.processes.categorical import Categorical, Mixing, absorbing, gidd, hybrid, uniform
from jaxdiff.processes.ctmc import Chain, ctmc
from jaxdiff.processes.diffusing import Augmented, Diffusing
from jaxdiff.processes.gaussian import (
    Gaussian,
    brownian,
    cosine,
    edm,
    flow,
    given,
    iddpm,
    logsnr,
    preserving,
    subvp,
    unscaled,
    ve,
    vp,
    vp_between,
)
from jaxdiff.processes.linear import Linear, cld, linear
from jaxdiff.processes.process import Believed, Bridged, Process
from jaxdiff.processes.product import Product

__all__ = [
    "Augmented",
    "Believed",
    "Bridged",
    "Categorical",
    "Chain",
    "Diffusing",
    "Gaussian",
    "Linear",
    "Mixing",
    "Process",
    "Product",
    "absorbing",
    "brownian",
    "cld",
    "cosine",
    "ctmc",
    "edm",
    "flow",
    "gidd",
    "given",
    "hybrid",
    "iddpm",
    "linear",
    "logsnr",
    "preserving",
    "rates",
    "subvp",
    "uniform",
    "unscaled",
    "ve",
    "vp",
    "vp_between",
]
