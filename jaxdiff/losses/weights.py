"""What one time's squared error counts: weight(process, t), for the error of the row that it is named with.

Changing the row and the weight together changes nothing: on x_t, a row's error is (a - b alpha / sigma) (x0 - D).
These pairs are one loss each (rho = alpha^2 / sigma^2):

    edm on data   = unit on the edm row          snr on data       = unit on noise
    min_snr on data = min(1, gamma / rho) on noise   likelihood on score = g^2 / sigma^2 on noise"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff import alphas
from jaxdiff.grids.training import schedule_of
from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.categorical import Categorical, Mixing
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.linear import Linear
from jaxdiff.types import Scalar, Time

__all__ = ["Weight", "edm", "likelihood", "min_snr", "sigmoid", "snr", "unit", "unmasking"]

Weight = Callable[..., Any]
"""(process, t) -> the weight of one squared error."""


def unit(process: Gaussian | Linear | Categorical, t: Time) -> Scalar:
    """1: on the noise row DDPM's simple loss (Ho et al. 2020), on the edm row EDM's, on velocity flow matching."""
    return jnp.ones_like(as_array(t))


def snr(process: Gaussian | Linear, t: Time) -> Scalar:
    """alpha^2 / sigma^2, for the data row."""
    return jnp.exp(process.log_snr(t))


def edm(sigma_data: float = 0.5) -> Weight:
    """(sigma^2 + alpha^2 sigma_data^2) / (sigma sigma_data)^2, for the data row (Karras et al. 2022, Table 1, at any
    alpha)."""
    return Partial(_edm, as_array(sigma_data))


def _edm(sigma_data, process, t):
    alpha, sigma = process.scales(t)
    spread = cast(sigma_data, alpha.dtype)
    return (sigma**2 + (alpha * spread) ** 2) / (sigma * spread) ** 2


def min_snr(gamma: float = 5.0) -> Weight:
    """min(alpha^2 / sigma^2, gamma), for the data row (Hang et al. 2023)."""
    return Partial(_min_snr, as_array(gamma))


def _min_snr(gamma, process, t):
    ratio = snr(process, t)
    return jnp.minimum(ratio, cast(gamma, ratio.dtype))


def sigmoid(bias: float = 0.0) -> Weight:
    """sigmoid(bias - log SNR) times -d(log SNR)/dt, for the noise row, t uniform (Kingma and Gao 2023; Hoogeboom et
    al. 2024).

    The factor makes the objective an integral over log-SNR, the same on every schedule."""
    return Partial(_sigmoid, as_array(bias))


def _sigmoid(bias, process, t):
    t = as_array(t)
    log_snr, slope = jax.jvp(process.log_snr, (t,), (jnp.ones_like(t),))
    return jax.nn.sigmoid(cast(bias, t.dtype) - log_snr) * -slope


def likelihood(process: Gaussian, t: Time) -> Scalar:
    """g^2, for the score row: half its mean over t bounds the log-likelihood (Song et al. 2021; Huang et al. 2021)."""
    return process.sde(t)[1]


def unmasking(process: Mixing, t: Time) -> Scalar:
    """-alpha' / (1 - alpha), at which a masked token of the absorbing process shows itself on the way back: for the
    cross-entropy, MDLM's weight (Sahoo et al. 2024), on any schedule."""
    t = as_array(t)
    alpha = cast(schedule_of(process), t.dtype)
    return alphas.fall(alpha, t) / jnp.maximum(alpha.rest(t), jnp.finfo(t.dtype).tiny)
