"""Inception-v3 (Szegedy et al. 2016) as TensorFlow's graph of 2015-12-05 computes it: the network whose 2048 pooled
activations became the features of generative models (Heusel et al. 2017). It differs from later Inceptions in that

- images are resized to 299 x 299 bilinearly with cell i at coordinate i (not i + 1/2), and mapped by (x - 128) / 128;
- a mean pool at an edge divides by the cells that exist;
- the last block pools by the maximum where the others take the mean.

Modules have the names of the published PyTorch state dicts ("Mixed_5b.branch5x5_1.conv"). It is only to be evaluated:
normalisations use their stored statistics, and there is no classifier on top."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

SIZE = 299  # cells of a side
FEATURES = 2048
EPSILON = 1e-3  # of the graph's normalisations


class Unit(nnx.Module):
    """relu(normalise(convolve(x))); cells outside the image are zeros, or not needed where `inside` or strided."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        *,
        inside: bool = False,
        rngs: nnx.Rngs,
    ):
        padding = "VALID" if inside or stride > 1 else "SAME"
        exact = {"padding": padding, "use_bias": False, "precision": "highest"}  # the same features on every device
        self.conv = nnx.Conv(inputs, outputs, kernel, stride, **exact, rngs=rngs)
        self.bn = Norm(outputs)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        """x (B, H, W, inputs) -> (B, H', W', outputs)."""
        return jax.nn.relu(self.bn(self.conv(x)))


class Norm(nnx.Module):
    """(x - mean) / sqrt(var + .001) * scale + bias, a channel at a time, by stored statistics."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "*cells channels"]) -> Float[Array, "*cells channels"]:
        """x (..., C) -> the same shape."""
        return (x - self.mean[...]) * (self.scale[...] * jax.lax.rsqrt(self.var[...] + EPSILON)) + self.bias[...]


class BlockA(nnx.Module):
    """35 x 35 cells: 1 x 1, 5 x 5, two 3 x 3 and a pool, side by side."""

    def __init__(self, inputs: int, pooled: int, *, rngs: nnx.Rngs):
        unit = partial(Unit, rngs=rngs)
        self.branch1x1 = unit(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = unit(inputs, 48), unit(48, 64, (5, 5))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = unit(inputs, 64), unit(64, 96, (3, 3))
        self.branch3x3dbl_3 = unit(96, 96, (3, 3))
        self.branch_pool = unit(inputs, pooled)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch height width outputs"]:
        """x (B, H, W, inputs) -> (B, H, W, 224 + pooled)."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join(self.branch1x1(x), five, three, self.branch_pool(_mean(x)))


class BlockB(nnx.Module):
    """35 x 35 to 17 x 17 cells."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        unit = partial(Unit, rngs=rngs)
        self.branch3x3 = unit(inputs, 384, (3, 3), 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = unit(inputs, 64), unit(64, 96, (3, 3))
        self.branch3x3dbl_3 = unit(96, 96, (3, 3), 2)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        """x (B, H, W, inputs) -> (B, H // 2, W // 2, 480 + inputs)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return _join(self.branch3x3(x), double, _halve(x))


class BlockC(nnx.Module):
    """17 x 17 cells: 7 x 7 convolutions, once and twice, as rows and columns."""

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        unit, row, column = partial(Unit, rngs=rngs), (1, 7), (7, 1)
        self.branch1x1 = unit(inputs, 192)
        self.branch7x7_1, self.branch7x7_2 = unit(inputs, width), unit(width, width, row)
        self.branch7x7_3 = unit(width, 192, column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = unit(inputs, width), unit(width, width, column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = unit(width, width, row), unit(width, width, column)
        self.branch7x7dbl_5 = unit(width, 192, row)
        self.branch_pool = unit(inputs, 192)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch height width outputs"]:
        """x (B, H, W, inputs) -> (B, H, W, 768)."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return _join(self.branch1x1(x), once, twice, self.branch_pool(_mean(x)))


class BlockD(nnx.Module):
    """17 x 17 to 8 x 8 cells."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs):
        unit = partial(Unit, rngs=rngs)
        self.branch3x3_1, self.branch3x3_2 = unit(inputs, 192), unit(192, 320, (3, 3), 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = unit(inputs, 192), unit(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = unit(192, 192, (7, 1)), unit(192, 192, (3, 3), 2)

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch rows columns outputs"]:
        """x (B, H, W, inputs) -> (B, H // 2, W // 2, 512 + inputs)."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return _join(self.branch3x3_2(self.branch3x3_1(x)), seven, _halve(x))


class BlockE(nnx.Module):
    """8 x 8 cells: rows and columns of three side by side, and a pool by the mean or, where `top`, the maximum."""

    def __init__(self, inputs: int, *, top: bool, rngs: nnx.Rngs):
        unit, row, column = partial(Unit, rngs=rngs), (1, 3), (3, 1)
        self.branch1x1 = unit(inputs, 320)
        self.branch3x3_1 = unit(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = unit(384, 384, row), unit(384, 384, column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = unit(inputs, 448), unit(448, 384, (3, 3))
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = unit(384, 384, row), unit(384, 384, column)
        self.branch_pool = unit(inputs, 192)
        self.top = top

    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch height width outputs"]:
        """x (B, H, W, inputs) -> (B, H, W, 2048)."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = nnx.max_pool(x, (3, 3), (1, 1), "SAME") if self.top else _mean(x)
        return _join(
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(pooled),
        )


class Inception(nnx.Module):
    """Images (B, H, W, 3) of grey levels 0..255 -> their 2048 features (B, 2048)."""

    def __init__(self, *, rngs: nnx.Rngs):
        unit = partial(Unit, rngs=rngs)
        self.Conv2d_1a_3x3 = unit(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = unit(32, 32, (3, 3), inside=True)
        self.Conv2d_2b_3x3 = unit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = unit(64, 80)
        self.Conv2d_4a_3x3 = unit(80, 192, (3, 3), inside=True)
        self.Mixed_5b = BlockA(192, 32, rngs=rngs)
        self.Mixed_5c = BlockA(256, 64, rngs=rngs)
        self.Mixed_5d = BlockA(288, 64, rngs=rngs)
        self.Mixed_6a = BlockB(288, rngs=rngs)
        self.Mixed_6b = BlockC(768, 128, rngs=rngs)
        self.Mixed_6c = BlockC(768, 160, rngs=rngs)
        self.Mixed_6d = BlockC(768, 160, rngs=rngs)
        self.Mixed_6e = BlockC(768, 192, rngs=rngs)
        self.Mixed_7a = BlockD(768, rngs=rngs)
        self.Mixed_7b = BlockE(1280, top=False, rngs=rngs)
        self.Mixed_7c = BlockE(2048, top=True, rngs=rngs)

    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch 2048"]:
        """x (B, H, W, 3) of any size in 0..255 -> (B, 2048), the mean over the last 8 x 8 cells."""
        x = (resize(x, SIZE, SIZE) - 128.0) / 128.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return jnp.mean(x, axis=(1, 2))


def resize(
    x: Float[Array, "batch height width channels"], rows: int, columns: int
) -> Float[Array, "batch rows columns channels"]:
    """TensorFlow 1's bilinear resize: cell i of the result is read at coordinate i * (old size / new size)."""
    down, across = (jnp.asarray(_reading(n, m), x.dtype) for n, m in ((x.shape[1], rows), (x.shape[2], columns)))
    return jnp.einsum("ih,jw,bhwc->bijc", down, across, x, precision="highest")


def _reading(size, wanted):
    """The weights of `size` cells in each of the `wanted`."""
    place = np.arange(wanted, dtype=np.float32) * (np.float32(size) / np.float32(wanted))
    first = np.floor(place).astype(int)
    share = (place - first)[:, None]
    one, next_one = (np.arange(size) == np.minimum(i, size - 1)[:, None] for i in (first, first + 1))
    return (1 - share) * one + share * next_one


def _halve(x):
    return nnx.max_pool(x, (3, 3), (2, 2))


def _mean(x):
    return nnx.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _join(*branches):
    return jnp.concatenate(branches, axis=-1)
