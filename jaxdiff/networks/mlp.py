"""A residual perceptron for vectors of any shape: h <- h + linear(silu(film(GroupNorm(h)))), where film scales and
shifts h by the conditioning vector (noise level and class). The output layer is zero at first: a new network says
0."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.blocks import Film
from jaxdiff.networks.embeddings import Conditioning
from jaxdiff.networks.layers import GroupNorm, linear


class MLP(nnx.Module):
    """A residual perceptron x (B, *shape), c_noise (B,), labels (B,) -> (B, *shape).

    Labels are int32 in [0, num_classes]; `null_class` = num_classes is the unconditional one, and `cond=None` means
    it."""

    def __init__(
        self,
        shape: Sequence[int],
        hidden: int = 128,
        depth: int = 3,
        *,
        features: int | None = None,
        num_classes: int | None = None,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`shape` is one example's (() for a number); `depth` counts residual blocks of width `hidden`; `features` is
        the length of the conditioning vector (`hidden` unless given)."""
        if hidden < 1 or depth < 1 or any(size < 1 for size in shape):
            raise InputError(f"MLP with shape={shape}, hidden={hidden}, depth={depth}: expected positive numbers")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout}: expected a rate in [0, 1)")
        features = hidden if features is None else features
        self.shape, self.dtype, self.param_dtype = tuple(shape), jnp.dtype(dtype), jnp.dtype(param_dtype)
        kind = {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": rngs}
        self.conditioning = Conditioning(features, num_classes=num_classes, **kind)
        self.stem = linear(math.prod(shape), hidden, **kind)
        self.blocks = nnx.List([_Block(hidden, features, dropout, **kind) for _ in range(depth)])
        self.norm = GroupNorm(hidden, 1, **kind)
        self.out = linear(hidden, math.prod(shape), zero=True, **(kind | {"dtype": self.param_dtype}))

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.conditioning.null_class

    def __call__(
        self,
        x: Float[Array, "batch *shape"],
        c_noise: Float[Array, " batch"],
        cond: Int[Array, " batch"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *shape"]:
        """x (B, *shape), c_noise (B,), labels (B,) or None -> (B, *shape) in param_dtype; `key` turns dropout on."""
        if x.shape[1:] != self.shape:
            raise InputError(
                f"x has shape {x.shape}: this MLP expects (batch, *{self.shape}); "
                f"give one example its batch axis with x[None]"
            )
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        emb = self.conditioning(c_noise, cond)
        h = self.stem(x.reshape(x.shape[0], -1).astype(self.dtype))
        for block, k in zip(self.blocks, keys, strict=True):
            h = block(h, emb, k)
        return self.out(jax.nn.silu(self.norm(h))).reshape(x.shape)


class _Block(nnx.Module):
    def __init__(self, hidden: int, features: int, dropout: float, **kind):
        self.norm = GroupNorm(hidden, 1, **kind)
        self.film = Film(features, hidden, **kind)
        self.drop = nnx.Dropout(dropout)
        self.linear = linear(hidden, hidden, **kind)

    def __call__(self, h: Array, emb: Array, key: Array | None) -> Array:
        y = jax.nn.silu(self.film(self.norm(h), emb))
        return h + self.linear(self.drop(y, deterministic=key is None, rngs=key))
