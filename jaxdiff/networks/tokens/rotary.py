"""Rotary positions (Su et al. 2021): channel i of a query or key and channel i + head / 2 turn together by the angle
position * base^(-2 i / head), so the product of a query and a key depends on the difference of their positions alone.

The halves are split in the middle, as GPT-NeoX has it; pairs of neighbours are another order of the same channels."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxdiff.networks.tokens.layers import exact

BASE = 1e4  # the slowest pair turns once in about 2 pi base positions


def frequencies(head: int, dtype: DTypeLike) -> Float[Array, " pairs"]:
    """Radians a position of the head / 2 pairs, from 1 down to base^(2 / head - 1)."""
    return BASE ** -(jnp.arange(0, head, 2, dtype=dtype) / head)


def rotary(
    x: Float[Array, "batch length heads head"], positions: Int[Array, " length"]
) -> Float[Array, "batch length heads head"]:
    """Turn the queries or keys x (B, L, heads, head) by their positions (L,); angles are float32 at least."""
    wide = exact(x.dtype)
    angles = positions.astype(wide)[:, None] * frequencies(x.shape[-1], wide)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    left, right = jnp.split(x.astype(wide), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x.dtype)
