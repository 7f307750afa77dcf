"""Guidance without a classifier: two beliefs make a third, D = D_null + weight (D - D_null)."""

from typing import Any

import jax
from jaxtyping import Array

from jaxdiff.numerics import as_array, cast, concrete, partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser


def classifier_free(denoise: Denoiser, null: Denoiser, weight: float | Array) -> Denoiser:
    """Ho and Salimans (2022): weight 1 is `denoise`, 0 is `null`, more than 1 is away from `null`.

    (The paper's w is weight - 1.) When the weight is known to be 1 or 0 only the one denoiser is called."""
    if concrete(weight) and weight == 1:
        return denoise
    if concrete(weight) and weight == 0:
        return null
    return partial(_mix, partial(denoise), partial(null), as_array(weight))


def _mix(denoise, null, weight, x, t):
    return jax.tree.map(lambda d, n: n + cast(weight, d.dtype) * (d - n), denoise(x, t), null(x, t))


def interval(
    process: Gaussian, inside: Denoiser, outside: Denoiser, *, low: float = 0.0, high: float = float("inf")
) -> Denoiser:
    """`inside` while sigma / alpha is in (low, high], else `outside` (Kynkaanniemi et al. 2024): guide only where it
    helps.

    Only the chosen one is called, as long as all examples of a batch share their time."""
    return partial(_interval, process, partial(inside), partial(outside), (as_array(low), as_array(high)))


def _interval(process, inside, outside, bounds, x, t) -> Any:
    alpha, sigma = process.scales(t)
    low, high = cast(bounds, alpha.dtype)
    chosen = (sigma > low * alpha) & (sigma <= high * alpha)
    return jax.lax.cond(chosen, lambda: inside(x, t), lambda: outside(x, t))
