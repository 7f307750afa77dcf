"""The ancestral forms of one-step methods: below the aim, then back up to it by fresh noise."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.brownian import increment
from jaxdiff.samplers.stepper import Stepper
from jaxdiff.types import Scalar


def ancestral_form(process: Gaussian, inner: Stepper, eta: float | Scalar = 1.0) -> Stepper:
    """`inner` steps past s to the time where sigma / alpha is what eta leaves of it, and noise brings x back to s.

    The noise is eta times the standard deviation of p(x_s | x_t, x0) (k-diffusion's ancestral step): of `euler` this
    makes `ddim(eta)`, of `dpm_2s` and `dpmpp_2s` its dpm_2_ancestral and dpmpp_2s_ancestral. Where the process ends
    with noise it cannot go below, so less is added. Raises InputError for a multistep inner stepper, whose history the
    noise would make wrong."""
    eta = as_array(eta)
    return Stepper(Partial(_init, inner), Partial(_step, process, inner, eta), Partial(_demands, process, inner, eta))


def _init(inner, x, t):
    carry = inner.init(x, t)
    if jax.tree.leaves(carry):
        raise InputError(
            "ancestral_form got a multistep stepper, whose memory new noise makes wrong; use one such as dpm_2s"
        )
    return carry


def _below(process, eta, t, s):
    """The time that the inner step aims at."""
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(t), process.scales(s)
    keep = alpha * sigma_s / (alpha_s * sigma)
    left = jnp.sqrt(jnp.clip(1 - eta**2 * (1 - keep**2), min=0))
    return jnp.clip(process.time_of(left * sigma_s / alpha_s), 0, s)


def _demands(process, inner, eta, ts: Any):
    # The inner stepper walks from each time to one below the next: look at the first such interval and the last.
    eta = cast(eta, ts.dtype)
    steps = (jnp.stack([t, _below(process, eta, t, s)]) for t, s in ((ts[0], ts[1]), (ts[-2], ts[-1])))
    return sum((inner.demands(step) for step in steps), ())


def _step(process, inner, eta, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
    inner_key, noise_key = jax.random.split(key)
    below = _below(process, cast(eta, x.dtype), t, s)
    x, carry = inner.step(inner_key, denoise, carry, x, t, below, noise=noise)
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(below), process.scales(s)
    up = alpha_s / alpha
    fresh = jnp.sqrt(jnp.clip(sigma_s**2 - (up * sigma) ** 2, min=0))
    return up * x + fresh * increment(noise, noise_key, x, t, s), carry
