"""ADM, the U-Net of Dhariwal & Nichol (2021), as Karras et al. (2022, appendix F) restate it.

The conditioning vector scales and shifts the activations of every block; all blocks at the listed sizes attend, in
heads of 64 channels; the class enters the conditioning vector last, before its final silu. Every block starts as its
skip, and the output as zero."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, PyTree

from jaxdiff.errors import InputError
from jaxdiff.networks.edm.encoder_decoder import EncoderDecoder, check_options
from jaxdiff.networks.edm.layers import Block, Manner, Positional
from jaxdiff.networks.layers import ZEROS
from jaxdiff.networks.resampling import taps_of

UNIT_FAN_IN = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(inputs)


class DhariwalUNet(EncoderDecoder):
    """x (B, H, W, channels), c_noise (B,), cond -> (B, H, W, out_channels): see `EncoderDecoder.__call__`."""

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        out_channels: int | None = None,
        width: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (32, 16, 8),
        head: int = 64,
        features: int | None = None,
        num_classes: int | None = None,
        augment: int = 0,
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`size` is that of the training images; `attention` lists the sizes at which blocks attend, in heads of
        `head` channels; `features` is the length of the conditioning vector (4 width unless given); `augment` the
        number of augmentation labels."""
        check_options(
            size=size,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            dropout=dropout,
            label_dropout=label_dropout,
            num_classes=num_classes,
            augment=augment,
        )
        features = 4 * width if features is None else features
        manner = Manner(
            epsilon=1e-5,
            skip_scale=1.0,
            first=UNIT_FAN_IN,
            last=ZEROS,
            qkv=UNIT_FAN_IN,
            noisy_bias=True,
            scaled=True,
            project=False,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
            rngs=rngs,
        )
        exact = manner.exact()
        self.map_noise = Positional(width)
        if augment:
            self.map_augment = exact.linear(augment, width, init=ZEROS, use_bias=False)
        self.map_layer0 = exact.linear(width, features)
        self.map_layer1 = exact.linear(features, features)
        if num_classes is not None:
            self.map_label = exact.linear(num_classes, features, init=nnx.initializers.normal(1.0), use_bias=False)

        def block(inputs: int, outputs: int, **options: Any) -> Block:
            return Block(manner, inputs, outputs, features, dropout=dropout, **options)

        def heads(at: int, outputs: int, last: bool) -> int:
            if at and at not in attention:  # 0 is the middle of the network
                return 0
            if outputs % head:
                raise InputError(f"attention on {outputs} channels with heads of {head}: `head` must divide them")
            return outputs // head

        widths = [width * multiplier for multiplier in multipliers]
        self._build(
            channels,
            size,
            widths[0],
            widths,
            blocks,
            manner=manner,
            taps=taps_of((1, 1)),
            block=block,
            heads=heads,
            num_classes=num_classes,
            augment=augment,
            label_dropout=label_dropout,
            remat=remat,
        )
        self.out_norm = exact.norm(widths[0])
        self.out_conv = exact.conv(widths[0], channels if out_channels is None else out_channels, init=manner.last)

    def __call__(
        self,
        x: Float[Array, "batch *sizes channels"],
        c_noise: Float[Array, " batch"],
        cond: PyTree = None,
        *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch *sizes out_channels"]:
        """x (B, H, W, channels), c_noise (B,), cond -> (B, H, W, out_channels) in param_dtype.

        `cond` is None for the null class, labels int (B,) in [0, num_classes] or float (B, num_classes), or {"label":
        labels, "augment": (B, augment)} with either or both. `key` turns dropout on. Raises InputError for another
        number of channels, a height or width that is no multiple of 2^(levels - 1), or a condition that the network
        does not have."""
        return self._walk(x, c_noise, cond, key, embed=self._embed, image=self._image)

    def _embed(self, c_noise, rows, augment):
        emb = self.map_noise(c_noise)
        if augment is not None:
            emb = emb + self.map_augment(augment)
        emb = self.map_layer1(jax.nn.silu(self.map_layer0(emb)))
        if rows is not None:
            emb = emb + self.map_label(rows)
        return jax.nn.silu(emb)

    def _image(self, rung, h, image):
        return self.out_conv(jax.nn.silu(self.out_norm(h))) if rung == self.rungs[0] else None


adm = DhariwalUNet
