"""The last of the noise: what the bound on log p(x) costs below t0, where a model begins.

With z = x_t0 drawn from q(z | x) = N(alpha x, sigma^2),

    log p(x) >= E_q[log p(x | z) - log q(z | x) + log p_t0(z)],

so any log p_t0, the flow's or a bound's, becomes one of the data themselves. Without the entropy of q the figure is no
bound: it is off by D/2 log(2 pi e sigma^2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.likelihood.ends import start
from jaxdiff.numerics import aligned
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def truncate(
    key: PRNGKey,
    process: Gaussian,
    denoise: Denoiser,
    x: Array,
    decoder: Callable[..., Any],
    t0: Time | None = None,
    *,
    noise: Noise = jax.random.normal,
) -> tuple[Array, dict[str, Scalar]]:
    """(z, {"reconstruction": log p(x | z), "entropy": that of q(z | x)}) with z ~ q, of one example.

    `decoder` is one of `likelihood.decoders`. Raises InputError for a t0 without noise."""
    x, t0 = aligned(x, start(process, t0))
    z = process.perturb(key, x, t0, noise=noise)
    return z, {"reconstruction": decoder(process, denoise, x, z, t0), "entropy": entropy(process, x, t0)}


def entropy(process: Gaussian, x: Array, t0: Time) -> Scalar:
    """-E[log q(x_t0 | x)] = D/2 log(2 pi e sigma^2)."""
    x, t0 = aligned(x, t0)
    return x.size * (0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(process.scales(t0)[1]))
