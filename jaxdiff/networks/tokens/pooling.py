"""One vector of a sequence: the mean of its tokens' vectors, weighted by exp(score).

The score is 0 (the plain mean) or read linearly off the vector (attention with one learned query). Either is a sum of
weights and a sum of weighted vectors, which compose over the sequence: the mean of every prefix comes from one scan,
and the next prefix from the last one and one token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from jaxdiff.networks.layers import linear
from jaxdiff.networks.tokens.layers import exact


class Pooled(NamedTuple):
    """Sums relative to exp(top), so that no weight overflows."""

    top: Float[Array, "*shape 1"]
    weight: Float[Array, "*shape 1"]
    total: Float[Array, "*shape features"]

    def mean(self) -> Float[Array, "*shape features"]:
        """The weighted mean; zeros of no token."""
        return self.total / jnp.where(self.weight > 0, self.weight, 1)


class Pool(nnx.Module):
    """Vectors h (B, L, features) -> their mean (B, features), or that of every prefix (B, L, features)."""

    def __init__(self, features: int, *, attention: bool, prefix: bool, param_dtype: DTypeLike, rngs: nnx.Rngs):
        """Sums are float32 at least; `prefix` gives the mean of every prefix."""
        self.features, self.prefix = features, prefix
        self.dtype = exact(param_dtype)
        kind = {"dtype": self.dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.score = linear(features, 1, use_bias=False, zero=True, **kind) if attention else None

    def __call__(
        self, h: Float[Array, "batch length features"], mask: Bool[Array, "batch length"] | None = None
    ) -> Float[Array, "batch ... features"]:
        """`mask` is false at padding, which is left out."""
        each = self.one(h)
        if mask is not None:
            lowest = jnp.finfo(self.dtype).min  # not -inf: a prefix of padding alone has top - top = 0
            keep = mask[..., None]
            each = Pooled(*(jnp.where(keep, a, out) for a, out in zip(each, (lowest, 0, 0), strict=True)))
        if self.prefix:
            return jax.lax.associative_scan(join, each, axis=1).mean()
        weight = each.weight * jnp.exp(each.top - jnp.max(each.top, axis=1, keepdims=True))
        return Pooled(each.top[:, 0], jnp.sum(weight, 1), jnp.sum(weight * each.total, 1)).mean()

    def one(self, h: Float[Array, "*shape features"]) -> Pooled:
        """Each token alone."""
        h = h.astype(self.dtype)
        top = jnp.zeros_like(h[..., :1]) if self.score is None else self.score(h)
        return Pooled(top, jnp.ones_like(top), h)

    def nothing(self, batch: int) -> Pooled:
        """The empty prefix."""
        zero = jnp.zeros((batch, 1), self.dtype)
        return Pooled(zero + jnp.finfo(self.dtype).min, zero, jnp.zeros((batch, self.features), self.dtype))


def join(a: Pooled, b: Pooled) -> Pooled:
    """The tokens of a and of b together."""
    top = jnp.maximum(a.top, b.top)
    of_a, of_b = jnp.exp(a.top - top), jnp.exp(b.top - top)
    return Pooled(top, a.weight * of_a + b.weight * of_b, a.total * of_a + b.total * of_b)
