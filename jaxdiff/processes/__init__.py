"""What noise does to data: one frozen pytree a process, data at t = 0 and noise at t = 1."""

from jaxdiff.processes.gaussian import Gaussian, cosine, edm, flow, iddpm, logsnr, subvp, ve, vp
from jaxdiff.processes.product import Process, Product

__all__ = ["Gaussian", "Process", "Product", "cosine", "edm", "flow", "iddpm", "logsnr", "subvp", "ve", "vp"]
