"""Optax is the optimizer; here is only what the papers write in examples and optax counts in updates, and what they do
to gradients."""

import jax
import jax.numpy as jnp
import optax

from jaxdiff.errors import InputError


def ramp(peak: float, examples: int, batch: int, *, from_zero: bool = False) -> optax.Schedule:
    """Linear warm-up over `examples`, then constant: lr = peak * min(n / examples, 1).

    n counts the examples seen up to and *including* the step, (count + 1) * batch, so that every step learns. With
    `from_zero=True` it is EDM's own (Karras et al. 2022), n = count * batch: the first step has lr 0 and changes
    nothing but the optimizer's moments. `examples=0` is constant. Raises InputError for a negative `examples` or a
    `batch` below 1.
    """
    if examples < 0 or batch < 1:
        raise InputError(f"ramp got examples = {examples} and batch = {batch}, expected examples >= 0 and batch >= 1")

    def schedule(count):
        if examples == 0:
            return peak
        return peak * jnp.minimum(jnp.asarray(count + (0 if from_zero else 1), jnp.float32) * (batch / examples), 1.0)

    return schedule


def inverse_sqrt(
    peak: float, batch: int, *, flat: int = 70_000, examples: int = 10_000_000, from_zero: bool = False
) -> optax.Schedule:
    """EDM2's learning rate (Karras et al. 2024, eq. 67): peak / sqrt(max(n / (flat batch), 1)) min(n / examples, 1).

    n counts examples as in `ramp`, whose options `examples` (of warm-up) and `from_zero` these are; `flat` is how many
    updates pass before it falls, and four times as many make half of it. Raises InputError for a `flat` below 1, and as
    `ramp` does.
    """
    if flat < 1:
        raise InputError(f"inverse_sqrt got flat = {flat}, expected 1 or more updates before the rate falls")
    rise = ramp(peak, examples, batch, from_zero=from_zero)

    def schedule(count):
        updates = jnp.asarray(count + (0 if from_zero else 1), jnp.float32)
        return rise(count) / jnp.sqrt(jnp.maximum(updates / flat, 1.0))

    return schedule


def mended(optimizer: optax.GradientTransformation, limit: float = 1e5) -> optax.GradientTransformation:
    """`optimizer` fed with gradients in which NaN is 0 and an infinity is +-limit, as EDM's training loop does.

    A train step stops at such gradients unless it is made with `mends=True`: which is the better choice except where
    float16 overflows now and then. Raises InputError unless limit > 0.
    """
    if not limit > 0:
        raise InputError(f"mended got limit = {limit}, expected a positive number to stand for infinity")

    def mend(updates, params=None):
        return jax.tree.map(lambda g: jnp.nan_to_num(g, nan=0.0, posinf=limit, neginf=-limit), updates)

    return optax.chain(optax.stateless(mend), optimizer)


def clipped(optimizer: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """`optimizer` fed with gradients g * min(1, norm / |g|), |g| the global norm; InputError unless norm > 0."""
    if not norm > 0:
        raise InputError(
            f"clipped got norm = {norm}, expected a positive gradient norm (leave clipping out to have none)"
        )
    return optax.chain(optax.clip_by_global_norm(norm), optimizer)
