"""Classifier-free guidance of tokens (D-CFG; Schiff et al. 2024, section 3.1): of a law with the label and one without,

p^gamma proportional to p(. | y)^gamma p(.)^(1 - gamma), each token on its own.

Two laws can be tempered so. `tempered` takes those of z_s given z_t, what a reverse step draws from: a kernel becomes a
kernel. It is the published rule for uniform noise. `tempered_belief` takes those of the clean token x0: a denoiser
becomes a denoiser, for any sampler and any noise. It is the published rule for the absorbing process, where it leaves
alone how many tokens are shown in a step; to temper its whole kernel would change that.

gamma = 1 is the conditional law and 0 the other, exactly. Any other gamma is exact for the step alone: many steps do
not add up to p(x | y)^gamma p(x)^(1 - gamma), and do not come nearer as they become more (docs/guidance.md). One token
by itself is the exception: by `tempered_belief` it has that law, whatever the noise and the steps."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.beliefs import LeaveOneOut, believe, leave_one_out
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial, require
from jaxdiff.processes.categorical import Categorical, LogProbs, Tokens, normalized
from jaxdiff.types import Denoiser, Time

Kernel = Callable[[Denoiser, Tokens, Time, Time], LogProbs]
"""kernel(denoise, z, t, s) -> log p(z_s^l | z_t = z), (..., states): a pytree, the reverse step of a sampler."""


def tempered(kernel: Kernel, null: Denoiser, gamma: float | Array) -> Kernel:
    """p(z_s | z_t, y)^gamma p(z_s | z_t)^(1 - gamma), normalised token by token: `kernel` of the denoiser that it is
    called with, the conditional one, and of `null`, the other.

    What either holds impossible stays impossible. A gamma known to be 1 or 0 calls the one denoiser alone. Raises
    InputError for a gamma that is not finite."""
    gamma = finite(gamma)
    if is_known(gamma, 1):
        return partial(kernel)
    if is_known(gamma, 0):
        return partial(_of_null, partial(kernel), partial(null))
    return partial(_tempered, partial(kernel), partial(null), gamma)


def _of_null(kernel, null, denoise, z, t, s):
    return kernel(null, z, t, s)


def _tempered(kernel, null, gamma, denoise, z, t, s):
    log_c = kernel(denoise, z, t, s)
    return normalized(between(log_c, kernel(null, z, t, s), gamma), log_c)


def tempered_belief(process: Categorical, denoise: Denoiser, null: Denoiser, gamma: float | Array) -> Denoiser:
    """p(x0 | z_t, y)^gamma p(x0 | z_t)^(1 - gamma), normalised token by token, said as a `LeaveOneOut`.

    To temper the posteriors or the leave-one-out beliefs is the same: q(z_t | x0) is in both to the power gamma + (1 -
    gamma) = 1. A gamma known to be 1 or 0 is the one denoiser. Raises InputError for a gamma that is not finite."""
    gamma = finite(gamma)
    if is_known(gamma, 0, 1):
        return denoise if is_known(gamma, 1) else null
    hears_time = any(getattr(each, "time_conditioned", True) for each in (denoise, null))
    return _TemperedBelief(process, partial(denoise), partial(null), gamma, hears_time)


class _TemperedBelief(eqx.Module):
    process: Any
    denoise: Any
    null: Any
    gamma: Array
    time_conditioned: bool = eqx.field(static=True)

    def __call__(self, x, t):
        log_c, log_u = (
            leave_one_out(self.process, believe(self.process, each, x, t), x, t) for each in (self.denoise, self.null)
        )
        return LeaveOneOut(normalized(between(log_c, log_u, self.gamma), log_c))


def finite(gamma: float | Array) -> Array:
    """`gamma` as an array. Raises InputError when it is not one finite number."""
    number: Array = known(as_array, gamma)
    if number.ndim:
        raise InputError(f"guidance got gamma of shape {number.shape}, expected one number; vmap gives each its own")
    got = f"{number}" if concrete(number) else "one that is not"
    message = f"guidance got gamma={got}, expected a finite number: 1 is the conditional model, 0 the other"
    return require(number, known(jnp.isfinite, number), message)


def is_known(gamma: Array, *values: float) -> bool:
    """Whether `gamma` is known, and one of these numbers; so even inside a compiled caller."""
    return concrete(gamma) and float(gamma) in values


def between(log_c: LogProbs, log_u: LogProbs, gamma: Array) -> LogProbs:
    """log of c^gamma u^(1 - gamma), 0 where either is 0 (and its power is not)."""
    return power(log_c, gamma) + power(log_u.astype(log_c.dtype), 1 - gamma)


def power(logs: LogProbs, exponent: Array) -> LogProbs:
    """log of p^exponent, where 0 to any power but 0 is 0: the impossible is not guided back, nor a NaN."""
    exponent = exponent.astype(logs.dtype)
    never = jnp.isneginf(logs)
    return jnp.where(never, jnp.where(exponent == 0, 0, -jnp.inf), exponent * jnp.where(never, 0, logs))
