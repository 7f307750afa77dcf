"""Gaussian data: every question about x_t has a closed form.

With x0 ~ N(m, S) and S = U diag(l) U', x_t ~ N(alpha m, alpha^2 S + sigma^2 I), so in the basis U all is one number an
axis."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import PRNGKey, Scalar, Time


class Normal(eqx.Module):
    """N(mean, U diag(values) U'), and what it becomes under x = alpha x0 + sigma eps."""

    mean: Array
    values: Float[Array, " dim"]
    vectors: Float[Array, "dim dim"] | None

    def _axes(self, x):
        flat = x.reshape(-1)
        return flat if self.vectors is None else self.vectors.T @ flat

    def _state(self, axes):
        flat = axes if self.vectors is None else self.vectors @ axes
        return flat.reshape(self.mean.shape)

    def _total(self, alpha, sigma):
        return alpha**2 * self.values + sigma**2

    def data(self, alpha, sigma, x):
        total = self._total(alpha, sigma)
        # An axis without variance stays at its mean, also at sigma = 0 where the quotient is 0 / 0.
        gain = jnp.where(total > 0, alpha * self.values / jnp.where(total > 0, total, 1), 0)
        return self.mean + self._state(gain * self._axes(x - alpha * self.mean))

    def noise(self, alpha, sigma, x):
        total = self._total(alpha, sigma)
        return self._state(sigma / total * self._axes(x - alpha * self.mean))

    def log_prob(self, alpha, sigma, x):
        total = self._total(alpha, sigma)
        return -0.5 * jnp.sum(self._axes(x - alpha * self.mean) ** 2 / total + jnp.log(2 * jnp.pi * total))

    def sample(self, key, n):
        draws = jax.random.normal(key, (n, self.values.size), self.values.dtype)
        return self.mean + jax.vmap(self._state)(jnp.sqrt(self.values) * draws)


def normal(mean: Any, cov: Any) -> Normal:
    """A Normal from a full covariance (D, D), the variances in the shape of `mean`, or one variance."""
    mean, cov = as_array(mean), as_array(cov)
    if cov.shape == (mean.size, mean.size) and cov.shape != mean.shape:
        values, vectors = jnp.linalg.eigh(cov)
        # An axis without variance has eigh's rounding error in its place: as for a matrix's rank, that counts as 0.
        rounding = mean.size * jnp.finfo(values.dtype).eps * values[-1]
        return Normal(mean, jnp.where(values > rounding, values, 0), vectors)
    if cov.shape in ((), mean.shape):
        return Normal(mean, jnp.broadcast_to(cov, mean.shape).reshape(-1), None)
    raise InputError(
        f"the covariance has shape {cov.shape} for a mean of shape {mean.shape}; expected ({mean.size}, {mean.size}), "
        f"{mean.shape} for a diagonal one, or one number"
    )


class GaussianOracle(eqx.Module):
    """The exact denoiser, likelihood and probability flow of Gaussian data under a Gaussian process."""

    process: Gaussian
    law: Normal

    def _at(self, x, t):
        """This law, (alpha, sigma) and x, in x's dtype."""
        x, t = aligned(x, t)
        return cast(self.law, x.dtype), *self.process.scales(t), x

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x0 | x_t = x] = m + alpha S (alpha^2 S + sigma^2)^-1 (x - alpha m)."""
        law, alpha, sigma, x = self._at(x, t)
        return law.data(alpha, sigma, x)

    def noise(self, x: Array, t: Time) -> Array:
        """E[eps | x_t = x] = sigma (alpha^2 S + sigma^2)^-1 (x - alpha m): the optimal noise predictor of DDPM."""
        law, alpha, sigma, x = self._at(x, t)
        return law.noise(alpha, sigma, x)

    def log_prob(self, x: Array, t: Time = 0.0) -> Scalar:
        """log density of x_t at `x`."""
        law, alpha, sigma, x = self._at(x, t)
        return law.log_prob(alpha, sigma, x)

    def sample(self, key: PRNGKey, n: int) -> Array:
        """`n` draws of the clean data, (n, ...)."""
        return self.law.sample(key, n)

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Where the probability flow carries `x` from time t to time s: along each axis x - alpha m scales with the
        standard deviation sqrt(alpha^2 l + sigma^2)."""
        law, alpha, sigma, x = self._at(x, t)
        _, alpha_s, sigma_s, _ = self._at(x, s)
        stretch = jnp.sqrt(law._total(alpha_s, sigma_s) / law._total(alpha, sigma))
        return alpha_s * law.mean + law._state(stretch * law._axes(x - alpha * law.mean))

    def mmse(self, t: Time) -> Scalar:
        """E|x0 - E[x0 | x_t]|^2 = sum of l sigma^2 / (alpha^2 l + sigma^2), the least denoising error that there is."""
        t = as_array(t)
        alpha, sigma = self.process.scales(t)
        values = cast(self.law.values, t.dtype)
        return jnp.sum(values * sigma**2 / (alpha**2 * values + sigma**2))


def gaussian(process: Gaussian, mean: Any, cov: Any) -> GaussianOracle:
    """The oracle of x0 ~ N(mean, cov); `cov` is full (D, D), diagonal in the shape of `mean`, or one variance.

    Raises InputError when the shapes don't fit."""
    return GaussianOracle(process, normal(mean, cov))
