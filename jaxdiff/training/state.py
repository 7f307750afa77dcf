"""All that a run is: one pytree. Two runs with equal states and equal data do the same from then on, bit for bit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PyTree, UInt

from jaxdiff.training import ema as averages
from jaxdiff.types import PRNGKey


class TrainState(eqx.Module):
    """Everything that a step reads and writes; each leaf is an array.

    `step` counts the updates made. `position` counts the examples consumed, which is where the data stream stands (32
    bits without sign: EDM's longest run shows 2.5e9 images, more than an int32 holds). `key` never changes: a step's
    key is `fold_in(key, step)`. `ema` is None, the averaged parameters, or a tree of such averages. `finite` turns
    False at the first step that is not finite and freezes the rest of the state there, so that steps dispatched before
    anyone looked do no harm.
    """

    step: Int[Array, ""]
    params: PyTree
    opt_state: PyTree
    ema: PyTree
    key: PRNGKey
    position: UInt[Array, ""]
    finite: Bool[Array, ""]


def init(
    key: PRNGKey, params: PyTree, optimizer: optax.GradientTransformation, *, ema: PyTree[averages.Weight] = None
) -> TrainState:
    """The state before step 0; it owns copies of `key` and `params`, so a step may donate it.

    With `ema` (a weight from `jaxdiff.training.ema`, or a tree of them) each average starts as a copy of `params`.
    """
    average = jax.tree.map(lambda weight: averages.start(params), ema, is_leaf=callable)
    parts: Any = (params, optimizer.init(params), average, key)
    params, opt_state, average, key = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), parts)
    return TrainState(jnp.int32(0), params, opt_state, average, key, jnp.uint32(0), jnp.bool_(True))
