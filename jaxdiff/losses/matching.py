"""Denoising score matching: how far the belief is from the truth, on any row and with any weight.

loss = w(t) |y - y_hat|^2 with y = a x0 + b eps and y_hat the row's target as the denoiser has it from x_t = alpha x0 +
sigma eps. Its least value, reached by E[x0 | x_t], is w (a - b alpha / sigma)^2 times the mean squared error of that
belief."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.losses.weights import Weight, unit
from jaxdiff.numerics import aligned, as_array, partial
from jaxdiff.parameterizations import Row, data
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time

Loss = Callable[..., Any]
"""loss(key, denoise, x0, t, *, mask=None) -> scalar, for one example."""


def matching(process: Gaussian, row: Row = data, weight: Weight = unit) -> Loss:
    """The loss w(t) |(a - b alpha / sigma) (x0 - D(x_t, t))|^2, summed over an example's axes; needs sigma(t) > 0.

    As loss(key, denoise, x0, t, *, mask=None, noise=jax.random.normal): `key` draws eps, `mask` (broadcast to x0)
    counts the elements where it is true. Raises InputError when the belief has not x0's shape."""
    return Partial(_matching, process, partial(row), partial(weight))


def _matching(
    process: Gaussian,
    row: Any,
    weight: Any,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    mask: Array | None = None,
    noise: Noise = jax.random.normal,
) -> Scalar:
    x0, t = aligned(x0, t)
    alpha, sigma = process.scales(t)
    x = alpha * x0 + sigma * noise(key, x0.shape, x0.dtype)
    belief = as_array(denoise(x, t))
    if belief.shape != x0.shape:
        raise InputError(
            f"the denoiser returned shape {belief.shape} for an example of shape {x0.shape}; a denoiser and a loss "
            "are written for one example without a batch axis: map them with jax.vmap"
        )
    a, b = row(process, t)
    error = (a - b * alpha / sigma) * (x0 - belief)
    square = weight(process, t) * error**2
    return jnp.sum(square if mask is None else jnp.where(mask, square, 0))
