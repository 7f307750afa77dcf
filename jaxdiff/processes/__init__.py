"""What noise does to data: one frozen pytree a process, data at t = 0 and noise at t = 1."""

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
from jaxdiff.processes.product import Process, Product

__all__ = [
    "Augmented",
    "Diffusing",
    "Gaussian",
    "Linear",
    "Process",
    "Product",
    "brownian",
    "cld",
    "cosine",
    "edm",
    "flow",
    "given",
    "iddpm",
    "linear",
    "logsnr",
    "preserving",
    "subvp",
    "unscaled",
    "ve",
    "vp",
    "vp_between",
]
