"""The training set itself as the data law: atoms, and the denoiser that remembers them all.

E[x0 | x_t] is the softmax-weighted mean of the examples: what a network of unlimited capacity converges to. The sums
over examples are read `chunk` at a time, shifted by the least distance so far: when a chunk brings a nearer example,
what was summed before is scaled down. So memory is that of one chunk, and the answer is exact."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast, concrete, known, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, PRNGKey, Scalar, Time


class EmpiricalOracle(eqx.Module):
    """The exact denoiser and likelihood of n examples, equally likely or weighted, under a Gaussian process."""

    process: Gaussian
    data: Float[Array, "n ..."]
    weights: Float[Array, " n"] | None = None
    labels: Int[Array, " n"] | None = None
    chunk: int | None = eqx.field(static=True, default=None)

    def denoise(self, x: Array, t: Time) -> Array:
        """E[x0 | x_t = x] = sum_i r_i x_i, r_i ~ w_i exp(-|x - alpha x_i|^2 / (2 sigma^2)); the nearest at sigma = 0,
        and the mean of equally near ones by weight."""
        x, t = aligned(x, t)
        sums = _sums(self, x, t)
        return (sums.data / sums.mass).reshape(x.shape).astype(x.dtype)

    def noise(self, x: Array, t: Time) -> Array:
        """E[eps | x_t = x] = (x - alpha E[x0 | x_t]) / sigma."""
        x, t = aligned(x, t)
        alpha, sigma = self.process.scales(t)
        return (x - alpha * self.denoise(x, t)) / sigma

    def log_prob(self, x: Array, t: Time) -> Scalar:
        """log density of x_t at `x`; t = 0 of a process without noise there has none."""
        x, t = aligned(x, t)
        sums = _sums(self, x, t)
        variance = _scales(self, x, t)[1] ** 2
        volume = 0.5 * x.size * jnp.log(2 * jnp.pi * variance)
        return (jnp.log(sums.mass) - sums.least / (2 * variance) - volume).astype(x.dtype)

    def sample(self, key: PRNGKey, n: int) -> Array:
        """`n` of the examples, drawn with replacement, each by its weight, (n, ...)."""
        if self.weights is None:
            return self.data[jax.random.randint(key, (n,), 0, len(self.data))]
        # Rounding may let a sum fall, or rise over an example of no weight, which would then be drawn.
        ends = jax.lax.cummax(jnp.where(self.weights > 0, jnp.cumsum(self.weights), -jnp.inf))
        heights = ends[-1] * (1 - jax.random.uniform(key, (n,), ends.dtype))
        return self.data[jnp.searchsorted(ends, heights)]

    def given(self, label: Any) -> "EmpiricalOracle":
        """The oracle of the examples that have this label, on the same data; None is all of them.

        Raises InputError for a label that no example has, and where the examples have none."""
        if label is None:
            return self
        if self.labels is None:
            raise InputError("this empirical oracle was made without labels: give labels=, one a data example")
        label = jnp.asarray(label)
        shown = label if concrete(label) else "(traced)"
        own = known(lambda labels, label: labels == label, self.labels, label)
        weights = jnp.where(own, _weights(self, jnp.result_type(self.data)), 0)
        message = f"no example has the label {shown}, or any weight: ask for one that the data have"
        weights = require(weights, known(lambda weights: jnp.sum(weights) > 0, weights), message)
        return EmpiricalOracle(self.process, self.data, weights / jnp.sum(weights), self.labels, self.chunk)

    def denoiser(self, label: Any = None) -> Denoiser:
        """label -> Denoiser, as `samplers.draw` maps it over examples; the data are shared by all of them."""
        return self.given(label).denoise


class _Sums(NamedTuple):
    """Over the examples so far: the least squared distance, sum of w_i e_i and of w_i e_i x_i, where
    e_i = exp(-(d_i - least) / (2 sigma^2))."""

    least: Scalar
    mass: Scalar
    data: Float[Array, " dim"]


def _scales(oracle, x, t):
    """alpha and sigma in the dtype of the sums: x's, of at least 32 bits, since 16 lose a term among thousands."""
    return cast(oracle.process.scales(t), x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.float32)


def _weights(oracle, dtype):
    n = len(oracle.data)
    return jnp.full((n,), 1 / n, dtype) if oracle.weights is None else oracle.weights.astype(dtype)


@eqx.filter_jit  # the scan would compile at every call of its own
def _sums(oracle, x, t):
    if x.shape != oracle.data.shape[1:]:
        raise InputError(
            f"the empirical oracle got x of shape {x.shape} for examples of shape {oracle.data.shape[1:]}; it is "
            "written for one example without a batch axis: map it with jax.vmap"
        )
    alpha, sigma = _scales(oracle, x, t)
    dtype, variance = alpha.dtype, sigma**2
    n = len(oracle.data)
    size = min(oracle.chunk or n, n)
    rows, weights = oracle.data.reshape(n, -1), _weights(oracle, dtype)
    x = x.reshape(-1).astype(dtype)

    def likelihood(excess):
        """exp(-excess / (2 sigma^2)): at sigma = 0, 1 for no excess and 0 for any."""
        noisy = variance > 0
        return jnp.where(noisy, jnp.exp(-excess / (2 * jnp.where(noisy, variance, 1))), (excess == 0).astype(dtype))

    def read(begin):
        """The sums of one chunk alone."""
        # The last chunk starts early enough to be whole; those before `begin` have been counted.
        start, place = jnp.minimum(begin, n - size), jnp.arange(size)
        block = jax.lax.dynamic_slice_in_dim(rows, start, size).astype(dtype)
        weight = jax.lax.dynamic_slice_in_dim(weights, start, size)
        weight = jnp.where(start + place >= begin, weight, 0)
        # Differences, not |x|^2 - 2 x x_i + |x_i|^2: that loses the digits that a small sigma asks for.
        square = jnp.sum((x - alpha * block) ** 2, axis=-1)
        # (The bound also keeps a compiler from rounding a square otherwise once it is subtracted.)
        square = jnp.where(weight > 0, jnp.minimum(square, jnp.finfo(dtype).max), jnp.inf)
        nearest = jnp.argmin(square)
        least = square[nearest]
        excess = jnp.where(weight > 0, square - least, 0)
        term = weight * jnp.where(place == nearest, 1, likelihood(excess))
        return _Sums(least, jnp.sum(term), jnp.matmul(term, block, precision="highest"))

    @jax.checkpoint  # so that a gradient keeps no chunk either
    def fold(sums, begin):
        new = read(begin)
        behind = jnp.where((sums.mass > 0) & (new.mass > 0), sums.least - new.least, 0)
        nearer = sums.least > new.least
        old_scale = jnp.where(nearer, likelihood(jnp.where(nearer, behind, 0)), 1)
        new_scale = jnp.where(nearer, 1, likelihood(jnp.where(nearer, 0, -behind)))
        mass, data = (old_scale * old + new_scale * own for old, own in zip(sums[1:], new[1:], strict=True))
        return _Sums(jnp.where(nearer, new.least, sums.least), mass, data), None

    if size == n:
        return read(0)
    sums = _Sums(jnp.full_like(alpha, jnp.inf), jnp.zeros_like(alpha), jnp.zeros_like(x))
    return jax.lax.scan(fold, sums, jnp.arange(0, n, size))[0]


def empirical(
    process: Gaussian, data: Any, *, weights: Any = None, labels: Any = None, chunk: int | None = None
) -> EmpiricalOracle:
    """The oracle of x0 drawn from the examples `data` (n, ...), equally likely or with `weights` (n,).

    `labels` (n,), integers, make `given(label)` the oracle of a class. The examples are read `chunk` at a time (by
    default all at once): under `jax.vmap` over a batch the memory beside the data is at most batch x chunk numbers an
    axis of an example. Raises InputError for no examples or non-finite ones, weights that are no distribution, labels
    that are no integers, another number of either, and a chunk below 1."""
    data = as_array(data)
    if data.ndim < 1 or len(data) == 0:
        raise InputError(f"empirical got data of shape {data.shape}, expected (n, ...) with at least one example")
    if concrete(data) and not known(_finite, data):
        raise InputError("empirical got data that are not all finite; leave out the examples with NaN or infinity")
    if chunk is not None and chunk < 1:
        raise InputError(f"empirical got chunk={chunk}, expected at least 1 example at a time, or None for all")
    if weights is not None:
        weights = _distribution(as_array(weights), len(data))
    if labels is not None:
        labels = jnp.asarray(labels)
        if labels.shape != (len(data),) or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise InputError(
                f"empirical got labels {labels.dtype} of shape {labels.shape}, expected integers of shape "
                f"({len(data)},): one an example"
            )
    return EmpiricalOracle(process, data, weights, labels, chunk)


@jax.jit  # without an array of the answers
def _finite(data):
    return jnp.all(jnp.isfinite(data))


def _distribution(weights, n):
    if weights.shape != (n,):
        raise InputError(f"empirical got weights of shape {weights.shape}, expected ({n},): one an example")
    if concrete(weights):
        values = np.asarray(weights, np.float64)
        if not (np.all(values >= 0) and abs(values.sum() - 1) < 1e-5):
            raise InputError(
                "empirical got weights that are no distribution, expected non-negative numbers that sum to 1; divide "
                "by their sum"
            )
    return weights
