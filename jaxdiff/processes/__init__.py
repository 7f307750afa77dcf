"""What noise does to data: one frozen pytree a process, data at t = 0 and noise at t = 1."""

from jaxdiff.processes.diffusing import Diffusing
from jaxdiff.processes.gaussian import (
    Gaussian,
    brownian,
    cosine,
    edm,
    flow,
    iddpm,
    logsnr,
    preserving,
    subvp,
    unscaled,
    ve,
    vp,
    vp_between,
)
from jaxdiff.processes.product import Process, Product

__all__ = [
    "Diffusing",
    "Gaussian",
    "Process",
    "Product",
    "brownian",
    "cosine",
    "edm",
    "flow",
    "iddpm",
    "logsnr",
    "preserving",
    "subvp",
    "unscaled",
    "ve",
    "vp",
    "vp_between",
]
