"""Averages of parameters, ema <- (1 - w) ema + w params, differ only in their weight w(step, seen, batch).

So a kind of average is one function, and the averaged parameters are the whole carry. A weight of 1 in the first step
drops the initial parameters: such an average needs no later correction of bias. `seen` counts the examples consumed
*before* the step, `batch` those of the step. Wherever a run takes a kind of average (`ema=`) it takes a tree of them as
well, `widths(0.05, 0.10)` say, and then `TrainState.ema` is that tree with an average in each place. References: Karras
et al. 2022 (EDM), training loop; Karras et al. 2024 (EDM2), Sec. 3.1.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxdiff.errors import InputError

Weight = Callable[[Int[Array, ""], Float[Array, ""], Float[Array, ""]], Float[Array, ""]]
"""(step, examples seen before it, examples in it) -> w in [0, 1], the weight of the newest parameters."""


def half_life(examples: float, *, ramp: float | None = 0.05) -> Weight:
    """EDM's average: w = 1 - 0.5^(batch / h) with h = min(examples, ramp * seen), so `examples` later a weight has
    halved.

    `ramp` shortens the half-life early on (w = 1 in step 0); None keeps it constant, and then the initial parameters
    keep their share 0.5^(seen / examples). Raises InputError unless both are positive.
    """
    _positive("half_life", examples=examples, ramp=1.0 if ramp is None else ramp)

    def weight(step, seen, batch):
        h = jnp.full_like(seen, examples) if ramp is None else jnp.minimum(examples, ramp * seen)
        return -jnp.expm1(-math.log(2.0) * batch / jnp.maximum(h, 1e-8))  # h = 0 in step 0

    return weight


def decay(beta: float) -> Weight:
    """Constant decay per step without bias: after n steps the weight of step i is beta^(n-1-i) (1 - beta) / (1 -
    beta^n).

    Kept as its own running form, w = (1 - beta) / (1 - beta^(step + 1)). Raises InputError unless 0 < beta < 1.
    """
    if not 0.0 < beta < 1.0:
        raise InputError(f"decay got beta = {beta}, expected 0 < beta < 1: 0.999 averages over about 1000 steps")
    rate = math.log(beta)

    def weight(step, seen, batch):
        w = math.expm1(rate) / jnp.expm1(rate * (step + 1).astype(seen.dtype))
        return jnp.where(step == 0, 1.0, w)  # exactly: the initial parameters leave no trace

    return weight


def power(gamma: float) -> Weight:
    """EDM2's power function: w = 1 - (seen / (seen + batch))^(gamma + 1), an average with weights like t^gamma.

    Its width grows with the run, which is why such averages can be made anew afterwards (`training.post_hoc`). Raises
    InputError unless gamma > -1 (0 is the plain mean).
    """
    if not gamma > -1.0:
        raise InputError(f"power got gamma = {gamma}, expected gamma > -1: EDM2 uses 6.94 (10 %) and 16.97 (5 %)")

    def weight(step, seen, batch):
        return -jnp.expm1((gamma + 1.0) * jnp.log1p(-batch / (seen + batch)))

    return weight


WIDEST = 1 / math.sqrt(12)  # of the plain mean, gamma = 0


def sigma_rel(gamma: float) -> float:
    """The relative width of the power function's weights: their standard deviation over the length of the run,
    sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def exponent(width: float) -> float:
    """The gamma whose `sigma_rel` is `width`: the largest root of g^3 + 7 g^2 + (16 - width^-2) g + 12 - width^-2.

    Raises InputError unless 0 < width < 1 / sqrt(12) = .2887.
    """
    if not 0 < width < WIDEST:
        raise InputError(
            f"an average's relative width is {width}, expected between 0 and {WIDEST:.4f}: .05 to .25 of the run"
        )
    power = width**-2
    roots = np.roots([1, 7, 16 - power, 12 - power])
    return float(np.max(roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real))


def widths(*relative: float) -> dict[str, Weight]:
    """Power-function averages of several relative widths, each under its width as a word: {"0.05": ..., "0.1": ...}."""
    return {str(float(width)): power(exponent(width)) for width in relative}


def start(params: PyTree) -> PyTree:
    """The average before step 0: `params`, in float32 where they are shorter (a bfloat16 average would stand still)."""
    return jax.tree.map(lambda p: jnp.asarray(p, wide(p.dtype)), params)


def update(average: PyTree, params: PyTree, w: Float[Array, ""]) -> PyTree:
    """(1 - w) average + w params, leaf by leaf, in the average's dtype; exactly `params` where w = 1."""

    def mix(a, p):
        share = w.astype(a.dtype)
        return (1 - share) * a + share * p.astype(a.dtype)

    return jax.tree.map(mix, average, params)


def wide(dtype: Any) -> Any:
    """The dtype to sum in: float32 for the shorter floats, any other dtype itself."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def _positive(what, **values):
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{what} got {name} = {value}, expected a positive number")
