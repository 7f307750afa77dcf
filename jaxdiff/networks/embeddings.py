"""How a network hears the noise level and the class.

The noise level arrives as c_noise, a real number of order 1 (ln(sigma / alpha) / 4 by default: EDM's sigma from 0.002
to 80 is -1.55 to 1.10; a time in [0, 1] fits as well). Its embedding is [cos 2 pi f c, sin 2 pi f c] at geometric
frequencies f. The lowest, 1/16 cycle a unit, is monotone over |c| < 4, so no two levels look alike; the highest, 8
cycles a unit, has a period of 1/8, half a unit of ln(sigma / alpha): steeper, it would be noise to the network
(Tancik et al. 2020; EDM's random features, scale 16, are made for larger networks, and DDPM's frequencies below 1 for
c_noise up to 1000).

Labels are int32 in [0, num_classes]. The value num_classes is the *null class*, the unconditional row: training
replaces labels by it with some probability, guidance evaluates it, and `cond=None` means it. A label outside the
range gives NaN."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxdiff.errors import InputError

LOWEST, HIGHEST = 1 / 16, 8.0  # cycles per unit of c_noise


def fourier(
    c_noise: Float[Array, " batch"], features: int, *, lowest: float = LOWEST, highest: float = HIGHEST
) -> Float[Array, "batch features"]:
    """Cosines and sines of c_noise (B,) at features / 2 geometric frequencies, in cycles per unit -> (B,
    features)."""
    if features < 4 or features % 2:
        raise InputError(f"features={features}: a Fourier embedding needs an even number of at least 4")
    if not 0 < lowest < highest:
        raise InputError(f"frequencies from {lowest} to {highest}: expected 0 < lowest < highest, in cycles per unit")
    steps = jnp.linspace(math.log(lowest), math.log(highest), features // 2, dtype=c_noise.dtype)
    angles = 2 * math.pi * c_noise[:, None] * jnp.exp(steps)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Conditioning(nnx.Module):
    """Noise level and class -> one vector (B, features), by which the blocks scale and shift their activations."""

    def __init__(
        self,
        features: int,
        *,
        num_classes: int | None = None,
        frequencies: int = 32,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes={num_classes}: expected at least 1, or None for a network without classes")
        self.num_classes, self.frequencies = num_classes, frequencies
        self.dtype, self.param_dtype = jnp.dtype(dtype), jnp.dtype(param_dtype)
        kind = {"dtype": self.dtype, "param_dtype": self.param_dtype, "rngs": rngs}
        self.hidden = nnx.Linear(2 * frequencies, features, **kind)
        self.out = nnx.Linear(features, features, **kind)
        if num_classes is not None:
            normal = nnx.initializers.normal(0.5)
            self.table = nnx.Param(normal(rngs.params(), (num_classes + 1, features), self.param_dtype))

    @property
    def null_class(self) -> int | None:
        """The label that means "no class" (the last row of the table), or None without classes."""
        return self.num_classes

    def __call__(
        self, c_noise: Float[Array, " batch"], labels: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch features"]:
        """c_noise (B,), labels int (B,) in [0, num_classes] or None for the null class -> (B, features)."""
        wave = fourier(c_noise.astype(self.param_dtype), 2 * self.frequencies)
        h = self.hidden(wave)
        if self.num_classes is None:
            if labels is not None:
                raise InputError(
                    "this network has no classes but got labels: build it with num_classes, or pass cond=None"
                )
        else:
            if labels is None:
                labels = jnp.full(c_noise.shape, self.num_classes, jnp.int32)
            rows = self.table[...].at[labels].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
            h = h + rows.astype(self.dtype)
        return jax.nn.silu(self.out(jax.nn.silu(h)))
