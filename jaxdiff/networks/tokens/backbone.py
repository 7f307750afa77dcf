"""What networks on tokens share: an embedding, blocks, and a head; logits = head(hidden(tokens)).

    net(tokens, c_noise, cond, key=key)      ids (B, L) or probabilities (B, L, states) -> logits (B, L, vocab)
    net.hidden(tokens, c_noise, cond)        -> (B, L, width), what the head reads; guidance may move it
    net.head(hidden, c_noise, cond)          -> (B, L, vocab)
    net.step(token, cache, c_noise, cond)    -> (logits (B, vocab), cache): the next column of a causal network

Tokens are ids in [0, states): the `vocab` data tokens, then a mask where the process has one. Logits are over the data
tokens alone, so that a mask cannot be predicted. Each is a pure function by `functional(net, method="step")`.

A causal network's column l hears tokens 0 to l. Reading them one by one with a cache gives the columns of the whole
pass to float rounding, at the cost of one token each."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import ZEROS
from jaxdiff.networks.tokens.layers import Modulation, TokenConditioning, TokenEmbedding, TokenNorm, modulate

Tokens = Int[Array, "batch *length"] | Float[Array, "batch *length states"]


class Cache(NamedTuple):
    """What a causal network remembers of the tokens before: their number, and the memory of each block."""

    position: Int[Array, ""]
    layers: PyTree


class TokenBackbone(nnx.Module):
    """The call shared by the architectures; each brings `blocks`, called as block(h, c, mask, key) -> h and, to be read
    token by token, block.step(h, memory, c, position) -> (h, memory) from block.memory(batch, length)."""

    blocks: nnx.List

    def __init__(
        self,
        vocab: int,
        *,
        states: int | None,
        width: int,
        cond_dim: int,
        num_classes: int | None,
        time_conditioned: bool,
        causal: bool,
        centre: bool,
        bias: bool,
        dropout: float,
        remat: bool,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        positions: int = 0,
    ):
        states = vocab if states is None else states
        if vocab < 1 or states < 1 or width < 1 or cond_dim < 1:
            raise InputError(
                f"vocab={vocab}, states={states}, width={width}, cond_dim={cond_dim}: expected positive numbers"
            )
        if positions < 0:
            raise InputError(f"positions={positions}: expected how many places are learned, or 0 for none")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout}: expected a rate in [0, 1)")
        self.vocab, self.states, self.width = vocab, states, width
        self.num_classes, self.time_conditioned, self.causal = num_classes, time_conditioned, causal
        self.remat, self.dtype, self.param_dtype = remat, jnp.dtype(dtype), jnp.dtype(param_dtype)
        kind = {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": rngs}
        self.embed = TokenEmbedding(states, width, **kind)
        draw = nnx.initializers.normal(1 / math.sqrt(width))  # as the embedding of ids
        self.places = nnx.Param(draw(rngs.params(), (positions, width), self.param_dtype)) if positions else None
        self.conditioning = TokenConditioning(
            cond_dim, time_conditioned=time_conditioned, num_classes=num_classes, **kind
        )
        self.features = cond_dim if time_conditioned or num_classes is not None else None
        self.norm = TokenNorm(width, centre=centre, **kind)
        self.modulation = Modulation(self.features, width, 2, **kind)
        kind["dtype"] = self.param_dtype
        self.out = nnx.Linear(width, vocab, use_bias=bias, kernel_init=ZEROS, **kind)

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.num_classes

    def __call__(
        self,
        tokens: Tokens,
        c_noise: Float[Array, " batch"] | None,
        cond: Int[Array, " batch"] | None = None,
        mask: Bool[Array, "batch places"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch columns vocab"]:
        """Ids (B, L) or probabilities (B, L, states), c_noise (B,), labels (B,) or None -> logits (B, L, vocab) in
        param_dtype.

        `mask` is false at padding, which no other token then hears; `key` turns dropout on. Raises InputError for
        another shape, and for labels or times that the network was not built for."""
        return self.head(self.hidden(tokens, c_noise, cond, mask, key=key), c_noise, cond)

    def hidden(
        self,
        tokens: Tokens,
        c_noise: Float[Array, " batch"] | None,
        cond: Int[Array, " batch"] | None = None,
        mask: Bool[Array, "batch places"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch columns width"]:
        """The last hidden state (B, L, width), which `head` reads; arguments as in the call."""
        h = self._placed(self.embed(tokens), 0)
        if mask is not None and mask.shape != h.shape[:2]:
            raise InputError(f"mask has shape {mask.shape} for tokens of {h.shape[:2]}: expected one truth a token")
        c = self.conditioning(len(h), c_noise, cond)
        step = _remat_step if self.remat else _step
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, k in zip(self.blocks, keys, strict=True):
            h = step(block, h, c, mask, k)
        return h

    def head(
        self,
        hidden: Float[Array, "batch length width"],
        c_noise: Float[Array, " batch"] | None,
        cond: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Logits (B, L, vocab) of a given hidden state: normalised, modulated once, and a linear reading of it."""
        shift, scale = self.modulation(self.conditioning(len(hidden), c_noise, cond))
        return self.out(modulate(self.norm(hidden), shift, scale))

    def _placed(self, h: Array, start: Int[Array, ""] | int) -> Array:
        """Tokens with the vectors of their places added, where the network has such."""
        if self.places is None:
            return h
        places = self.places[...].astype(h.dtype)
        if h.shape[1] > len(places):
            raise InputError(
                f"a sequence has {h.shape[1]} tokens and this network learned {len(places)} places: build it with more "
                "positions"
            )
        at = start + jnp.arange(h.shape[1])
        return h + places.at[at].get(mode="fill", fill_value=jnp.nan)

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` sequences of at most `length` tokens."""
        return Cache(jnp.zeros((), jnp.int32), tuple(block.memory(batch, length) for block in self.blocks))

    def advance(
        self,
        token: Int[Array, " batch"] | Float[Array, "batch states"],
        cache: Cache,
        c_noise: Float[Array, " batch"] | None = None,
        cond: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch width"], Cache]:
        """The hidden state (B, width) after one more token (B,), and the cache that has heard it.

        Raises InputError for a network that is not causal."""
        if not self.causal:
            raise InputError(
                f"this {type(self).__name__} hears tokens on both sides, so it cannot step: build it with causal=True"
            )
        h, c = self._placed(self.embed(token[:, None]), cache.position), self.conditioning(len(token), c_noise, cond)
        layers = []
        for block, memory in zip(self.blocks, cache.layers, strict=True):
            h, memory = block.step(h, memory, c, cache.position)
            layers.append(memory)
        return h[:, 0], Cache(cache.position + 1, tuple(layers))

    def step(
        self,
        token: Int[Array, " batch"] | Float[Array, "batch states"],
        cache: Cache,
        c_noise: Float[Array, " batch"] | None = None,
        cond: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """The logits (B, vocab) after one more token (B,), column `cache.position` of the whole pass, and the cache."""
        h, cache = self.advance(token, cache, c_noise, cond)
        return self.head(h[:, None], c_noise, cond)[:, 0], cache


def _step(block: Any, h: Array, c: Array | None, mask: Array | None, key: Array | None) -> Array:
    return block(h, c, mask, key)


_remat_step = nnx.remat(_step)
