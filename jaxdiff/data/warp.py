"""An affine map of an image without jaggies or blur: pad by reflection, double the resolution, read the finer image
bilinearly at the mapped places, and halve it (Karras et al. 2020, "Training GANs with limited data", appendix B).

Both resamplings use the 12 taps h of Daubechies' least asymmetric wavelet with 6 vanishing moments (sym6): h is
orthogonal to its even shifts, sum_k h_k h_{k+2n} = [n = 0], so halving undoes doubling exactly and the identity map is
the identity. Along one axis each is a matrix, made once in NumPy: with U doubling the padded axis and D halving,

    warp(x) = D_y read(U_y x U_x^T) D_x^T.

The margin is static, so that nothing about the map is static: maps are data, and a batch of them is one program."""

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

# Daubechies (1992), "Ten lectures on wavelets", table 6.3 (N = 6), with sum sqrt(2).
SYM6 = np.array(
    [
        0.015404109327027373,
        0.0034907120842174702,
        -0.11799011114819057,
        -0.048311742585633,
        0.4910559419267466,
        0.787641141030194,
        0.3379294217276218,
        -0.07263752278646252,
        -0.021060292512300564,
        0.04472490177066578,
        0.0017677118642428036,
        -0.007800708325034148,
    ]
)
TAPS = len(SYM6)
# The taps' centre of mass is 5.10, not the 5.5 of a symmetric filter: finer cells lie this much (in cells of the image)
# beyond where a symmetric filter would put them, and a map about the image's centre has to know it.
PHASE = (5.5 - float(SYM6 @ np.arange(TAPS)) / float(SYM6.sum())) / 2
PUBLISHED_PHASE = 0.25


def warp(
    image: Float[Array, "height width channels"],
    linear: Float[Array, "2 2"],
    shift: Float[Array, "2"],
    *,
    centred: bool = True,
) -> Float[Array, "height width channels"]:
    """The image that shows at p what `image` has at `linear` (p - shift), p = (x, y) in cells from its centre, y down.

    Beyond the edges stand reflections, max(size - 1, 6) cells wide, and zeros beyond those. `centred=False` takes the
    filter's delay for 1/4 cell, as the published pipeline does, where it is 0.2009: maps are then about a point 0.05
    cells from the centre."""
    height, width, _ = image.shape
    columns, rows = _resampling(width), _resampling(height)
    dtype = exact(image.dtype)
    linear, shift = linear.astype(dtype), shift.astype(dtype)
    fine = _along(rows.double, _along(columns.double, image.astype(dtype), 1), 0)

    # Where the finer cells are read, as a displacement from their own places: exactly zero for the identity.
    phase = PHASE if centred else PUBLISHED_PHASE
    x, y = (jnp.asarray(axis.places + phase, dtype) for axis in (columns, rows))
    turn, move = linear - jnp.eye(2, dtype=dtype), jnp.matmul(linear, shift, precision="highest")
    right = jnp.asarray(columns.own, dtype) + 2 * (turn[0, 0] * x + turn[0, 1] * y[:, None] - move[0])
    down = jnp.asarray(rows.own, dtype)[:, None] + 2 * (turn[1, 0] * x + turn[1, 1] * y[:, None] - move[1])
    read = _bilinear(fine, down, right)
    return _along(rows.halve, _along(columns.halve, read, 1), 0).astype(image.dtype)


def exact(dtype: Any) -> Any:
    """The dtype that images of `dtype` are moved in: float32, or float64."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


class _Axis:
    """The matrices of one axis of `size` cells, and the finer cells that `halve` reads."""

    double: Float64[np.ndarray, "fine size"]  # with a row of zeros at both ends: what lies beyond
    halve: Float64[np.ndarray, "size read"]
    places: Float64[np.ndarray, " read"]  # where they are, in cells from the centre
    own: Float64[np.ndarray, " read"]  # their index in the finer axis

    def __init__(self, size: int):
        margin = max(size - 1, TAPS // 2)  # the filter reaches 6 cells
        padded = np.pad(np.arange(size), margin, mode="reflect")
        cells = np.arange(len(padded))
        taps = np.arange(2 * len(padded))[:, None] - 2 * cells + 5  # finer cell j takes h[j - 2n + 5] of cell n
        spread = np.where((taps >= 0) & (taps < TAPS), SYM6[np.clip(taps, 0, TAPS - 1)], 0.0)
        self.double = np.pad(spread @ (padded[:, None] == np.arange(size)), ((1, 1), (0, 0)))
        j = np.arange(-5, 2 * size + 5)
        taps = j - 2 * np.arange(size)[:, None] + 5
        self.halve = np.where((taps >= 0) & (taps < TAPS), SYM6[np.clip(taps, 0, TAPS - 1)], 0.0)
        self.places = (j + 0.5 - size) / 2
        self.own = j + 2.0 * margin + 1


_resampling = cache(_Axis)


def _along(matrix, image, axis):
    """The matrix applied to one of the two spatial axes."""
    matrix = jnp.asarray(matrix, image.dtype)
    return jnp.einsum(("ij,jwc->iwc", "ij,hjc->hic")[axis], matrix, image, precision="highest")


def _bilinear(image, down, right):
    """The image at fractional indices (rows `down`, columns `right`); its border, of zeros, goes on for ever."""
    height, width, _ = image.shape
    down, right = jnp.clip(down, 0, height - 1), jnp.clip(right, 0, width - 1)
    top, left = (jnp.minimum(jnp.floor(v).astype(jnp.int32), n - 2) for v, n in ((down, height), (right, width)))
    v, u = (down - top.astype(down.dtype))[..., None], (right - left.astype(right.dtype))[..., None]

    def cell(i, j):
        return image.at[top + i, left + j].get(mode="promise_in_bounds")

    return (1 - v) * ((1 - u) * cell(0, 0) + u * cell(0, 1)) + v * ((1 - u) * cell(1, 0) + u * cell(1, 1))
