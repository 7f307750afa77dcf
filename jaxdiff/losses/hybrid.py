"""Hybrid score matching (Dockhorn et al. 2022): denoising score matching where the state holds more than the data.

The copies beside the data are drawn from p(X_t | x0), their start integrated out, and the belief is of x0 alone. The
score is affine in it, so every score matching loss is a weight times |x0 - D(X_t, t)|^2: `girsanov` is the one whose
integral over time, halved, is the path divergence that bounds the likelihood, and `weights.snr` the one that counts the
noise of all copies, |eps - eps_hat|^2. With one copy these are `matching`'s own, draw by draw."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.losses.matching import Loss
from jaxdiff.losses.weights import Weight, unit
from jaxdiff.numerics import aligned, as_array, partial
from jaxdiff.processes.linear import Linear
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def hybrid(process: Linear, weight: Weight = unit) -> Loss:
    """The loss w(t) |x0 - D(X_t, t)|^2, summed over the data's axes; its least value is w times the mean squared error
    of E[x0 | X_t].

    As loss(key, denoise, x0, t, *, mask=None, noise=jax.random.normal): `key` draws X_t, `mask` (broadcast to x0)
    counts the elements where it is true. Raises InputError when the belief has not x0's shape."""
    return Partial(_hybrid, process, partial(weight))


def _hybrid(
    process: Linear,
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
    belief = as_array(denoise(process.perturb(key, x0, t, noise=noise), t))
    if belief.shape != x0.shape:
        raise InputError(
            f"the denoiser returned shape {belief.shape} for an example of shape {x0.shape}, whose state is "
            f"({process.copies}, *{x0.shape}); a denoiser gives E[x0 | x_t] of the data alone"
        )
    square = weight(process, t) * (x0 - belief) ** 2
    return jnp.sum(square if mask is None else jnp.where(mask, square, 0))


def girsanov(process: Linear, t: Time) -> Scalar:
    """|G S^-1 m|^2, what an error of 1 in the belief costs in G score: g^2 alpha^2 / sigma^4 for one copy, which is
    `weights.likelihood` on the score row. Half its loss, integrated over t, is KL of the reverse SDEs' paths."""
    t = as_array(t)
    state = jnp.zeros(process.copies, t.dtype)
    pull = process.score(state, jnp.ones_like(t), t)  # S^-1 m
    return jnp.sum(process.diffuse(pull, t) ** 2)
