"""The few layers that networks are made of, with the choices made once: group normalisation that subtracts the mean
before it squares (the fast variance E[x^2] - E[x]^2 loses all digits at a large mean), convolutions that pad with
zeros or around the edge, zero-initialised outputs, and resampling by means and repeats, which hold no weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxdiff.errors import InputError

EPSILON = 1e-5  # a constant image has variance 0
ZEROS = nnx.initializers.zeros_init()


class GroupNorm(nnx.Module):
    """Normalise each example over its cells and each group of channels, then scale and shift the channels (Wu & He
    2018).

    The mean is subtracted before squaring. Statistics are float32 at least, whatever `dtype`. One group and no
    spatial axis is layer normalisation. (nnx.GroupNorm refuses bfloat16 and float64 under strict dtype promotion.)"""

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        epsilon: float = EPSILON,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        if groups < 1 or channels % groups:
            raise InputError(f"GroupNorm of {channels} channels in {groups} groups: `groups` must divide the channels")
        self.groups, self.epsilon, self.dtype = groups, epsilon, jnp.dtype(dtype)
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))

    def __call__(self, x: Float[Array, "batch *spatial channels"]) -> Float[Array, "batch *spatial channels"]:
        """x (B, *spatial, C) -> the same shape in `dtype`."""
        batch, *spatial, channels = x.shape
        exact = jnp.float64 if self.dtype == jnp.float64 else jnp.float32

        def mean(h):  # cells first, then the channels of a group: (B, 1, ..., C)
            h = jnp.mean(h, axis=tuple(range(1, h.ndim - 1))).reshape(batch, self.groups, -1)
            return jnp.broadcast_to(jnp.mean(h, axis=-1, keepdims=True), h.shape).reshape(
                batch, *(1,) * len(spatial), channels
            )

        x = x.astype(exact)
        x = x - mean(x)
        gain = jax.lax.rsqrt(mean(x * x) + self.epsilon) * self.scale[...].astype(exact)  # one product a cell, not two
        return (x * gain + self.bias[...].astype(exact)).astype(self.dtype)


def linear(inputs: int, outputs: int, *, zero: bool = False, **kind: Any) -> nnx.Linear:
    """A matrix product over the last axis (the 1 x 1 convolution), zero at first if asked."""
    init = {"kernel_init": ZEROS} if zero else {}
    return nnx.Linear(inputs, outputs, **init, **kind)


def conv(inputs: int, outputs: int, dims: int, *, periodic: bool = False, zero: bool = False, **kind: Any) -> nnx.Conv:
    """A 3-wide convolution in `dims` dimensions that keeps the spatial size, padded with zeros or periodically."""
    init = {"kernel_init": ZEROS} if zero else {}
    return nnx.Conv(inputs, outputs, (3,) * dims, padding="CIRCULAR" if periodic else "SAME", **init, **kind)


def pool(x: Float[Array, "batch *spatial channels"]) -> Float[Array, "batch *halved channels"]:
    """Halve every spatial axis of x (B, *spatial, C) by the mean of its cells two by two."""
    batch, *spatial, channels = x.shape
    pairs = [n for size in spatial for n in (size // 2, 2)]
    return jnp.mean(x.reshape(batch, *pairs, channels), axis=tuple(range(2, 2 * len(spatial) + 1, 2)))


def repeat(x: Float[Array, "batch *spatial channels"]) -> Float[Array, "batch *doubled channels"]:
    """Double every spatial axis of x (B, *spatial, C) by repeating its cells."""
    batch, *spatial, channels = x.shape
    ones = [n for size in spatial for n in (size, 1)]
    twos = [n for size in spatial for n in (size, 2)]
    wide = jnp.broadcast_to(x.reshape(batch, *ones, channels), (batch, *twos, channels))
    return wide.reshape(batch, *(2 * size for size in spatial), channels)
