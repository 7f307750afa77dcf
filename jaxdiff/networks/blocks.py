"""The residual block of the U-Net: x + conv(drop(silu(film(GroupNorm(conv(silu(GroupNorm(x)))))))), where film is h
(1 + scale) + shift with scale and shift read off the conditioning vector (Perez et al. 2018; Dhariwal & Nichol 2021).
The second convolution and the reading start at zero: a block is its skip at first."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxdiff.networks.attention import SelfAttention
from jaxdiff.networks.layers import GroupNorm, conv, linear, repeat


class Film(nnx.Module):
    """Scale and shift the channels of h by a linear reading of the conditioning vector; the identity at first."""

    def __init__(
        self,
        features: int,
        channels: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.read = linear(features, 2 * channels, zero=True, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self, h: Float[Array, "batch *spatial channels"], emb: Float[Array, "batch features"]
    ) -> Float[Array, "batch *spatial channels"]:
        """h (B, *spatial, C), emb (B, features) -> h (1 + scale) + shift."""
        read = self.read(emb).reshape(h.shape[0], *(1,) * (h.ndim - 2), 2 * h.shape[-1])
        scale, shift = jnp.split(read, 2, axis=-1)
        return h * (1 + scale) + shift


class ResBlock(nnx.Module):
    """A residual block (B, *spatial, inputs) -> (B, *spatial, outputs), with self-attention after it if `head` is
    given."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: int,
        dims: int,
        *,
        head: int | None = None,
        groups: int = 8,
        dropout: float = 0.0,
        periodic: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kind = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.norm1 = GroupNorm(inputs, groups, **kind)
        self.conv1 = conv(inputs, outputs, dims, periodic=periodic, **kind)
        self.norm2 = GroupNorm(outputs, groups, **kind)
        self.film = Film(features, outputs, **kind)
        self.drop = nnx.Dropout(dropout)
        self.conv2 = conv(outputs, outputs, dims, periodic=periodic, zero=True, **kind)
        self.skip = linear(inputs, outputs, **kind) if inputs != outputs else None
        self.attend = SelfAttention(outputs, head=head, groups=groups, **kind) if head is not None else None

    def __call__(
        self,
        x: Float[Array, "batch *spatial inputs"],
        emb: Float[Array, "batch features"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *spatial outputs"]:
        """x (B, *spatial, inputs), emb (B, features), a key for dropout or None for none -> (B, *spatial,
        outputs)."""
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        h = jax.nn.silu(self.film(self.norm2(h), emb))
        h = self.conv2(self.drop(h, deterministic=key is None, rngs=key))
        y = h + (x if self.skip is None else self.skip(x))
        return y if self.attend is None else self.attend(y)


class Join(nnx.Module):
    """Mix what comes up, h, with what was kept on the way down: A h + B kept, with h repeated first if it is coarser.

    A is applied before the repeat, at the coarse size, where it costs 2^-dims as much; mixing by 1 x 1 matrices
    rather than giving both to a wide 3 x 3 convolution costs a fifth."""

    def __init__(
        self,
        inputs: int,
        kept: int,
        outputs: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kind = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.up = linear(inputs, outputs, **kind)
        self.across = linear(kept, outputs, use_bias=False, **kind)

    def __call__(
        self, h: Float[Array, "batch *spatial inputs"], kept: Float[Array, "batch *sizes kept"]
    ) -> Float[Array, "batch *sizes outputs"]:
        """h (B, *spatial, inputs) of kept's spatial size or half of it, kept (B, *sizes, kept) -> (B, *sizes,
        outputs)."""
        h = self.up(h)
        return (h if h.shape[1:-1] == kept.shape[1:-1] else repeat(h)) + self.across(kept)
