"""DDPM++ and NCSN++, the U-Nets of Song et al. (2021), as Karras et al. (2022, appendix F) restate them.

Both are residual blocks whose sums are scaled by sqrt(1/2), one attention head, and a conditioning vector that only
shifts activations. DDPM++ hears the noise level by positional frequencies and resamples by means and repeats. NCSN++
hears it by random Fourier features, resamples by the filter (1, 3, 3, 1), and feeds the image into every level of the
encoder by strided convolutions (the residual form). The skip forms feed it by means and a 1 x 1 convolution, and read
an image off every level of the decoder, which sum to the output."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, PyTree

from jaxdiff.networks.edm.encoder_decoder import EncoderDecoder, check_options
from jaxdiff.networks.edm.layers import Block, Manner, Positional, RandomFourier
from jaxdiff.networks.resampling import Down, Taps, Up, taps_of

ROOT_HALF = math.sqrt(0.5)


def _xavier(gain: float):
    return nnx.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


@dataclass(frozen=True)
class Feed:
    """How the picture enters the coarser levels: a layer by the name `name` in the encoder, and mix(layer, taps, h,
    picture) -> (h, picture). With `follows`, the picture has as many channels as the level after it."""

    name: str
    make: Callable[..., nnx.Module]
    mix: Callable[..., tuple[Array, Array]]
    follows: bool


def _skip_layer(manner: Manner, channels: int, width: int, taps: Taps) -> nnx.Module:
    return manner.linear(channels, width)


def _skip_mix(layer, taps, h, picture):
    picture = Down(taps)(picture)
    return h + layer(picture), picture


def _residual_layer(manner: Manner, channels: int, width: int, taps: Taps) -> nnx.Module:
    return manner.conv(channels, width, padding=len(taps) // 2)  # a border for the filter, which then pads nothing


def _residual_mix(layer, taps, h, picture):
    picture = (h + Down(taps, pad=False)(layer(picture))) * ROOT_HALF
    return picture, picture


SKIP = Feed("aux_skip", _skip_layer, _skip_mix, follows=False)
RESIDUAL = Feed("aux_residual", _residual_layer, _residual_mix, follows=True)


class SongUNet(EncoderDecoder):
    """x (B, H, W, channels), c_noise (B,), cond -> (B, H, W, out_channels): see `EncoderDecoder.__call__`."""

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        out_channels: int | None = None,
        width: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        features: int | None = None,
        noise: Callable[..., Any] = Positional,
        noise_features: int | None = None,
        num_classes: int | None = None,
        augment: int = 0,
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        taps: Sequence[float] = (1, 1),
        feed: Feed | None = None,
        progressive: bool = False,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`size` is that of the training images; `attention` lists the sizes at which blocks attend; `features` is the
        length of the conditioning vector (4 width unless given), `noise(noise_features, rngs=)` the embedding of
        c_noise (width features unless given); `feed` the picture's way into the encoder; `progressive` sums an image
        of every level of the decoder; `augment` the number of augmentation labels."""
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
        noise_features = width if noise_features is None else noise_features
        self.taps, self.feed, self.progressive = taps_of(taps), feed, progressive
        manner = Manner(
            epsilon=1e-6,
            skip_scale=ROOT_HALF,
            first=_xavier(1.0),
            last=_xavier(1e-5),
            qkv=_xavier(math.sqrt(0.2)),
            noisy_bias=False,
            scaled=False,
            project=True,
            dtype=jnp.dtype(dtype),
            param_dtype=jnp.dtype(param_dtype),
            rngs=rngs,
        )
        exact = manner.exact()
        self.map_noise = noise(noise_features, rngs=rngs)
        if num_classes is not None:
            self.map_label = exact.linear(num_classes, noise_features)
        if augment:
            self.map_augment = exact.linear(augment, noise_features, use_bias=False)
        self.map_layer0 = exact.linear(noise_features, features)
        self.map_layer1 = exact.linear(features, features)

        def block(inputs: int, outputs: int, **options: Any) -> Block:
            return Block(manner, inputs, outputs, features, dropout=dropout, **options)

        def heads(at: int, outputs: int, last: bool) -> int:
            return int(last and (at == 0 or at in attention))  # 0 is the middle of the network

        widths = [width * multiplier for multiplier in multipliers]
        self._build(
            channels,
            size,
            width,
            widths,
            blocks,
            manner=manner,
            taps=self.taps,
            block=block,
            heads=heads,
            num_classes=num_classes,
            augment=augment,
            label_dropout=label_dropout,
            remat=remat,
        )
        picture = channels
        for rung, below in zip(self.rungs[1:], widths[:-1], strict=True):
            if feed is not None:
                self.enc[f"{rung}_{feed.name}"] = feed.make(manner, picture, below, self.taps)
                picture = below if feed.follows else picture
        out_channels = channels if out_channels is None else out_channels
        for rung, now in list(zip(self.rungs, widths, strict=True))[:: 1 if progressive else len(widths)]:
            self.dec[f"{rung}_aux_norm"] = exact.norm(now)
            self.dec[f"{rung}_aux_conv"] = exact.conv(now, out_channels, init=manner.last)

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
        return self._walk(x, c_noise, cond, key, embed=self._embed, image=self._image, feed=self._feed)

    def _embed(self, c_noise, rows, augment):
        emb = self.map_noise(c_noise)
        emb = jnp.roll(emb, emb.shape[-1] // 2, axis=-1)  # [sin, cos], the order of the checkpoints
        if rows is not None:
            emb = emb + self.map_label(rows * math.sqrt(rows.shape[-1]))
        if augment is not None:
            emb = emb + self.map_augment(augment)
        return jax.nn.silu(self.map_layer1(jax.nn.silu(self.map_layer0(emb))))

    def _feed(self, rung, h, picture):
        if self.feed is None:
            return h, picture
        return self.feed.mix(self.enc[f"{rung}_{self.feed.name}"], self.taps, h, picture)

    def _image(self, rung, h, image):
        if not (self.progressive or rung == self.rungs[0]):
            return None
        now = self.dec[f"{rung}_aux_conv"](jax.nn.silu(self.dec[f"{rung}_aux_norm"](h)))
        return now if image is None else Up(self.taps)(image) + now


def ddpmpp(
    channels: int,
    size: int,
    *,
    out_channels: int | None = None,
    width: int = 128,
    multipliers: Sequence[int] = (2, 2, 2),
    blocks: int = 4,
    attention: Sequence[int] = (16,),
    features: int | None = None,
    num_classes: int | None = None,
    augment: int = 0,
    dropout: float = 0.1,
    label_dropout: float = 0.0,
    taps: Sequence[float] = (1, 1),
    input_skip: bool = False,
    output_skip: bool = False,
    remat: bool = False,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> SongUNet:
    """DDPM++ (Song et al. 2021): positional embedding, means and repeats; options as in `SongUNet`.

    `input_skip` feeds the picture into every level of the encoder by a 1 x 1 convolution, `output_skip` sums an image
    of every level of the decoder. The CIFAR-10 network of Karras et al. (2022) is the default with dropout .13 and
    augment 9, the 64 x 64 ones have multipliers (1, 2, 2, 2)."""
    return SongUNet(
        channels,
        size,
        out_channels=out_channels,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        features=features,
        noise=positional,
        num_classes=num_classes,
        augment=augment,
        dropout=dropout,
        label_dropout=label_dropout,
        taps=taps,
        feed=SKIP if input_skip else None,
        progressive=output_skip,
        remat=remat,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


def ncsnpp(
    channels: int,
    size: int,
    *,
    out_channels: int | None = None,
    width: int = 128,
    multipliers: Sequence[int] = (2, 2, 2),
    blocks: int = 4,
    attention: Sequence[int] = (16,),
    features: int | None = None,
    num_classes: int | None = None,
    augment: int = 0,
    dropout: float = 0.1,
    label_dropout: float = 0.0,
    taps: Sequence[float] = (1, 3, 3, 1),
    input_skip: bool = False,
    output_skip: bool = False,
    remat: bool = False,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs,
) -> SongUNet:
    """NCSN++ (Song et al. 2021): 2 width random Fourier features, the filter (1, 3, 3, 1), and the picture fed into
    the encoder by strided convolutions, or with `input_skip` by 1 x 1 ones; options as in `ddpmpp`."""
    return SongUNet(
        channels,
        size,
        out_channels=out_channels,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        features=features,
        noise=random_fourier,
        noise_features=2 * width,
        num_classes=num_classes,
        augment=augment,
        dropout=dropout,
        label_dropout=label_dropout,
        taps=taps,
        feed=SKIP if input_skip else RESIDUAL,
        progressive=output_skip,
        remat=remat,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


def positional(features: int, *, rngs: nnx.Rngs) -> Positional:
    """DDPM++'s embedding of the noise level: frequencies from 1 down to 1 / 10000 itself."""
    return Positional(features, endpoint=True)


def random_fourier(features: int, *, rngs: nnx.Rngs) -> RandomFourier:
    """NCSN++'s embedding of the noise level: frequencies of standard deviation 16."""
    return RandomFourier(features, rngs=rngs)
