"""EDM2's U-Net (Karras et al. 2024, configuration G; their Table 6 and Fig. 21): every layer preserves magnitude, there
are no biases and no group norms, and the only learned scales are one gain a block, for the noise level and the class,
and one at the output. All gains start at 0: a new network says 0 and hears no noise level.

Encoder blocks normalise each cell's channels, then add a branch; decoder blocks read what was kept on the way down
beside their input. Down a level is the mean of cells two by two, up a level a repeat.

`dtype` is what the blocks compute in; weights, the embedding, the output convolution and so the output are
`param_dtype`. `remat` keeps only the blocks' inputs for the backward pass and computes the rest again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.edm.magnitude import MPConv, MPFourier, exact, mp_cat, mp_silu, mp_sum, normalize
from jaxdiff.networks.layers import pool, repeat

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "xxs": {"width": 64, "dropout": 0.0},
    "xs": {"width": 128, "dropout": 0.0},
    "s": {"width": 192, "dropout": 0.0},
    "m": {"width": 256, "dropout": 0.1},
    "l": {"width": 320, "dropout": 0.1},
    "xl": {"width": 384, "dropout": 0.1},
    "xxl": {"width": 448, "dropout": 0.1},
}
"""The published sizes, as options: edm2(4, 64, num_classes=1000, **PRESETS["s"], rngs=rngs)."""

LEARNING_RATES: Mapping[str, float] = {
    "xxs": 0.0170, "xs": 0.0120, "s": 0.0100, "m": 0.0090, "l": 0.0080, "xl": 0.0070, "xxl": 0.0065,
}  # fmt: skip
"""The published peaks of `training.inverse_sqrt`, at batches of 2048; flat for 70,000 steps (latents), 35,000 (64 x
64 pixels)."""


class Balance(NamedTuple):
    """How much the second part of a sum counts, 0 to 1."""

    label: float = 0.5
    concat: float = 0.5
    res: float = 0.3
    attn: float = 0.3


class Attention(nnx.Module):
    """Self-attention over the cells, in heads, with queries, keys and values of magnitude 1 each."""

    def __init__(self, channels: int, head: int, balance: float, **kind: Any):
        if head < 1 or channels % head:
            raise InputError(f"attention on {channels} channels with heads of {head}: `head` must divide the channels")
        self.head, self.balance = head, balance
        self.qkv = MPConv(channels, 3 * channels, **kind)
        self.out = MPConv(channels, channels, **kind)

    def __call__(self, x: Float[Array, "batch *spatial channels"]) -> Float[Array, "batch *spatial channels"]:
        """x (B, *spatial, C) -> the same shape; the 3 C channels of `qkv` are (head, channel, {q, k, v})."""
        batch, channels = x.shape[0], x.shape[-1]
        parts = self.qkv(x).reshape(batch, -1, channels // self.head, self.head, 3)
        q, k, v = jnp.moveaxis(normalize(parts, -2), -1, 0)
        logits = jnp.einsum("bqhc,bkhc->bhqk", q, k / math.sqrt(self.head)).astype(exact(x.dtype))
        read = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(logits).astype(x.dtype), v)
        return mp_sum(x, self.out(read.reshape(x.shape)), self.balance)


class Block(nnx.Module):
    """An encoder or decoder block (B, H, W, inputs) -> (B, H, W, outputs), half or twice the size if it resamples.

    The branch is conv(drop(mp_silu((1 + gain read(emb)) conv(mp_silu(x))))). An encoder block first brings x to its
    outputs and every cell to magnitude 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        features: int,
        *,
        decoder: bool,
        resample: Any = None,
        head: int | None = None,
        balance: Balance,
        dropout: float,
        clip: float | None,
        **kind: Any,
    ):
        self.decoder, self.resample, self.balance, self.clip = decoder, resample, balance.res, clip
        self.skip = MPConv(inputs, outputs, **kind) if inputs != outputs else None
        self.conv1 = MPConv(inputs if decoder else outputs, outputs, (3, 3), **kind)
        self.read = MPConv(features, outputs, **kind)
        self.gain = nnx.Param(jnp.zeros((), kind["param_dtype"]))
        self.drop = nnx.Dropout(dropout)
        self.conv2 = MPConv(outputs, outputs, (3, 3), **kind)
        self.attend = Attention(outputs, head, balance.attn, **kind) if head is not None else None

    def __call__(
        self,
        x: Float[Array, "batch height width inputs"],
        emb: Float[Array, "batch features"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch newheight newwidth outputs"]:
        """x (B, H, W, inputs), emb (B, features), a key for dropout or None for none, in x's dtype."""
        x = x if self.resample is None else self.resample(x)
        across = x if self.skip is None else self.skip(x)
        if not self.decoder:
            x = across = normalize(across, -1)
        y = self.conv1(mp_silu(x))
        scale = 1 + self.read(emb, self.gain[...]).astype(x.dtype)
        y = mp_silu(y * scale[:, None, None])
        y = self.conv2(self.drop(y, deterministic=key is None, rngs=key))
        x = mp_sum(across, y, self.balance)
        x = x if self.attend is None else self.attend(x)
        return x if self.clip is None else jnp.clip(x, -self.clip, self.clip)


class EDM2(nnx.Module):
    """x (B, H, W, channels), c_noise (B,), labels -> (B, H, W, channels); `edm2` makes it."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        attends: Sequence[bool],
        *,
        blocks: int,
        head: int,
        num_classes: int | None,
        balance: Balance,
        remat: bool,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """`widths` are the channels of each level, `attends` says which of them attend."""
        features, lowest = max(widths), len(widths) - 1
        kind = {"param_dtype": param_dtype, "rngs": rngs}
        self.channels, self.levels, self.num_classes = channels, len(widths), num_classes
        self.balance, self.remat, self.dtype, self.param_dtype = balance, remat, dtype, param_dtype

        def block(inputs: int, outputs: int, **own: Any) -> Block:
            return Block(inputs, outputs, features, balance=balance, **options, **own, **kind)

        self.fourier = MPFourier(widths[0], **kind)
        self.noise = MPConv(widths[0], features, **kind)
        self.label = MPConv(num_classes, features, **kind) if num_classes is not None else None
        self.stem = MPConv(channels + 1, widths[0], (3, 3), **kind)
        heads = [head if attend else None for attend in attends]
        down, up, now = [], [], widths[0]
        kept = [now]
        for level, width in enumerate(widths):
            row = [block(now, now, decoder=False, resample=pool)] if level else []
            kept += [now] * len(row)
            for _ in range(blocks):
                row.append(block(now, now := width, decoder=False, head=heads[level]))
                kept.append(now)
            down.append(nnx.List(row))
        for level in range(lowest, -1, -1):
            if level == lowest:
                enter = [block(now, now, decoder=True, head=head), block(now, now, decoder=True)]
            else:
                enter = [block(now, now, decoder=True, resample=repeat)]
            row = []
            for _ in range(blocks + 1):
                row.append(block(now + kept.pop(), now := widths[level], decoder=True, head=heads[level]))
            up.append(nnx.List([nnx.List(enter), nnx.List(row)]))
        self.down, self.up = nnx.List(down), nnx.List(up)
        self.out = MPConv(now, channels, (3, 3), **kind)
        self.gain = nnx.Param(jnp.zeros((), param_dtype))

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.num_classes

    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        c_noise: Float[Array, " batch"],
        cond: Int[Array, " batch"] | Float[Array, "batch classes"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *spatial channels"]:
        """x (B, H, W, channels), c_noise (B,), labels -> (B, H, W, channels) in param_dtype.

        Labels are int in [0, num_classes] (the last is the null class; any other number gives NaN), or rows of class
        weights (B, num_classes), zeros for the null class; None means it too. `key` turns dropout on. Raises InputError
        if a size is not a multiple of 2^(levels - 1), or labels don't fit."""
        self._check_input(x)
        step = _remat_step if self.remat else _step
        number = sum(map(len, self.down)) + sum(len(enter) + len(row) for enter, row in self.up)
        keys = iter([None] * number if key is None else jax.random.split(key, number))
        emb = self.embed(c_noise, cond)
        x = x.astype(self.dtype)
        h = self.stem(jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1))  # the ones stand for a bias
        kept = [h]
        for row in self.down:
            for block in row:
                h = step(block, h, emb, next(keys))
                kept.append(h)
        for enter, row in self.up:
            for block in enter:
                h = step(block, h, emb, next(keys))
            for block in row:
                h = step(block, mp_cat(h, kept.pop(), self.balance.concat), emb, next(keys))
        return self.out(h.astype(self.param_dtype), self.gain[...])

    def embed(
        self, c_noise: Float[Array, " batch"], cond: Int[Array, " batch"] | Float[Array, "batch classes"] | None = None
    ) -> Float[Array, "batch features"]:
        """The vector that the blocks read, in float32 at least: mp_silu(mp_sum(noise, sqrt(num_classes) label))."""
        emb = self.noise(self.fourier(c_noise))
        if self.label is None:
            if cond is not None:
                raise InputError(
                    "this network has no classes but got labels: build it with num_classes, or pass cond=None"
                )
        else:
            rows = _rows(cond, (emb.shape[0], self.null_class), emb.dtype)
            emb = mp_sum(emb, self.label(math.sqrt(rows.shape[-1]) * rows), self.balance.label)
        return mp_silu(emb)

    def _check_input(self, x: Array) -> None:
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise InputError(
                f"x has shape {x.shape}: this U-Net expects (batch, height, width, {self.channels} channels); give one "
                "example its batch axis with x[None]"
            )
        unit = 2 ** (self.levels - 1)
        if any(size % unit or size == 0 for size in x.shape[1:-1]):
            raise InputError(
                f"x has spatial sizes {x.shape[1:-1]}: a U-Net of {self.levels} levels expects multiples of {unit}; "
                "pad the data, or give `multipliers` fewer entries"
            )


def _rows(labels: Array | None, shape: tuple[int, Any], dtype: Any) -> Array:
    """Labels as rows of class weights (B, num_classes): one-hot, or zeros for the null class."""
    if labels is None:
        return jnp.zeros(shape, dtype)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        known = (labels >= 0) & (labels <= shape[1])
        return jnp.where(known[:, None], jax.nn.one_hot(labels, shape[1], dtype=dtype), jnp.nan)
    if labels.shape != shape:
        raise InputError(
            f"labels have shape {labels.shape}, expected {shape}: a row of class weights an example; or give int labels"
            " of shape (batch,)"
        )
    return labels.astype(dtype)


def _step(block: Block, h: Array, emb: Array, key: Array | None) -> Array:
    return block(h, emb, key)


_remat_step = nnx.remat(_step)


def edm2(
    channels: int,
    size: int,
    *,
    width: int = 192,
    multipliers: Sequence[int] = (1, 2, 3, 4),
    blocks: int = 3,
    attention: Sequence[int] = (16, 8),
    head: int = 64,
    num_classes: int | None = None,
    dropout: float = 0.0,
    label_balance: float = 0.5,
    concat_balance: float = 0.5,
    res_balance: float = 0.3,
    attn_balance: float = 0.3,
    clip: float | None = 256.0,
    remat: bool = False,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> EDM2:
    """The network of EDM2 for images of size x size x channels; level i has width * multipliers[i] channels.

    Blocks attend at the sizes in `attention` (those that no level has count for nothing, so that one list serves images
    of all sizes) and in the lowest level's first decoder block, in heads of `head` channels. `blocks` counts the blocks
    of a level on the way down, one less than on the way up. Raises InputError for options that make no network."""
    levels = len(multipliers)
    if levels < 1 or blocks < 1:
        raise InputError(f"{levels} multipliers and blocks={blocks}: expected at least one of each")
    if size < 1 or size % 2 ** (levels - 1):
        raise InputError(f"size={size}: a U-Net of {levels} levels expects a multiple of {2 ** (levels - 1)}")
    balance = Balance(label_balance, concat_balance, res_balance, attn_balance)
    if not all(0 < t < 1 for t in balance) or not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout}, {balance}: expected a dropout in [0, 1) and balances between 0 and 1")
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes={num_classes}: expected at least 1, or None for a network without classes")
    return EDM2(
        channels,
        [width * multiplier for multiplier in multipliers],
        [size >> level in attention for level in range(levels)],
        blocks=blocks,
        head=head,
        num_classes=num_classes,
        balance=balance,
        dropout=dropout,
        clip=clip,
        remat=remat,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        rngs=rngs,
    )
