"""Classifiers of sequences, for guidance: p(y | tokens), of noisy tokens at their noise level if asked.

They take ids, or probabilities over ids, so that log p(y | tokens) has a gradient with respect to one-hots. One of
prefixes is causal: column l is p(y | tokens 0 to l), which is what guides an autoregressive model (FUDGE: Yang & Klein
2021), and it reads token by token with a cache. One of hidden states reads what another network made of the tokens
(`net.hidden`), for guidance that moves the hidden state (NOS: Gruver et al. 2023; PPLM: Dathathri et al. 2020)."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import linear
from jaxdiff.networks.tokens.backbone import Cache, TokenBackbone, Tokens
from jaxdiff.networks.tokens.pooling import Pool, Pooled, join


class PrefixCache(NamedTuple):
    """What a classifier of prefixes remembers: its network's cache, and the mean so far."""

    network: Cache
    pooled: Pooled


class TokenClassifier(nnx.Module):
    """Tokens (B, L) or probabilities (B, L, states) -> class logits (B, classes), or (B, L, classes) of every prefix:
    a token network whose hidden states are averaged before its head.

    `hidden(tokens, c_noise)` and `head(hidden, c_noise, mask)` are the two halves."""

    def __init__(self, trunk: TokenBackbone, *, attention: bool = False, rngs: nnx.Rngs):
        """`trunk` is a `TokenDiT` or `StateSpace` whose `vocab` is the number of classes; a causal one makes a
        classifier of prefixes. `attention` weighs the tokens of the mean by a learned query."""
        if trunk.num_classes is not None:
            raise InputError(
                f"a classifier got a trunk that is told one of {trunk.num_classes} classes: it would be told the "
                "answer; build it with num_classes=None"
            )
        self.trunk, self.prefix = trunk, trunk.causal
        self.pool = Pool(
            trunk.width, attention=attention, prefix=trunk.causal, param_dtype=trunk.param_dtype, rngs=rngs
        )

    @property
    def num_classes(self) -> int:
        """The number of classes that it tells apart."""
        return self.trunk.vocab

    def __call__(
        self,
        tokens: Tokens,
        c_noise: Float[Array, " batch"] | None = None,
        mask: Bool[Array, "batch places"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch ... classes"]:
        """Class logits in param_dtype. `mask` (B, L), all that a classifier is conditioned on, is false at padding,
        which then changes nothing; c_noise (B,) is read by one that is conditioned on time; `key` turns dropout on."""
        return self.head(self.trunk.hidden(tokens, c_noise, None, mask, key=key), c_noise, mask)

    def hidden(
        self,
        tokens: Tokens,
        c_noise: Float[Array, " batch"] | None = None,
        mask: Bool[Array, "batch places"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch columns width"]:
        """Each token's vector before they are averaged."""
        return self.trunk.hidden(tokens, c_noise, None, mask, key=key)

    def head(
        self,
        hidden: Float[Array, "batch length width"],
        c_noise: Float[Array, " batch"] | None = None,
        mask: Bool[Array, "batch places"] | None = None,
    ) -> Float[Array, "batch ... classes"]:
        """Class logits of the tokens' vectors."""
        pooled = self.pool(hidden, mask)
        logits = self.trunk.head(pooled if self.prefix else pooled[:, None], c_noise)
        return logits if self.prefix else logits[:, 0]

    def init_cache(self, batch: int, length: int) -> PrefixCache:
        """An empty cache for `batch` sequences of at most `length` tokens."""
        return PrefixCache(self.trunk.init_cache(batch, length), self.pool.nothing(batch))

    def step(
        self,
        token: Int[Array, " batch"] | Float[Array, "batch states"],
        cache: PrefixCache,
        c_noise: Float[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch classes"], PrefixCache]:
        """Class logits (B, num_classes) of the prefix with one more token (B,), and the cache that has heard it.

        Raises InputError for a classifier of whole sequences."""
        hidden, network = self.trunk.advance(token, cache.network, c_noise)
        pooled = join(cache.pooled, self.pool.one(hidden))
        return self.trunk.head(pooled.mean()[:, None], c_noise)[:, 0], PrefixCache(network, pooled)


class HiddenClassifier(nnx.Module):
    """Hidden states (B, L, width) of another network -> class logits (B, num_classes), or (B, L, num_classes) of every
    prefix: their mean, and a linear reading of it."""

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        attention: bool = False,
        prefix: bool = False,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_classes < 1 or width < 1:
            raise InputError(
                f"HiddenClassifier with num_classes={num_classes}, width={width}: expected positive numbers"
            )
        kind = {"param_dtype": jnp.dtype(param_dtype), "rngs": rngs}
        self.num_classes, self.width, self.prefix = num_classes, width, prefix
        self.pool = Pool(width, attention=attention, prefix=prefix, **kind)
        self.out = linear(width, num_classes, zero=True, dtype=self.pool.dtype, **kind)

    def __call__(
        self,
        hidden: Float[Array, "batch length width"],
        c_noise: Float[Array, " batch"] | None = None,
        mask: Bool[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch ... classes"]:
        """Class logits, float32 at least; `mask` (B, L) is false at padding. The noise level is not read: the hidden
        state has heard it."""
        if hidden.shape[-1] != self.width:
            raise InputError(
                f"hidden states have shape {hidden.shape}: this classifier expects (batch, length, {self.width}); give "
                f"it those of the network that it was made for"
            )
        return self.out(self.pool(hidden, mask))

    def nothing(self, batch: int) -> Pooled:
        """The empty prefix."""
        return self.pool.nothing(batch)

    def step(
        self, hidden: Float[Array, "batch width"], before: Pooled, c_noise: Float[Array, " batch"] | None = None
    ) -> tuple[Float[Array, "batch classes"], Pooled]:
        """Class logits (B, classes) of the prefix with one more hidden state (B, width), and the prefix."""
        pooled = join(before, self.pool.one(hidden))
        return self.out(pooled.mean()), pooled
