"""A U-Net for images whose levels are tokens, with logits that know the order of the levels (Austin et al. 2021;
Campbell et al. 2022): the U-Net gives each pixel a mean and a width, and level v has the probability that a logistic
variable, truncated to [-1, 1], falls in the v-th of `vocab` equal bins,

    p_v = [F(r_v) - F(l_v)] / [F(1) - F(-1)],    F(y) = sigmoid((y - mean) / width),  r_v - l_v = 2 / vocab.

Differences of sigmoids are taken in log space exactly, as sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a)
(1 - e^(a - b)), where both tails keep their digits. So the published option `fix_logistic`, the smaller of two rounded
forms of this number, has nothing to fix here.

The network sees the level as 2 v / (vocab - 1) - 1, and where the process has a mask, a channel of its own says so: a
masked pixel is 0 there, and no level brighter than white."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.unet import UNet

NARROW = 2.0  # -log of a new network's width: e^-2 of the span [-1, 1]'s half


class TruncatedLogistic(nnx.Module):
    """Ids (B, *spatial, channels) or probabilities (B, *spatial, channels, states), c_noise (B,), labels (B,) ->
    log-probabilities (B, *spatial, channels, vocab)."""

    def __init__(
        self,
        vocab: int,
        channels: int,
        *,
        states: int | None = None,
        rows: Sequence[int] | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """`states` counts the ids that it reads: `vocab` unless given, vocab + 1 with a mask. With `rows`, the shape
        (*spatial, channels) of an image, it reads and answers images as rows of tokens (B, L). `options` are those of
        `UNet`."""
        states = vocab if states is None else states
        if vocab < 2 or channels < 1 or states not in (vocab, vocab + 1):
            raise InputError(
                f"TruncatedLogistic with vocab={vocab}, channels={channels}, states={states}: expected two levels or "
                f"more, a channel or more, and as many states as levels or, with a mask, one more"
            )
        if rows is not None and (not rows or rows[-1] != channels):
            raise InputError(
                f"TruncatedLogistic with rows={tuple(rows)}, channels={channels}: expected the shape of an image, "
                "(*sizes, channels)"
            )
        self.vocab, self.channels, self.states = vocab, channels, states
        self.rows = None if rows is None else tuple(rows)
        self.unet = UNet(channels * (1 + states - vocab), out_channels=2 * channels, **options, rngs=rngs)
        self.num_classes, self.time_conditioned = self.unet.null_class, True

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.num_classes

    def __call__(
        self,
        tokens: Int[Array, "batch *shape"] | Float[Array, "batch *shape states"],
        c_noise: Float[Array, " batch"],
        cond: Int[Array, " batch"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *shape vocab"]:
        """Log-probabilities of each pixel's levels, in the U-Net's param_dtype; NaN for an id outside of [0, states).

        Raises InputError for another shape."""
        value, masked = self._read(tokens if self.rows is None else self._images(tokens, self.rows))
        x = value if masked is None else jnp.concatenate([value, masked], axis=-1)
        shift, width = jnp.split(self.unet(x, c_noise, cond, key=key), 2, axis=-1)
        logs = log_bins(jnp.tanh(value + shift), jnp.exp(NARROW - width), self.vocab)
        return logs if self.rows is None else logs.reshape(len(logs), -1, self.vocab)

    def _images(self, tokens, shape):
        """Rows of tokens as images of this shape."""
        ends = tokens.shape[2:] if jnp.issubdtype(tokens.dtype, jnp.floating) else ()
        if tokens.shape[1 : tokens.ndim - len(ends)] != (math.prod(shape),):
            raise InputError(
                f"tokens have shape {tokens.shape}: this network reads rows of {math.prod(shape)} tokens, images of "
                f"shape {shape}"
            )
        return tokens.reshape(len(tokens), *shape, *ends)

    def _read(self, tokens):
        """Values in [-1, 1], 0 at a mask, and the mask or None."""
        dtype = self.unet.param_dtype
        floating = jnp.issubdtype(tokens.dtype, jnp.floating)
        places = tokens.shape[:-1] if floating else tokens.shape
        if (floating and tokens.shape[-1] != self.states) or places[-1:] != (self.channels,):
            kind, last = ("probabilities", f"{self.channels}, {self.states}") if floating else ("ids", self.channels)
            raise InputError(
                f"tokens are {kind} of shape {tokens.shape}: expected (batch, *sizes, {last}); give one example its "
                f"batch axis with tokens[None]"
            )
        levels = 2 * jnp.arange(self.vocab, dtype=dtype) / (self.vocab - 1) - 1
        if floating:
            p = tokens.astype(dtype)
            return p[..., : self.vocab] @ levels, p[..., -1] if self.states > self.vocab else None
        table = jnp.concatenate([levels, jnp.zeros(self.states - self.vocab, dtype)])
        value = table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        return value, (tokens == self.vocab).astype(dtype) if self.states > self.vocab else None


def log_bins(mean: Float[Array, "*shape"], sharpness: Float[Array, "*shape"], bins: int) -> Float[Array, "*shape bins"]:
    """log P(bin | [-1, 1]) of a logistic variable with this mean and 1 / width, for `bins` equal bins of [-1, 1]."""
    edges = jnp.linspace(-1, 1, bins + 1, dtype=mean.dtype)
    at, gap = (edges - mean[..., None]) * sharpness[..., None], 2 * sharpness[..., None]
    return log_rise(at[..., :-1], gap / bins) - log_rise(at[..., :1], gap)


def log_rise(a: Float[Array, "*shape n"], gap: Float[Array, "*shape 1"]) -> Float[Array, "*shape n"]:
    """log(sigmoid(a + gap) - sigmoid(a)) for gap > 0, exact to rounding in both tails and for small gaps."""
    return jax.nn.log_sigmoid(a + gap) + jax.nn.log_sigmoid(-a) + jnp.log(-jnp.expm1(-gap))
