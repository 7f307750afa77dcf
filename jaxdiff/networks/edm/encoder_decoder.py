"""The encoder and decoder that DDPM++, NCSN++ and ADM share: levels of residual blocks at sizes halved level by level,
every output of the encoder kept and read once by the decoder, beside its own (concatenated).

`enc` and `dec` are dictionaries by the names of published checkpoints: "32x32_block0", "16x16_down", "8x8_in0". The
size in them is that of the training images; a network takes any height and width that its levels divide."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks.edm.layers import Block, Manner, drop_labels, read_condition, remat_step, step
from jaxdiff.networks.resampling import Down, Taps, Up


class EncoderDecoder(nnx.Module):
    """What the architectures share; each calls `_walk` with an embedding, an image and perhaps a feed of its own."""

    def _build(
        self,
        channels: int,
        size: int,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        *,
        manner: Manner,
        taps: Taps,
        block: Callable[..., Block],
        heads: Callable[[int, int, bool], int],
        num_classes: int | None,
        augment: int,
        label_dropout: float,
        remat: bool,
    ) -> None:
        """`block(inputs, outputs, resize=, heads=)` makes a block; `heads(size, outputs, last)` says in how many
        heads the blocks at `size` attend: `last` is true of all blocks of the encoder, of the last block of a level of
        the decoder."""
        self.channels, self.blocks, self.remat = channels, blocks, remat
        self.num_classes, self.augment, self.label_dropout = num_classes, augment, label_dropout
        self.dtype, self.param_dtype = manner.dtype, manner.param_dtype
        sizes = [size >> level for level in range(len(widths))]
        self.rungs = tuple(f"{at}x{at}" for at in sizes)
        enc: dict[str, Any] = {f"{self.rungs[0]}_conv": manner.conv(channels, stem)}
        now, kept = stem, [stem]
        for level, (rung, at, width) in enumerate(zip(self.rungs, sizes, widths, strict=True)):
            if level:
                enc[f"{rung}_down"] = block(now, now, resize=Down(taps))
                kept.append(now)
            for i in range(blocks):
                enc[f"{rung}_block{i}"] = block(now, width, heads=heads(at, width, True))
                kept.append(now := width)
        dec: dict[str, Any] = {}
        for rung, at, width in reversed(list(zip(self.rungs, sizes, widths, strict=True))):
            if not dec:
                dec[f"{rung}_in0"] = block(now, now, heads=heads(0, now, True))
                dec[f"{rung}_in1"] = block(now, now)
            else:
                dec[f"{rung}_up"] = block(now, now, resize=Up(taps))
            for i in range(blocks + 1):
                dec[f"{rung}_block{i}"] = block(now + kept.pop(), width, heads=heads(at, width, i == blocks))
                now = width
        self.enc, self.dec = nnx.Dict(enc), nnx.Dict(dec)

    @property
    def null_class(self) -> int | None:
        """The label that means "no class": num_classes, or None for a network without classes."""
        return self.num_classes

    def _walk(
        self,
        x: Array,
        c_noise: Array,
        cond: PyTree,
        key: Array | None,
        *,
        embed: Callable[[Array, Array | None, Array | None], Array],
        image: Callable[[str, Array, Any], Any],
        feed: Callable[[str, Array, Array], tuple[Array, Array]] = lambda rung, h, picture: (h, picture),
    ) -> Array:
        """The network on a batch.

        `embed(c_noise, rows, augment)` is the conditioning vector; `feed(rung, h, picture)` what a coarser level of the
        encoder makes of the picture itself; `image(rung, h, image)` what a level of the decoder adds to the output,
        given what coarser levels said."""
        self._check_input(x)
        rows, augment = read_condition(cond, x.shape[0], self.num_classes, self.augment, self.param_dtype)
        levels = len(self.rungs)
        number = levels * (2 * self.blocks + 3) + 1  # the blocks, and label dropout
        keys = iter([None] * number if key is None else jax.random.split(key, number))
        if rows is not None:
            rows = drop_labels(next(keys), self.label_dropout, rows)
        emb = embed(c_noise.astype(self.param_dtype), rows, augment)
        run = remat_step if self.remat else step
        x = x.astype(self.dtype)
        h, picture = self.enc[f"{self.rungs[0]}_conv"](x), x
        kept = [h]
        for level, rung in enumerate(self.rungs):
            if level:
                h = run(self.enc[f"{rung}_down"], h, emb, next(keys))
                h, picture = feed(rung, h, picture)
                kept.append(h)
            for i in range(self.blocks):
                h = run(self.enc[f"{rung}_block{i}"], h, emb, next(keys))
                kept.append(h)
        out: Any = None
        for level, rung in reversed(list(enumerate(self.rungs))):
            for name in ("in0", "in1") if level == levels - 1 else ("up",):
                h = run(self.dec[f"{rung}_{name}"], h, emb, next(keys))
            for i in range(self.blocks + 1):
                h = run(self.dec[f"{rung}_block{i}"], jnp.concatenate([h, kept.pop()], axis=-1), emb, next(keys))
            out = image(rung, h, out)
        return out

    def _check_input(self, x: Array) -> None:
        if x.ndim != 4 or x.shape[-1] != self.channels:
            raise InputError(
                f"x has shape {x.shape}: this network expects (batch, height, width, {self.channels} channels); "
                f"give one example its batch axis with x[None]"
            )
        unit = 2 ** (len(self.rungs) - 1)
        if any(size % unit or size == 0 for size in x.shape[1:3]):
            raise InputError(
                f"x has spatial sizes {x.shape[1:3]}: {len(self.rungs)} levels expect multiples of {unit}; "
                f"pad the data, or give `multipliers` fewer entries"
            )


def check_options(
    *,
    size: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    dropout: float,
    label_dropout: float,
    num_classes: int | None,
    augment: int,
) -> None:
    """Raise InputError for options that make no network."""
    levels = len(multipliers)
    if levels < 1 or blocks < 1:
        raise InputError(f"{levels} multipliers and blocks={blocks}: expected at least one of each")
    unit = 2 ** (levels - 1)
    if size < unit or size % unit:
        raise InputError(f"size={size}: {levels} levels expect a multiple of {unit}; give `multipliers` fewer entries")
    sizes = [size >> level for level in range(levels)]
    if strange := sorted(set(attention) - set(sizes)):
        raise InputError(f"attention at sizes {strange}: expected some of the levels' sizes {sizes}")
    if not (0 <= dropout < 1 and 0 <= label_dropout < 1):
        raise InputError(f"dropout={dropout} and label_dropout={label_dropout}: expected rates in [0, 1)")
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes={num_classes}: expected at least 1, or None for a network without classes")
    if augment < 0:
        raise InputError(f"augment={augment}: expected the number of augmentation labels, 0 for none")
