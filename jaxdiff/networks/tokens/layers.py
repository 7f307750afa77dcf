"""The layers of networks on tokens: an embedding of ids or of probabilities, a normalisation of each token by itself,
and the conditioning vector (noise level and class) that shifts, scales and gates the blocks."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import EPSILON, linear

FEATURES, LONGEST = 256, 1e4  # cosines and sines of the noise level, of periods 2 pi to 2 pi 1e4


def exact(dtype: DTypeLike) -> jnp.dtype:
    """What statistics and recurrences are computed in: float64 for float64, float32 for everything else."""
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


class TokenNorm(nnx.Module):
    """Normalise each token over its channels, then scale the channels: x / sqrt(mean x^2 + epsilon) * scale.

    This is RMSNorm (Zhang & Sennrich 2019); with `centre` the mean is subtracted first, and it is layer normalisation
    (Ba et al. 2016) without a bias. Statistics are float32 at least."""

    def __init__(
        self,
        channels: int,
        *,
        centre: bool,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.centre, self.dtype = centre, jnp.dtype(dtype)
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))

    def __call__(self, x: Float[Array, "*shape channels"]) -> Float[Array, "*shape channels"]:
        """x (..., C) -> the same shape in `dtype`."""
        x = x.astype(exact(self.dtype))
        if self.centre:
            x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON)
        return (x * self.scale[...].astype(x.dtype)).astype(self.dtype)


class TokenEmbedding(nnx.Module):
    """A vector for each of `states` ids; for probabilities over the ids the mean of their vectors, so that a function
    of ids has a gradient with respect to one-hots."""

    def __init__(
        self,
        states: int,
        features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.states, self.dtype = states, jnp.dtype(dtype)
        draw = nnx.initializers.normal(1 / math.sqrt(features))
        self.table = nnx.Param(draw(rngs.params(), (states, features), jnp.dtype(param_dtype)))

    def __call__(
        self, tokens: Int[Array, "batch *length"] | Float[Array, "batch *length states"]
    ) -> Float[Array, "batch length features"]:
        """Ids (B, L) in [0, states), or probabilities (B, L, states) -> (B, L, features); NaN for an id outside.

        Raises InputError for another shape."""
        table = self.table[...].astype(self.dtype)
        if jnp.issubdtype(tokens.dtype, jnp.floating):
            if tokens.ndim != 3 or tokens.shape[-1] != self.states:
                raise InputError(
                    f"tokens are probabilities of shape {tokens.shape}: expected (batch, length, {self.states}); "
                    f"give one example its batch axis with tokens[None]"
                )
            return tokens.astype(self.dtype) @ table
        if tokens.ndim != 2:
            raise InputError(
                f"tokens are ids of shape {tokens.shape}: expected (batch, length); give one example its batch axis "
                f"with tokens[None], and flatten what is no line"
            )
        return table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


class TokenConditioning(nnx.Module):
    """Noise level and class -> one vector c = silu(perceptron(waves(c_noise))) + silu(table[class]), or None where a
    network hears neither (Peebles & Xie 2023; Sahoo et al. 2024).

    The waves are 128 cosines and as many sines of c_noise at geometric frequencies from 1 down to almost 1 / LONGEST
    radians a unit. Labels are int32 in [0, num_classes]; num_classes is the null class, and None means it; a label
    outside gives NaN."""

    def __init__(
        self,
        features: int,
        *,
        time_conditioned: bool,
        num_classes: int | None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes={num_classes}: expected at least 1, or None for a network without classes")
        self.num_classes, self.time_conditioned = num_classes, time_conditioned
        self.dtype, self.param_dtype = jnp.dtype(dtype), jnp.dtype(param_dtype)
        kind = {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": rngs}
        if time_conditioned:
            self.hidden = linear(FEATURES, features, **kind)
            self.out = linear(features, features, **kind)
        if num_classes is not None:
            draw = nnx.initializers.normal(0.5)
            self.table = nnx.Param(draw(rngs.params(), (num_classes + 1, features), self.param_dtype))

    def __call__(
        self, batch: int, c_noise: Float[Array, " batch"] | None, labels: Int[Array, " batch"] | None
    ) -> Float[Array, "batch features"] | None:
        """c_noise (B,), which a network without time does not read, and labels (B,) or None -> (B, features) or
        None."""
        told = []
        if self.time_conditioned:
            if c_noise is None:
                raise InputError("this network is conditioned on time but got c_noise=None: give it one number a row")
            waves = noise_waves(c_noise.astype(self.param_dtype)).astype(self.dtype)
            told.append(self.out(jax.nn.silu(self.hidden(waves))))
        if self.num_classes is not None:
            if labels is None:
                labels = jnp.full(batch, self.num_classes, jnp.int32)
            rows = self.table[...].at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
            told.append(rows.astype(self.dtype))
        elif labels is not None:
            raise InputError("this network has no classes but got labels: build it with num_classes, or pass cond=None")
        return sum(map(jax.nn.silu, told[1:]), jax.nn.silu(told[0])) if told else None


def noise_waves(c_noise: Float[Array, " batch"]) -> Float[Array, "batch features"]:
    """Cosines, then sines, of c_noise (B,) times LONGEST^(-i / 128), i = 0 ... 127 -> (B, 256)."""
    half = FEATURES // 2
    slow = jnp.exp(-math.log(LONGEST) * jnp.arange(half, dtype=c_noise.dtype) / half)
    angles = c_noise[:, None] * slow
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Modulation(nnx.Module):
    """Shift, scale and gate, as many times as `parts` has room for, read linearly off the conditioning vector; all 0 at
    first (adaLN-zero: Peebles & Xie 2023). A network without conditioning has shift 0, scale 0 and gate 1."""

    def __init__(self, features: int | None, channels: int, parts: int, **kind):
        self.parts = parts
        self.read = None if features is None else linear(features, parts * channels, zero=True, **kind)

    def __call__(self, c: Float[Array, "batch features"] | None) -> list:
        """c (B, features) -> `parts` arrays (B, 1, channels), or numbers where c is None."""
        if self.read is None or c is None:
            return [0.0, 0.0, 1.0, 0.0, 0.0, 1.0][: self.parts]
        return jnp.split(self.read(c)[:, None], self.parts, axis=-1)


def modulate(h, shift, scale):
    """h (1 + scale) + shift."""
    return h * (1 + scale) + shift
