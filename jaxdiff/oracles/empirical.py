"""The training set itself as the data law: atoms, and the denoiser that remembers them all.

E[x0 | x_t] is the softmax-weighted mean of the examples: what a network of unlimited capacity converges to."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import PRNGKey, Scalar, Time


class EmpiricalOracle(eqx.Module):
    """The exact denoiser and likelihood of n equally likely examples under a Gaussian process."""

    process: Gaussian
    data: Float[Array, "n ..."]

    def _at(self, x, t):
        """(data as rows, alpha, sigma, squared distances of x to alpha x_i), in x's dtype."""
        x, t = aligned(x, t)
        alpha, sigma = self.process.scales(t)
        rows = cast(self.data, x.dtype).reshape(len(self.data), -1)
        return rows, alpha, sigma, jnp.sum((x.reshape(-1) - alpha * rows) ** 2, axis=-1)

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x0 | x_t = x] = sum_i r_i x_i, r = softmax(-|x - alpha x_i|^2 / (2 sigma^2)); the nearest at sigma = 0."""
        rows, _, sigma, square = self._at(x, t)
        excess = square - square.min()
        logits = jnp.where(excess == 0, 0, -excess / (2 * sigma**2))
        return (jax.nn.softmax(logits) @ rows).reshape(x.shape)

    def noise(self, x: Array, t: Time) -> Array:
        """E[eps | x_t = x] = (x - alpha E[x0 | x_t]) / sigma."""
        _, alpha, sigma, _ = self._at(x, t)
        return (x - alpha * self.denoise(x, t)) / sigma

    def log_prob(self, x: Array, t: Time) -> Scalar:
        """log density of x_t at `x`; t = 0 of a process without noise there has none."""
        rows, _, sigma, square = self._at(x, t)
        dim = rows.shape[1]
        evidence = jax.nn.logsumexp(-square / (2 * sigma**2)) - jnp.log(jnp.asarray(len(rows), x.dtype))
        return evidence - 0.5 * dim * jnp.log(2 * jnp.pi * sigma**2)

    def sample(self, key: PRNGKey, n: int) -> Array:
        """`n` of the examples, drawn with replacement, (n, ...)."""
        return self.data[jax.random.randint(key, (n,), 0, len(self.data))]


def empirical(process: Gaussian, data: Any) -> EmpiricalOracle:
    """The oracle of x0 drawn from the examples `data` (n, ...). Raises InputError when there are none."""
    data = as_array(data)
    if data.ndim < 1 or len(data) == 0:
        raise InputError(f"empirical got data of shape {data.shape}, expected (n, ...) with at least one example")
    return EmpiricalOracle(process, data)
