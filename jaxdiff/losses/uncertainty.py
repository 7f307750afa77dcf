"""Learned uncertainty: every noise level's loss is divided by what is to be expected of it (Karras et al. 2024, EDM2,
Sec. 2.2 and eq. 21; Kendall et al. 2018).

loss / e^u + n u, with u(t) learned beside the denoiser and n the number of elements, is least where e^u is the mean
loss of an element: u = ln(E[loss] / n). There E[loss] / e^u = n: each noise level counts alike, whatever its weight."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from jaxdiff.denoisers import log_ratio
from jaxdiff.losses.matching import Loss
from jaxdiff.numerics import aligned, partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def uncertain(loss: Loss, log_variance: Callable[[Time], Scalar]) -> Loss:
    """loss e^(-u) + n u with u = log_variance(t), summed as `loss` is: n counts the elements (those of the mask).

    Divided by n it is the mean over elements of w (y - y_hat)^2 / e^u + u, the paper's. `loss` is one such as
    `matching` makes; the result is called like it."""
    return Partial(_uncertain, partial(loss), partial(log_variance))


def _uncertain(
    loss: Any,
    log_variance: Any,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    mask: Array | None = None,
    noise: Noise = jax.random.normal,
) -> Scalar:
    x0, t = aligned(x0, t)
    value = loss(key, denoise, x0, t, mask=mask, noise=noise)
    u = log_variance(t).astype(value.dtype)
    n = x0.size if mask is None else jnp.sum(jnp.broadcast_to(mask, x0.shape), dtype=value.dtype)
    return jnp.exp(-u) * value + n * u


def log_variance(
    apply: Callable[..., Any],
    params: PyTree[Any],
    process: Gaussian,
    *,
    c_noise: Callable[..., Any] = log_ratio,
) -> Callable[[Time], Scalar]:
    """u(t), from a network `apply(params, None, c_noise) -> (1,)` such as `networks.LogVariance`, at one time."""
    return partial(_log_variance, partial(apply), params, process, partial(c_noise))


def _log_variance(apply, params, process, c_noise, t):
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return apply(params, None, c_noise(process, t).astype(dtype)[None])[0]
