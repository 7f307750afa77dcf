"""Exact answers: data laws whose denoiser, likelihood and probability flow are known, to test everything else
against."""

from jaxdiff.oracles.empirical import EmpiricalOracle, empirical
from jaxdiff.oracles.linear import LinearOracle, linear, linear_mixture
from jaxdiff.oracles.mixture import MixtureOracle, mixture
from jaxdiff.oracles.normal import GaussianOracle, gaussian

__all__ = [
    "EmpiricalOracle",
    "GaussianOracle",
    "LinearOracle",
    "MixtureOracle",
    "empirical",
    "gaussian",
    "linear",
    "linear_mixture",
    "mixture",
]
