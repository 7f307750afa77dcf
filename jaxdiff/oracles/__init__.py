"""Exact answers: data laws whose denoiser, likelihood and probability flow are known, to test everything else
against."""

from jaxdiff.oracles.empirical import EmpiricalOracle, empirical
from jaxdiff.oracles.linear import LinearOracle, linear, linear_mixture
from jaxdiff.oracles.markov import (
    LabelledOracle,
    TokenOracle,
    chain,
    labelled,
    labelled_table,
    law,
    table,
    total_variation,
)
from jaxdiff.oracles.mixture import MixtureOracle, mixture
from jaxdiff.oracles.normal import GaussianOracle, gaussian

__all__ = [
    "EmpiricalOracle",
    "GaussianOracle",
    "LabelledOracle",
    "LinearOracle",
    "MixtureOracle",
    "TokenOracle",
    "chain",
    "empirical",
    "gaussian",
    "labelled",
    "labelled_table",
    "law",
    "linear",
    "linear_mixture",
    "mixture",
    "table",
    "total_variation",
]
