"""Mixtures of Gaussians: the belief is the components' beliefs, weighted by the posterior of the component."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast, concrete
from jaxdiff.oracles.normal import Normal, normal
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import PRNGKey, Scalar, Time


class MixtureOracle(eqx.Module):
    """The exact denoiser and likelihood of a mixture of Gaussians under a Gaussian process."""

    process: Gaussian
    log_weights: Float[Array, " components"]
    components: Normal

    def _posterior(self, x, t):
        """(components, alpha, sigma, x, log w_k N(x; k)) in x's dtype."""
        x, t = aligned(x, t)
        alpha, sigma = self.process.scales(t)
        components = cast(self.components, x.dtype)
        evidence = jax.vmap(lambda c: c.log_prob(alpha, sigma, x))(components)
        return components, alpha, sigma, x, evidence + cast(self.log_weights, x.dtype)

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x0 | x_t = x] = sum_k r_k(x) E_k[x0 | x_t = x]."""
        components, alpha, sigma, x, joint = self._posterior(x, t)
        beliefs = jax.vmap(lambda c: c.data(alpha, sigma, x))(components)
        return jnp.tensordot(jax.nn.softmax(joint), beliefs, 1)

    def noise(self, x: Array, t: Time) -> Array:
        """E[eps | x_t = x] = sigma sum_k r_k(x) (alpha^2 S_k + sigma^2)^-1 (x - alpha m_k)."""
        components, alpha, sigma, x, joint = self._posterior(x, t)
        beliefs = jax.vmap(lambda c: c.noise(alpha, sigma, x))(components)
        return jnp.tensordot(jax.nn.softmax(joint), beliefs, 1)

    def log_prob(self, x: Array, t: Time = 0.0) -> Scalar:
        """log density of x_t at `x`."""
        return jax.nn.logsumexp(self._posterior(x, t)[-1])

    def sample(self, key: PRNGKey, n: int) -> Array:
        """`n` draws of the clean data, (n, ...)."""
        return draws(key, n, self.log_weights, self.components)


def mixture(process: Gaussian, weights: Any, means: Any, covs: Any) -> MixtureOracle:
    """The oracle of x0 ~ sum_k weights[k] N(means[k], covs[k]).

    `means` is (K, ...), `covs` (K, D, D), variances in the shape of `means`, or (K,). Raises InputError when the
    counts differ or the weights are no distribution."""
    return MixtureOracle(process, *weighted(weights, means, covs))


def weighted(weights: Any, means: Any, covs: Any) -> tuple[Array, Normal]:
    """(log weights, components) as `mixture` takes them."""
    weights, means, covs = as_array(weights), as_array(means), as_array(covs)
    if not weights.shape[:1] == means.shape[:1] == covs.shape[:1] or weights.ndim != 1:
        raise InputError(
            f"a mixture got {weights.shape} weights, {means.shape} means, {covs.shape} covariances; "
            "expected one of each for every component"
        )
    if concrete(weights) and not (jnp.all(weights >= 0) and abs(weights.sum() - 1) < 1e-5):
        raise InputError(
            f"mixture weights are {weights}, expected non-negative numbers that sum to 1; divide by their sum"
        )
    return jnp.log(weights), jax.vmap(normal)(means, covs)


def draws(key: PRNGKey, n: int, log_weights: Array, components: Normal) -> Array:
    """`n` draws of the mixture, (n, ...)."""
    which_key, draw_key = jax.random.split(key)
    which = jax.random.choice(which_key, log_weights.size, (n,), p=jnp.exp(log_weights))
    keys = jax.random.split(draw_key, n)
    return jax.vmap(lambda k, i: jax.tree.map(lambda leaf: leaf[i], components).sample(k, 1)[0])(keys, which)
