"""Gaussians and their mixtures under a linear SDE: the belief about the data, given all the coupled copies.

With x0 ~ N(mu, S_0), S_0 = U diag(l) U', in the basis U each axis of the state is one vector of k copies, X_t ~ N(m mu,
C_l), C_l = l m m' + S, and E[x0 | X_t] = mu + l m' C_l^-1 (X_t - m mu)."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.numerics import aligned, as_array, cast
from jaxdiff.numerics.small import outer, root, solve, whiten
from jaxdiff.oracles.mixture import draws, weighted
from jaxdiff.oracles.normal import Normal, normal
from jaxdiff.processes.linear import Linear
from jaxdiff.types import PRNGKey, Scalar, Time


class LinearOracle(eqx.Module):
    """The exact denoiser and likelihood of a mixture of Gaussians under a linear SDE; states are (k, *shape)."""

    process: Linear
    log_weights: Float[Array, " components"]
    components: Normal

    def _posterior(self, x, t):
        """(belief, log w_j N(x; j)) of each component j, in x's dtype."""
        x, t = aligned(x, t)
        mean, total = cast(self.process.kernel(t), x.dtype)
        beliefs, evidence = jax.vmap(lambda law: _given(law, mean, total, x))(cast(self.components, x.dtype))
        return beliefs, evidence + cast(self.log_weights, x.dtype)

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x0 | X_t = x], of the data's shape."""
        beliefs, joint = self._posterior(x, t)
        return jnp.tensordot(jax.nn.softmax(joint), beliefs, 1)

    def log_prob(self, x: Array, t: Time = 0.0) -> Scalar:
        """log density of X_t at the state `x`; a copy that is known at t = 0, as a velocity that starts from 0, is left
        out."""
        return jax.nn.logsumexp(self._posterior(x, t)[1])

    def sample(self, key: PRNGKey, n: int) -> Array:
        """`n` draws of the clean data, (n, ...)."""
        return draws(key, n, self.log_weights, self.components)


def _given(law, mean, total, x):
    """E[x0 | X_t = x] and log p(X_t = x) of one Gaussian."""
    axes = jax.vmap(law._axes)(x - outer(mean, law.mean))
    spread = root(law.values[:, None, None] * mean[:, None] * mean + total)
    scales = jnp.diagonal(spread, axis1=-2, axis2=-1)
    # A copy that is known tells nothing of the data: 1 / inf in the place of 0 / 0.
    held = jnp.where((jnp.eye(len(mean)) > 0) & (spread == 0), jnp.inf, spread)
    pull = law.values * jnp.tensordot(mean, solve(held, axes), 1, precision="highest")
    volume = jnp.where(scales > 0, jnp.log(jnp.where(scales > 0, scales, 1)) + 0.5 * math.log(2 * math.pi), 0)
    evidence = -0.5 * jnp.sum(whiten(held, axes) ** 2) - jnp.sum(volume)
    return law.mean + law._state(pull), evidence


def linear(process: Linear, mean: Any, cov: Any) -> LinearOracle:
    """The oracle of x0 ~ N(mean, cov); `cov` is full (D, D), diagonal in the shape of `mean`, or one variance.

    Raises InputError when the shapes don't fit."""
    law = jax.tree.map(lambda leaf: leaf[None], normal(mean, cov))
    return LinearOracle(process, jnp.zeros_like(as_array(mean), shape=(1,)), law)


def linear_mixture(process: Linear, weights: Any, means: Any, covs: Any) -> LinearOracle:
    """The oracle of x0 ~ sum_j weights[j] N(means[j], covs[j]), given as for `mixture`, and refused as there."""
    return LinearOracle(process, *weighted(weights, means, covs))
