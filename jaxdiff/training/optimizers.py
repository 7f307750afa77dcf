"""Optax is the optimizer; here is only what the papers write in examples and optax counts in updates."""

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


def clipped(optimizer: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    """`optimizer` fed with gradients g * min(1, norm / |g|), |g| the global norm; InputError unless norm > 0."""
    if not norm > 0:
        raise InputError(
            f"clipped got norm = {norm}, expected a positive gradient norm (leave clipping out to have none)"
        )
    return optax.chain(optax.clip_by_global_norm(norm), optimizer)
