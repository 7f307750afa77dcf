"""Halving and doubling images by a short filter f, separably, zeros beyond the edge (Karras et al. 2022, appendix F).

Down is y[j] = sum_k f[k] x[2j + k - p] with sum f = 1, and up, its transpose times 2 an axis, is y[o] =
2 sum_i f[o + p - 2i] x[i], p = len(f) / 2 - 1. The taps (1, 1) are the mean of cells two by two and their repeat; (1,
3, 3, 1) is the smoother filter of NCSN++. Both are written as slices and sums, the polyphase form: compilers for the
CPU are slow at grouped convolutions, and on a TPU a depthwise one leaves the matrix unit idle."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.networks.layers import pool, repeat

Taps = tuple[float, ...]


def taps_of(values: Sequence[float]) -> Taps:
    """`values` as taps with the sum 1; an even number of them, so that a size of n becomes n / 2 or 2n."""
    total = float(sum(values))
    if len(values) < 2 or len(values) % 2 or not total:
        raise InputError(f"resampling filter {tuple(values)}: expected an even number of taps with a sum other than 0")
    return tuple(float(value) / total for value in values)


@dataclass(frozen=True)
class Down:
    """Halve the height and width of x (B, H, W, C); without `pad` the border cells that the filter lacks are taken
    from x itself, which must be wider by len(taps) / 2 - 1 cells on every side."""

    taps: Taps
    pad: bool = True

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch half quarter channels"]:
        if self.taps == (0.5, 0.5):
            return pool(x)
        return _down(_down(x, 1, self.taps, self.pad), 2, self.taps, self.pad)


@dataclass(frozen=True)
class Up:
    """Double the height and width of x (B, H, W, C)."""

    taps: Taps

    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch double twice channels"]:
        if self.taps == (0.5, 0.5):
            return repeat(x)
        return _up(_up(x, 1, self.taps), 2, self.taps)


def _down(x, axis, taps, pad):
    reach = len(taps) // 2 - 1
    if pad:
        x = _pad(x, axis, reach)
    half = (x.shape[axis] - len(taps)) // 2 + 1
    at = [_slice(x, axis, k, k + 2 * half, 2) for k in range(len(taps))]
    return _total(tap * part for tap, part in zip(taps, at, strict=True))


def _up(x, axis, taps):
    size, half = x.shape[axis], len(taps) // 2
    x = _pad(x, axis, half // 2)
    phases = []
    for phase in (0, 1):  # y[2j + phase] reads x[i] by the tap 2 (j - i) + phase + p
        first = (phase + half - 1) % 2
        shift = (phase + half - 1) // 2  # the furthest i above j that a tap reaches back from
        parts = [
            2 * taps[first + 2 * n] * _slice(x, axis, half // 2 + shift - n, half // 2 + shift - n + size, 1)
            for n in range(half)
        ]
        phases.append(_total(parts))
    y = jnp.stack(phases, axis=axis + 1)
    return y.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _pad(x, axis, reach):
    return jnp.pad(x, [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]) if reach else x


def _slice(x, axis, start, stop, step):
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def _total(parts):
    first, *rest = parts
    for part in rest:
        first = first + part
    return first
