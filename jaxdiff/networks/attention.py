"""Self-attention over the cells of a grid: every cell reads every other, so the layer knows no positions (Vaswani et
al. 2017); a U-Net gets them from the zero padding of its convolutions. The output projection starts at zero: the
layer is the identity at first."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import GroupNorm, linear


class SelfAttention(nnx.Module):
    """x + project(attention(GroupNorm(x))) over the cells of x (B, *spatial, channels), in heads of `head`
    channels."""

    def __init__(
        self,
        channels: int,
        *,
        head: int = 32,
        groups: int = 8,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if head < 1 or channels % head:
            raise InputError(f"attention on {channels} channels with heads of {head}: `head` must divide the channels")
        kind = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.head = head
        self.norm = GroupNorm(channels, groups, **kind)
        self.qkv = linear(channels, 3 * channels, **kind)
        self.out = linear(channels, channels, zero=True, **kind)

    def __call__(self, x: Float[Array, "batch *spatial channels"]) -> Float[Array, "batch *spatial channels"]:
        """x (B, *spatial, C) -> the same shape; permuting the cells of x permutes those of the result."""
        batch, *spatial, channels = x.shape
        cells = math.prod(spatial)
        qkv = self.qkv(self.norm(x)).reshape(batch, cells, 3, channels // self.head, self.head)
        with jax.numpy_dtype_promotion("standard"):  # inside, it promotes bfloat16 to float32
            read = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return x + self.out(read.reshape(x.shape))
