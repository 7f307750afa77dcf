"""The linear one-step model: a generator that is one line of least squares, so that all it does is known.

Clean y ~ N(mu, s^2 I_d), noisy x = e^-T y + sqrt(D) z, D = c e^-2T (1 - e^-2T). Least squares of y on x over n pairs
(that of least norm where n <= d) gives b + W x, which turns x ~ N(e^-T ybar, (e^-2T v + D) I) into

    N(b + W e^-T ybar, (e^-2T v + D) W W'),   ybar and v the mean and the variance of the n clean points.

With tau^2 = e^2T D and r = s^2 / (s^2 + tau^2), n -> infinity gives N(mu, r s^2 I): one step loses variance. The
variance generated has a pole at n = d, whence samples become new: below it the law is singular, on the n points'
own hyperplane (Halder 2024, arXiv 2411.17807)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.metrics import Estimate
from jaxdiff.numerics import as_array, concrete
from jaxdiff.theory import memorization
from jaxdiff.types import PRNGKey, Scalar


class OneStep(eqx.Module):
    """d, T, c, mu (a number or (d,)) and s: the law of the data and the one step of noise."""

    dim: int = eqx.field(static=True)
    time: Array = eqx.field(converter=as_array)
    noise: Array = eqx.field(converter=as_array)
    mean: Array = eqx.field(converter=as_array)
    std: Array = eqx.field(converter=as_array)

    def __check_init__(self):
        if self.dim < 1 or self.mean.shape not in ((), (self.dim,)):
            raise InputError(f"the model got dim={self.dim}, a mean of shape {self.mean.shape}; expected one for each")
        if concrete(self.time, self.noise, self.std) and not min(self.time, self.noise, self.std) > 0:
            raise InputError(
                f"the model got time={self.time}, noise={self.noise}, std={self.std}; expected positive numbers"
            )

    @property
    def variance(self) -> Scalar:
        """D, the variance of the noise in x."""
        return -self.noise * jnp.exp(-2 * self.time) * jnp.expm1(-2 * self.time)

    @property
    def tau2(self) -> Scalar:
        """tau^2 = e^2T D, the same seen from the clean side."""
        return -self.noise * jnp.expm1(-2 * self.time)

    @property
    def ratio(self) -> Scalar:
        """r = s^2 / (s^2 + tau^2), the variance that one step keeps."""
        return self.std**2 / (self.std**2 + self.tau2)


def model(dim: int, *, time: Any = 2.0, noise: Any = 1.0, mean: Any = 10.0, std: Any = 1.0) -> OneStep:
    """The model in `dim` dimensions, T = `time`, c = `noise`. InputError unless these and `std` are positive."""
    return OneStep(dim, time, noise, mean, std)


def pairs(key: PRNGKey, model: OneStep, n: int) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """`n` pairs (x, y), noisy and clean, each (n, d)."""
    y_key, z_key = jax.random.split(key)
    y = model.mean + model.std * jax.random.normal(y_key, (n, model.dim), model.std.dtype)
    z = jax.random.normal(z_key, y.shape, y.dtype)
    return jnp.exp(-model.time) * y + jnp.sqrt(model.variance) * z, y


class Fit(NamedTuple):
    """The line y = bias + weights x of n pairs; mean (d,) and unbiased variance (over all d) of their clean points."""

    bias: Float[Array, " d"]
    weights: Float[Array, "d d"]
    mean: Float[Array, " d"]
    variance: Scalar
    full: Array
    """Whether n > d, and the weights have full rank; elsewhere the generated law is singular."""


def fit(x: Float[Array, "n d"], y: Float[Array, "..."]) -> Fit:
    """Least squares of clean y on noisy x, of least norm where it is not unique (n <= d, or repeated points).

    Raises InputError for fewer than two points, shapes that differ, or numbers that are not finite."""
    if x.ndim != 2 or x.shape != y.shape or len(x) < 2:
        raise InputError(f"fit got x of shape {x.shape}, y of shape {y.shape}; expected (n, d) twice, n of 2 or more")
    if concrete(x, y) and not (jnp.isfinite(x).all() and jnp.isfinite(y).all()):
        raise InputError("fit got NaN or infinite points; expected finite ones: look where they were made")
    (n, d), at, mean = x.shape, x.mean(0), y.mean(0)
    u, s, vt = jnp.linalg.svd(x - at, full_matrices=False)
    # Centred points have rank n - 1 at most: what rounding leaves of the last singular value is no direction.
    there = (s > max(n, d) * jnp.finfo(x.dtype).eps * s[0]) & (jnp.arange(len(s)) < n - 1)
    inverse = jnp.where(there, 1 / jnp.where(there, s, 1), 0)
    weights = jnp.matmul((y - mean).T, u * inverse, precision="highest") @ vt
    variance = jnp.sum((y - mean) ** 2) / ((n - 1) * d)
    return Fit(mean - weights @ at, weights, mean, variance, jnp.sum(there) == d)


def law(model: OneStep, fit: Fit) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Mean and covariance of what `fit` generates: b + W e^-T ybar and (e^-2T v + D) W W'."""
    cov = jnp.matmul(fit.weights, fit.weights.T, precision="highest")
    return _centre(model, fit), _gain(model, fit) * cov


def generate(key: PRNGKey, model: OneStep, fit: Fit, n: int) -> Float[Array, "n d"]:
    """`n` samples b + W x of x ~ N(e^-T ybar, (e^-2T v + D) I)."""
    x = jax.random.normal(key, (n, model.dim), fit.mean.dtype)
    x = jnp.exp(-model.time) * fit.mean + jnp.sqrt(_gain(model, fit)) * x
    return fit.bias + x @ fit.weights.T


class Divergences(NamedTuple):
    """KL(generated || true), KL(true || generated), in nats, and the squared Hellinger distance, in [0, 1]."""

    kl_generated: Scalar
    kl_true: Scalar
    hellinger2: Scalar


def divergences(model: OneStep, fit: Fit) -> Divergences:
    """From the law that `fit` generates to N(mu, s^2 I); a singular law, as any of n <= d, has KL = inf twice and
    Hellinger^2 = 1. Heavy tailed near n = d: over runs, report medians."""
    u, s, _ = jnp.linalg.svd(fit.weights)
    values = _gain(model, fit) * jnp.where(fit.full, s, 1) ** 2 / model.std**2  # in units of s^2
    gap = (u.T @ (_centre(model, fit) - model.mean)) ** 2 / model.std**2
    excess = values - 1 - jnp.log(values)
    kl_generated = 0.5 * jnp.sum(excess + gap)
    kl_true = 0.5 * jnp.sum((1 + gap) / values - 1 + jnp.log(values))
    # The Bhattacharyya distance, axis by axis.
    half = 0.5 * jnp.sum(jnp.log(0.5 * (1 + values)) - 0.5 * jnp.log(values) + gap / (2 * (1 + values)))
    singular = jnp.inf, jnp.inf, 1.0
    found = kl_generated, kl_true, -jnp.expm1(-half)
    return Divergences(*(jnp.where(fit.full, v, end) for v, end in zip(found, singular, strict=True)))


class Limit(NamedTuple):
    """What n -> infinity generates, N(mu, variance I), and its KL's from and to N(mu, s^2 I)."""

    variance: Scalar
    kl_generated: Scalar
    kl_true: Scalar


def limit(model: OneStep) -> Limit:
    """r s^2, KL(generated || true) = d (r - 1 - ln r) / 2 and KL(true || generated) = d (1 / r - 1 + ln r) / 2."""
    r, half = model.ratio, 0.5 * model.dim
    log_r = -jnp.log1p(model.tau2 / model.std**2)
    return Limit(r * model.std**2, half * (r - 1 - log_r), half * (1 / r - 1 + log_r))


def expected_trace(model: OneStep, n: int) -> Scalar:
    """E tr(Sigma) / d of the law that n pairs generate, exact; infinite from n = d to n = d + 2.

    With k = min(n - 1, d), g = |n - 1 - d| - 1, q = s^2 + tau^2, h = s^2 tau^2 / q and w = r^2 k + h d k / (q g),
    it is (q w + 2 h k ((h / q - r^2) d / g + 2 r^2) / (d (n - 1))) / d. The second term is the covariance of v with W,
    of order 1 / (n d); the first is (for n > d + 2) q (r^2 + s^2 tau^2 d / (q^2 (n - d - 2))). Raises InputError for
    n < 2."""
    if n < 2:
        raise InputError(f"expected_trace got n={n}, expected 2 points or more")
    d, m, r, s2 = model.dim, n - 1, model.ratio, model.std**2
    q, k, gap = s2 + model.tau2, min(m, d), abs(m - d) - 1
    if gap <= 0:
        return jnp.full_like(r, jnp.inf)
    h = s2 * model.tau2 / q
    w = r**2 * k + h * d * k / (q * gap)
    return (q * w + 2 * h * k * ((h / q - r**2) * d / gap + 2 * r**2) / (d * m)) / d


def fits(key: PRNGKey, model: OneStep, n: int, runs: int) -> tuple[Float[Array, "runs n d"], Fit]:
    """The clean points and the fit of `runs` independent training sets of `n` pairs, run i from fold_in(key, i)."""
    return _fits(key, model, n, runs)


def memorized(
    key: PRNGKey, model: OneStep, ns: Sequence[int], *, runs: int = 300, originals: int = 1000
) -> list[Estimate]:
    """P(memorization.delta > 0) for each n of `ns`, over `runs` training sets, each run with its own `originals` fresh
    draws of the law (the same for every n).

    0 where the model memorises, 1 where it does not. It is a function of `originals` as well as of n: give both. Raises
    InputError for fewer than two points, or no run."""
    if not ns or min(*ns, originals) < 2 or runs < 1:
        raise InputError(f"got ns={ns}, originals={originals}, runs={runs}; expected 2 points or more, 1 run or more")
    fresh_key, *keys = jax.random.split(key, len(ns) + 1)
    fitted = [fits(one, model, n, runs) for one, n in zip(keys, ns, strict=True)]
    laws = [jax.device_get(jax.vmap(law, (None, 0))(model, fit)) for _, fit in fitted]
    trains, scale = [np.asarray(y) for y, _ in fitted], float(model.std)
    found = [[] for _ in ns]
    for i in range(runs):
        fresh = memorization.kde(_clean(jax.random.fold_in(fresh_key, i), model, originals), scale=scale)
        for row, train, (means, covs) in zip(found, trains, laws, strict=True):
            row.append(memorization.delta(memorization.gaussian(means[i], covs[i]), train[i], fresh, scale=scale))
    return [memorization.probability(row) for row in found]


def _gain(model, fit):
    return jnp.exp(-2 * model.time) * fit.variance + model.variance


def _centre(model, fit):
    return fit.bias + fit.weights @ (jnp.exp(-model.time) * fit.mean)


@eqx.filter_jit
def _fits(key, model, n, runs):
    def one(i):
        x, y = pairs(jax.random.fold_in(key, i), model, n)
        return y, fit(x, y)

    return jax.vmap(one)(jnp.arange(runs))


@eqx.filter_jit
def _clean(key, model, n):
    return pairs(key, model, n)[1]
