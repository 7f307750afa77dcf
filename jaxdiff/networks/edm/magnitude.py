"""Layers that preserve magnitude: unit-variance activations go in, unit-variance activations come out, by construction
and not by normalising them (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models",
Secs. 2.3 to 2.5 and appendix B; EDM2). Magnitude means root mean square.

A weight acts as w_hat = w / (|w| sqrt(fan_in)) for each output channel, |w| its magnitude: only its direction counts.
`project` writes the magnitude 1 into the stored weights, which a train step does first (`make_train_step(project=)`):
else they grow, since gradients are orthogonal to them, and learning fades as 1 / |w|.

The parameter of such a layer is named "weight", and nothing else of these networks is; its last axis is the output's.
Magnitudes are computed in float32 at least, whatever the dtype."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

EPSILON = 1e-4  # the paper's: a vector of zeros has magnitude 0
SILU = 0.596  # the magnitude of silu(z), z ~ N(0, 1): sqrt(E[silu(z)^2]) to the paper's three digits


class Buffer(nnx.Variable):
    """An array that belongs to a network but is never trained."""


def exact(dtype: DTypeLike) -> Any:
    """The dtype to compute a magnitude in: float64 for itself, float32 for all others."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def normalize(x: Array, axes: int | Sequence[int]) -> Array:
    """x / (EPSILON + magnitude of x along `axes`) (eq. 66, for weights)."""
    wide, magnitude = _magnitude(x, axes)
    return (wide / (EPSILON + magnitude)).astype(x.dtype)


def _magnitude(x, axes):
    wide = x.astype(exact(x.dtype))
    square = jnp.mean(wide * wide, axis=axes, keepdims=True)
    none = square == 0  # where the square root has no slope
    return wide, jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, square)))


def mp_silu(x: Array) -> Array:
    """silu(x) / 0.596 (eq. 81)."""
    return jax.nn.silu(x) / SILU


def mp_sum(a: Array, b: Array, t: float) -> Array:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2) (eq. 88): unit variance for uncorrelated a and b of unit variance."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_cat(a: Array, b: Array, t: float) -> Array:
    """The channels of a and b side by side (eq. 103), scaled so that a counts (1 - t)^2 and b t^2 of the whole power,
    however many channels each has, and the whole has magnitude 1."""
    (*_, n), (*_, m) = a.shape, b.shape
    whole = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
    return jnp.concatenate([whole / math.sqrt(n) * (1 - t) * a, whole / math.sqrt(m) * t * b], axis=-1)


class MPFourier(nnx.Module):
    """sqrt(2) cos(f c + p) for a number c a row: f ~ 2 pi N(0, 1) and p ~ 2 pi U(0, 1) are drawn once and frozen
    (eq. 75)."""

    def __init__(self, features: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        kind = exact(jnp.dtype(param_dtype))
        self.frequencies = Buffer(2 * math.pi * jax.random.normal(rngs.params(), (features,), kind))
        self.phases = Buffer(2 * math.pi * jax.random.uniform(rngs.params(), (features,), kind))

    def __call__(self, c: Float[Array, " batch"]) -> Float[Array, "batch features"]:
        """c (B,) -> (B, features) in the buffers' dtype."""
        frequencies = self.frequencies[...]
        return math.sqrt(2) * jnp.cos(c.astype(frequencies.dtype)[:, None] * frequencies + self.phases[...])


class MPConv(nnx.Module):
    """A convolution (`kernel=(3, 3)`, zeros around the edge) or a matrix product over the channels (`kernel=()`), with
    no bias, by the weight's direction alone."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int] = (),
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (*kernel, inputs, outputs)
        self.weight = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.dtype(param_dtype)))

    def __call__(
        self, x: Float[Array, "batch *spatial inputs"], gain: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "batch *spatial outputs"]:
        """x (B, *spatial, inputs) -> (B, *spatial, outputs) in x's dtype, times `gain`."""
        w = self.weight[...]
        w = w.astype(exact(w.dtype))
        gain = gain.astype(w.dtype) if isinstance(gain, jax.Array) else gain
        fan_in = math.prod(w.shape[:-1])
        w = (normalize(w, range(w.ndim - 1)) * (gain / math.sqrt(fan_in))).astype(x.dtype)
        if w.ndim == 2:
            return x @ w
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)


class LogVariance(nnx.Module):
    """u(c_noise), the log of the expected loss at a noise level: one linear reading of Fourier features (eq. 21).

    Called like every network, though x and cond are not looked at: u(None, c_noise) -> (B,)."""

    def __init__(self, features: int = 128, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.fourier = MPFourier(features, param_dtype=param_dtype, rngs=rngs)
        self.read = MPConv(features, 1, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: Any, c_noise: Float[Array, " batch"], cond: Any = None) -> Float[Array, " batch"]:
        return self.read(self.fourier(c_noise))[:, 0]


def project(params: PyTree) -> PyTree:
    """`params` with every "weight" brought to magnitude 1 for each output channel (one of zeros stays), and all else as
    it is.

    The network computes the same with them, up to what EPSILON is worth (1e-4 of the output for weights near magnitude
    1); projecting again changes nothing."""

    def leaf(path, w):
        if jax.tree_util.keystr(path[-1:], simple=True) != "weight":
            return w
        wide, magnitude = _magnitude(w, range(w.ndim - 1))
        return (wide / jnp.where(magnitude == 0, 1, magnitude)).astype(w.dtype)

    return jax.tree_util.tree_map_with_path(leaf, params)
