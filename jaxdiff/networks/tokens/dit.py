"""The diffusion transformer for tokens (Peebles & Xie 2023; for tokens Lou et al. 2024, Sahoo et al. 2024):

    h <- h + gate1 * drop(attend(modulate(norm(h), shift1, scale1)))
    h <- h + gate2 * drop(mlp(modulate(norm(h), shift2, scale2)))

with rotary positions on queries and keys, layer normalisation without bias, an mlp of 4 width with tanh-GELU, and all
shifts, scales and gates read off the noise level and the class. The head is zero at first: a new network says 0.

A causal network is the autoregressive baseline. It does not hear time unless asked, and without classes it has no
modulation at all; its cache holds the keys and values of each block."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import linear
from jaxdiff.networks.tokens.backbone import TokenBackbone
from jaxdiff.networks.tokens.layers import Modulation, TokenNorm, modulate
from jaxdiff.networks.tokens.rotary import rotary


class TokenDiT(TokenBackbone):
    """A transformer tokens (B, L) or probabilities (B, L, states), c_noise (B,), labels (B,) -> logits (B, L, vocab)
    for sequences of any length."""

    def __init__(
        self,
        vocab: int,
        *,
        states: int | None = None,
        width: int = 256,
        depth: int = 6,
        heads: int = 8,
        cond_dim: int = 128,
        num_classes: int | None = None,
        time_conditioned: bool | None = None,
        causal: bool = False,
        positions: int = 0,
        qk_norm: bool = False,
        dropout: float = 0.0,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`states` counts the ids that it reads (`vocab` unless given, vocab + 1 with a mask); `time_conditioned` is
        true unless it is causal; `positions` counts the places that have a learned vector of their own, beside the
        rotary ones, which tell no place from another where all tokens are masked; `qk_norm` normalises queries and
        keys (Dehghani et al. 2023), for high learning rates; `remat` keeps only the blocks' inputs for the backward
        pass."""
        if depth < 1 or heads < 1 or width % (2 * heads):
            raise InputError(
                f"TokenDiT with width={width}, depth={depth}, heads={heads}: expected a block or more, and heads of an "
                f"even number of channels (`width` a multiple of 2 heads)"
            )
        kind = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        super().__init__(
            vocab,
            states=states,
            width=width,
            cond_dim=cond_dim,
            num_classes=num_classes,
            time_conditioned=not causal if time_conditioned is None else time_conditioned,
            causal=causal,
            positions=positions,
            centre=True,
            bias=True,
            dropout=dropout,
            remat=remat,
            **kind,
        )
        shape = {"heads": heads, "features": self.features, "causal": causal, "qk_norm": qk_norm, "dropout": dropout}
        self.blocks = nnx.List([_Block(width, **shape, **kind) for _ in range(depth)])


class _Block(nnx.Module):
    def __init__(
        self,
        width: int,
        *,
        heads: int,
        features: int | None,
        causal: bool,
        qk_norm: bool,
        dropout: float,
        **kind,
    ):
        self.width, self.heads, self.causal, self.dtype = width, heads, causal, jnp.dtype(kind["dtype"])
        self.norm1 = TokenNorm(width, centre=True, **kind)
        self.qkv = linear(width, 3 * width, use_bias=False, **kind)
        self.out = linear(width, width, use_bias=False, **kind)
        self.norm2 = TokenNorm(width, centre=True, **kind)
        self.up = linear(width, 4 * width, **kind)
        self.down = linear(4 * width, width, **kind)
        self.drop = nnx.Dropout(dropout)
        self.modulation = Modulation(features, width, 6, **kind)
        self.query_norm = TokenNorm(width // heads, centre=False, **kind) if qk_norm else None
        self.key_norm = TokenNorm(width // heads, centre=False, **kind) if qk_norm else None

    def memory(self, batch: int, length: int) -> tuple[Array, Array]:
        """Keys and values of no token yet. A step beyond `length` says NaN."""
        shape = (batch, length, self.heads, self.width // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def __call__(self, h: Array, c: Array | None, mask: Array | None, key: Array | None) -> Array:
        keys = (None, None) if key is None else jax.random.split(key)
        shift, scale, gate, *rest = self.modulation(c)
        q, k, v = self._heads(modulate(self.norm1(h), shift, scale), jnp.arange(h.shape[1]))
        read = _attention(q, k, v, mask=None if mask is None else mask[:, None, None], causal=self.causal)
        h = h + gate * self._dropped(self.out(read), keys[0])
        return self._mlp(h, rest, keys[1])

    def step(
        self, h: Array, memory: tuple[Array, Array], c: Array | None, position: Int[Array, ""]
    ) -> tuple[Array, tuple[Array, Array]]:
        """One more token h (B, 1, width) at `position`, and the keys and values (B, L, heads, head) with its own."""
        shift, scale, gate, *rest = self.modulation(c)
        q, k, v = self._heads(modulate(self.norm1(h), shift, scale), position[None])
        keys, values = (old.at[:, position].set(new[:, 0]) for old, new in zip(memory, (k, v), strict=True))
        places = jnp.arange(keys.shape[1])
        read = _attention(q, keys, values, mask=(places <= position)[None, None, None])
        h = h + gate * self.out(jnp.where(position < len(places), read, jnp.nan))
        return self._mlp(h, rest, None), (keys, values)

    def _heads(self, h: Array, positions: Array) -> tuple[Array, Array, Array]:
        qkv = self.qkv(h).reshape(*h.shape[:2], 3, self.heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotary(q, positions), rotary(k, positions), v

    def _mlp(self, h: Array, parts: list, key: Key[Array, ""] | None) -> Array:
        shift, scale, gate = parts
        read = jax.nn.gelu(self.up(modulate(self.norm2(h), shift, scale)), approximate=True)
        return h + gate * self._dropped(self.down(read), key)

    def _dropped(self, h: Array, key: Key[Array, ""] | None) -> Array:
        return self.drop(h, deterministic=key is None, rngs=key)


def _attention(
    q: Float[Array, "batch queries heads head"],
    k: Float[Array, "batch keys heads head"],
    v: Float[Array, "batch keys heads head"],
    *,
    mask: Bool[Array, "..."] | None = None,
    causal: bool = False,
) -> Float[Array, "batch queries width"]:
    with jax.numpy_dtype_promotion("standard"):  # inside, it promotes bfloat16 to float32
        read = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
    return read.reshape(*q.shape[:2], -1)
