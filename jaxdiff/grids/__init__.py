"""At which times to sample (`sampling`, `fitted`), and at which to train and to integrate (`training`)."""

from jaxdiff.grids.fitted import optimal
from jaxdiff.grids.sampling import iddpm, karras, logsnr, uniform, ve, vp
from jaxdiff.grids.training import (
    Law,
    Times,
    debiased_times,
    iddpm_times,
    importance_times,
    lattice_times,
    log_rest_times,
    log_times,
    lognormal_times,
    quadrature_times,
    rest_times,
    soft_truncated,
    stratified_times,
    uniform_times,
    ve_times,
    vp_times,
)

__all__ = [
    "Law",
    "Times",
    "debiased_times",
    "iddpm",
    "iddpm_times",
    "importance_times",
    "karras",
    "lattice_times",
    "log_rest_times",
    "log_times",
    "lognormal_times",
    "logsnr",
    "optimal",
    "quadrature_times",
    "rest_times",
    "soft_truncated",
    "stratified_times",
    "uniform",
    "uniform_times",
    "ve",
    "ve_times",
    "vp",
    "vp_times",
]
