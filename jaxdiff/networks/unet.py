"""The U-Net (Ronneberger et al. 2015; Ho et al. 2020) in 1, 2 or 3 spatial dimensions, channels last.

Level i works at 1 / 2^i of the size with width * multipliers[i] channels. On the way down every block's output is
kept; on the way up every block reads one back, mixed into its input by a matrix. Down a level is the mean of cells
two by two, up a level a repeat. Normalisation is by group within an example, so a batch is its examples one by one.
The output convolution is zero at first: a new network says 0.

`dtype` is what the blocks compute in (bfloat16 for mixed precision); parameters, the output convolution and so the
output are `param_dtype`, whatever the dtype of x. `remat` keeps only the blocks' inputs for the backward pass and
computes the rest again: less memory, a third more time. `periodic` pads around the edge, for fields on a torus: the
network then commutes with circular shifts by 2^(levels - 1) cells."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from jaxdiff.errors import InputError
from jaxdiff.networks.blocks import Join, ResBlock
from jaxdiff.networks.embeddings import Conditioning
from jaxdiff.networks.fourier_features import fourier_features
from jaxdiff.networks.layers import GroupNorm, conv, pool


class UNet(nnx.Module):
    """A convolutional network x (B, *spatial, channels), c_noise (B,), labels (B,) -> (B, *spatial, out_channels).

    Labels are int32 in [0, num_classes]; `null_class` = num_classes is the unconditional one, and `cond=None` means
    it."""

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 2,
        out_channels: int | None = None,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        head: int = 32,
        groups: int = 8,
        features: int | None = None,
        fourier: Sequence[int] = (),
        num_classes: int | None = None,
        dropout: float = 0.0,
        periodic: bool = False,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`attention` lists the levels that attend (0 is the finest), in heads of `head` channels; `features` is the
        length of the conditioning vector (4 width unless given); `blocks` counts the residual blocks of a level.
        `fourier` lists the exponents n of sin and cos of 2^n pi x, which the first convolution sees beside x."""
        levels = len(multipliers)
        _check(dims=dims, levels=levels, blocks=blocks, attention=attention, dropout=dropout)
        features = 4 * width if features is None else features
        out_channels = channels if out_channels is None else out_channels
        kind = {"param_dtype": jnp.dtype(param_dtype), "rngs": rngs}
        self.dims, self.channels, self.levels, self.remat = dims, channels, levels, remat
        self.dtype, self.param_dtype = jnp.dtype(dtype), jnp.dtype(param_dtype)
        self.conditioning = Conditioning(features, num_classes=num_classes, dtype=self.dtype, **kind)

        def block(inputs: int, outputs: int, level: int) -> ResBlock:
            return ResBlock(
                inputs,
                outputs,
                features,
                dims,
                head=head if level in attention else None,
                groups=groups,
                dropout=dropout,
                periodic=periodic,
                dtype=self.dtype,
                **kind,
            )

        self.fourier = tuple(fourier)
        seen = channels * (1 + 2 * len(self.fourier))
        self.stem = conv(seen, width, dims, periodic=periodic, dtype=self.dtype, **kind)
        down, up, kept, now = [], [], [], width
        for level, multiplier in enumerate(multipliers):
            row = []
            for _ in range(blocks):
                row.append(block(now, now := width * multiplier, level))
                kept.append(now)
            down.append(nnx.List(row))
        self.middle = nnx.List([block(now, now, levels - 1), block(now, now, levels)])  # only the first attends
        for level, multiplier in reversed(list(enumerate(multipliers))):
            row = []
            for _ in range(blocks):
                join = Join(now, kept.pop(), now := width * multiplier, dtype=self.dtype, **kind)
                row.append(nnx.List([join, block(now, now, level)]))
            up.append(nnx.List(row))
        self.down, self.up = nnx.List(down), nnx.List(up)
        self.norm = GroupNorm(now, groups, dtype=self.dtype, **kind)
        self.out = conv(now, out_channels, dims, periodic=periodic, zero=True, dtype=self.param_dtype, **kind)

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.conditioning.null_class

    def __call__(
        self,
        x: Float[Array, "batch *spatial channels"],
        c_noise: Float[Array, " batch"],
        cond: Int[Array, " batch"] | None = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *spatial outputs"]:
        """x (B, *spatial, channels), c_noise (B,), labels (B,) or None -> (B, *spatial, out_channels) in param_dtype.

        `key` turns dropout on. Raises InputError if a spatial size is not a multiple of 2^(levels - 1)."""
        self._check_input(x)
        step = _remat_step if self.remat else _step
        number = 2 * len(self.down) * len(self.down[0]) + len(self.middle)
        keys = iter([None] * number if key is None else jax.random.split(key, number))
        emb = self.conditioning(c_noise, cond)
        h = x.astype(self.dtype)
        if self.fourier:  # of x in full precision: bfloat16 has no fine digits
            waves = fourier_features(x.astype(self.param_dtype), self.fourier)
            h = jnp.concatenate([h, waves.astype(self.dtype)], axis=-1)
        h = self.stem(h)
        kept = []
        for level, row in enumerate(self.down):
            h = h if level == 0 else pool(h)
            for block in row:
                h = step(block, h, emb, next(keys))
                kept.append(h)
        for block in self.middle:
            h = step(block, h, emb, next(keys))
        for row in self.up:
            for join, block in row:
                h = step(block, join(h, kept.pop()), emb, next(keys))
        return self.out(jax.nn.silu(self.norm(h)))

    def _check_input(self, x: Array) -> None:
        if x.ndim != self.dims + 2 or x.shape[-1] != self.channels:
            raise InputError(
                f"x has shape {x.shape}: this U-Net expects (batch, {self.dims} sizes, {self.channels} channels); "
                f"give one example its batch axis with x[None]"
            )
        unit = 2 ** (self.levels - 1)
        if any(size % unit or size == 0 for size in x.shape[1:-1]):
            raise InputError(
                f"x has spatial sizes {x.shape[1:-1]}: a U-Net of {self.levels} levels expects multiples of {unit}; "
                f"pad the data, or give `multipliers` fewer entries"
            )


def _step(block: ResBlock, h: Array, emb: Array, key: Array | None) -> Array:
    return block(h, emb, key)


_remat_step = nnx.remat(_step)


def _check(*, dims: int, levels: int, blocks: int, attention: Sequence[int], dropout: float) -> None:
    if dims not in (1, 2, 3):
        raise InputError(f"dims={dims}: a U-Net has 1, 2 or 3 spatial dimensions")
    if levels < 1 or blocks < 1:
        raise InputError(f"{levels} multipliers and blocks={blocks}: expected at least one of each")
    if strange := sorted(set(attention) - set(range(levels))):
        raise InputError(f"attention at levels {strange}: expected levels from 0 (finest) to {levels - 1}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout}: expected a rate in [0, 1)")
