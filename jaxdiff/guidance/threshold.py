"""Beliefs held in the data's range. Strong guidance and large steps push E[x0 | x_t] out of it, where no data are."""

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, concrete, partial
from jaxdiff.types import Denoiser


def threshold(denoise: Denoiser, quantile: float = 0.995, limit: float | Array = 1.0) -> Denoiser:
    """Dynamic thresholding (Saharia et al. 2022): D -> limit clip(D, -s, s) / s, s = max(quantile of |D|, limit).

    The quantile is over one example's own elements; data lie in [-limit, limit]. A belief within them is unchanged.
    Raises InputError for a quantile that is no share."""
    if concrete(quantile) and not 0 < quantile <= 1:
        raise InputError(f"threshold got quantile={quantile}, expected a share in (0, 1], such as .995 (not 99.5)")
    return Partial(_threshold, partial(denoise), as_array(quantile), as_array(limit))


def _threshold(denoise, quantile, limit, x, t):
    data = denoise(x, t)
    quantile, limit = cast((quantile, limit), data.dtype)
    reach = jnp.maximum(jnp.quantile(jnp.abs(data), quantile), limit)
    return limit * jnp.clip(data, -reach, reach) / reach


def clip(denoise: Denoiser, low: float | Array = -1.0, high: float | Array = 1.0) -> Denoiser:
    """Static thresholding: D held in [low, high], element by element."""
    return Partial(_clip, partial(denoise), as_array(low), as_array(high))


def _clip(denoise, low, high, x, t):
    data = denoise(x, t)
    return jnp.clip(data, *cast((low, high), data.dtype))
