"""What DDPM++, NCSN++ and ADM are made of (Song et al. 2021; Dhariwal & Nichol 2021; Karras et al. 2022, appendix F):
one residual block in two manners, the embeddings of the noise level, and the reading of conditions.

A block is silu(norm) -> resize -> 3 x 3 -> told the conditioning vector -> silu(norm) -> dropout -> 3 x 3, plus its
skip, times a scale; then, where it attends, the same sum around self-attention. Attributes have the names that
published checkpoints use. Blocks compute in `dtype`; the conditioning vector in the parameters' dtype; statistics of
normalisation and the softmax in float32 at least."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks.convolution import Conv3x3
from jaxdiff.networks.layers import ZEROS, GroupNorm
from jaxdiff.networks.resampling import Down, Up

Initializer = Callable[..., Array]


@dataclass(frozen=True)
class Manner:
    """The choices in which the architectures differ, and the kind of numbers; it makes their layers.

    `first`, `last` and `qkv` start a layer's weights: an ordinary one, one whose output should be small at first, and
    the one that reads queries, keys and values. With `noisy_bias`, biases but the last layers'
    start as U(-1, 1) / sqrt(inputs of a neuron); otherwise at zero. `scaled` blocks scale and shift by the conditioning
    vector, others only shift. With `project`, a block that resizes has a matrix on its skip."""

    epsilon: float
    skip_scale: float
    first: Initializer
    last: Initializer
    qkv: Initializer
    noisy_bias: bool
    scaled: bool
    project: bool
    dtype: Any
    param_dtype: Any
    rngs: nnx.Rngs

    def exact(self) -> "Manner":
        """The same manner, computing in the parameters' dtype."""
        return replace(self, dtype=self.param_dtype)

    def norm(self, channels: int) -> GroupNorm:
        """Group normalisation in groups of at least four channels, at most 32 groups."""
        kind = {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": self.rngs}
        return GroupNorm(channels, max(1, min(32, channels // 4)), epsilon=self.epsilon, **kind)

    def conv(self, inputs: int, outputs: int, *, init: Initializer | None = None, padding: int = 1) -> Conv3x3:
        """A 3 x 3 convolution, padded with zeros."""
        return Conv3x3(inputs, outputs, padding=padding, **self._options(9 * inputs, init))

    def linear(
        self, inputs: int, outputs: int, *, init: Initializer | None = None, use_bias: bool = True
    ) -> nnx.Linear:
        """A matrix over the last axis: a fully connected layer, or a 1 x 1 convolution."""
        return nnx.Linear(inputs, outputs, use_bias=use_bias, **self._options(inputs, init))

    def _options(self, fan_in: int, init: Initializer | None) -> dict[str, Any]:
        noisy = self.noisy_bias and init is not self.last
        return {
            "kernel_init": self.first if init is None else init,
            "bias_init": _uniform(1 / math.sqrt(fan_in)) if noisy else ZEROS,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "rngs": self.rngs,
        }


def _uniform(bound: float) -> Initializer:
    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init


class Block(nnx.Module):
    """A residual block x (B, H, W, inputs) -> (B, H', W', outputs), resized if `resize` is given, then attending in
    `heads` heads if there are any."""

    def __init__(
        self,
        manner: Manner,
        inputs: int,
        outputs: int,
        features: int,
        *,
        resize: Down | Up | None = None,
        heads: int = 0,
        dropout: float = 0.0,
    ):
        if heads and outputs % heads:
            raise InputError(f"attention on {outputs} channels in {heads} heads: the heads must divide the channels")
        self.resize, self.heads, self.scaled, self.scale = resize, heads, manner.scaled, manner.skip_scale
        self.norm0 = manner.norm(inputs)
        self.conv0 = manner.conv(inputs, outputs)
        self.affine = manner.exact().linear(features, outputs * (2 if manner.scaled else 1))
        self.norm1 = manner.norm(outputs)
        self.drop = nnx.Dropout(dropout)
        self.conv1 = manner.conv(outputs, outputs, init=manner.last)
        projects = inputs != outputs or (manner.project and resize is not None)
        self.skip = manner.linear(inputs, outputs) if projects else None
        if heads:
            self.norm2 = manner.norm(outputs)
            self.qkv = manner.linear(outputs, 3 * outputs, init=manner.qkv)
            self.proj = manner.linear(outputs, outputs, init=manner.last)

    def __call__(
        self,
        x: Float[Array, "batch height width inputs"],
        emb: Float[Array, "batch features"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch sameheight samewidth outputs"]:
        """x (B, H, W, inputs), emb (B, features), a key for dropout or None for none -> (B, H', W', outputs)."""
        resize = self.resize or _same
        h = self.conv0(resize(jax.nn.silu(self.norm0(x))))
        told = self.affine(emb)[:, None, None].astype(h.dtype)
        if self.scaled:
            scale, shift = jnp.split(told, 2, axis=-1)
            h = jax.nn.silu(shift + self.norm1(h) * (scale + 1))
        else:
            h = jax.nn.silu(self.norm1(h + told))
        h = self.conv1(self.drop(h, deterministic=key is None, rngs=key))
        x = resize(x)
        x = (h + (x if self.skip is None else self.skip(x))) * self.scale
        return x if self.heads == 0 else (x + self._attend(x)) * self.scale

    def _attend(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        q, k, v = jnp.split(self.qkv(self.norm2(x)), 3, axis=-1)
        by_head = (batch, height * width, self.heads, channels // self.heads)
        exact = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
        q, k, v = (part.reshape(by_head) for part in (q, k, v))
        scores = jnp.einsum("bqhc,bkhc->bhqk", q, k, preferred_element_type=exact)
        weights = jax.nn.softmax(scores / math.sqrt(by_head[-1]), axis=-1).astype(x.dtype)
        read = jnp.einsum("bhqk,bkhc->bqhc", weights, v)
        return self.proj(read.reshape(x.shape))


def _same(x: Array) -> Array:
    return x


def step(block: Block, h: Array, emb: Array, key: Array | None) -> Array:
    """The block as a function of itself, which is what can be rematerialised."""
    return block(h, emb, key)


remat_step = nnx.remat(step)


class Positional(nnx.Module):
    """[cos c f, sin c f] of c_noise c (B,) at the frequencies f = 10000^(-i / n), i < n = features / 2, or with
    `endpoint` down to 1 / 10000 itself: 10000^(-i / (n - 1)) (Vaswani et al. 2017)."""

    def __init__(self, features: int, *, endpoint: bool = False, rngs: nnx.Rngs | None = None):
        if features < 4 or features % 2:
            raise InputError(f"features={features}: a positional embedding needs an even number of at least 4")
        self.features, self.endpoint = features, endpoint

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch features"]:
        half = self.features // 2
        steps = jnp.arange(half, dtype=c_noise.dtype) / (half - self.endpoint)
        return waves(c_noise[:, None] * jnp.exp(-math.log(10000.0) * steps))


class Frequencies(nnx.Variable):
    """Random frequencies that are drawn once and never trained."""


class RandomFourier(nnx.Module):
    """[cos 2 pi c f, sin 2 pi c f] of c_noise c (B,) at random frequencies f ~ N(0, scale^2) (Tancik et al. 2020).

    The frequencies are no parameters: they belong to the frozen rest of the network, and to its checkpoint."""

    def __init__(self, features: int, *, scale: float = 16.0, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        if features < 2 or features % 2:
            raise InputError(f"features={features}: random Fourier features need an even number of at least 2")
        self.freqs = Frequencies(scale * jax.random.normal(rngs.params(), (features // 2,), param_dtype))

    def __call__(self, c_noise: Float[Array, " batch"]) -> Float[Array, "batch features"]:
        return waves(2 * math.pi * c_noise[:, None] * self.freqs[...].astype(c_noise.dtype))


def waves(angles: Float[Array, "batch half"]) -> Float[Array, "batch features"]:
    """[cos, sin] of `angles`."""
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def read_condition(
    cond: PyTree, batch: int, num_classes: int | None, augment: int, dtype: DTypeLike
) -> tuple[Float[Array, "batch classes"] | None, Float[Array, "batch augment"] | None]:
    """The label rows (B, num_classes), zeros for the null class, and the augmentation labels (B, augment), zeros
    unless given, in `dtype`; None for what the network does not have.

    `cond` is None, labels, or {"label": labels, "augment": (B, augment)} with either; labels are int (B,) in [0,
    num_classes], where num_classes is the null class, or float rows (B, num_classes). An int label outside that range
    gives NaN."""
    cond = cond if isinstance(cond, Mapping) else {"label": cond}
    if strange := sorted(set(cond) - {"label", "augment"}):
        raise InputError(f"cond has the entries {strange}: expected 'label' and 'augment', or labels alone")
    return _label_rows(cond.get("label"), batch, num_classes, dtype), _augment_rows(
        cond.get("augment"), batch, augment, dtype
    )


def _label_rows(labels, batch, num_classes, dtype):
    if num_classes is None:
        if labels is not None:
            raise InputError("this network has no classes but got labels: build it with num_classes, or pass cond=None")
        return None
    if labels is None:
        return jnp.zeros((batch, num_classes), dtype)
    labels = jnp.asarray(labels)
    if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == (batch,):
        rows = jax.nn.one_hot(labels, num_classes, dtype=dtype)
        known = (labels >= 0) & (labels <= num_classes)
        return jnp.where(known[:, None], rows, jnp.nan)
    if jnp.issubdtype(labels.dtype, jnp.floating) and labels.shape == (batch, num_classes):
        return labels.astype(dtype)
    raise InputError(
        f"labels of shape {labels.shape} and dtype {labels.dtype}: expected integers of shape ({batch},) in [0, "
        f"{num_classes}], or rows of floats of shape ({batch}, {num_classes})"
    )


def _augment_rows(rows, batch, augment, dtype):
    if augment == 0:
        if rows is not None:
            raise InputError("this network has no augmentation labels but got some: build it with augment=9, say")
        return None
    if rows is None:
        return jnp.zeros((batch, augment), dtype)
    rows = jnp.asarray(rows)
    if rows.shape != (batch, augment):
        raise InputError(f"augmentation labels of shape {rows.shape}: expected ({batch}, {augment})")
    return rows.astype(dtype)


def drop_labels(key: Array | None, rate: float, rows: Array) -> Array:
    """Zero each example's row with probability `rate`, if there is a key."""
    if key is None or rate == 0:
        return rows
    return jnp.where(jax.random.bernoulli(key, rate, (rows.shape[0], 1)), jnp.zeros((), rows.dtype), rows)
