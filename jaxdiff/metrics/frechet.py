"""Two laws seen only through mean and covariance, and the Wasserstein-2 distance of the Gaussians that have them:

    d^2 = |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)).

tr (S S')^(1/2) is the sum of the singular values of S^(1/2) S'^(1/2): two symmetric eigendecompositions and no square
root of a non-symmetric or singular matrix, so rank-deficient covariances lose no digits. Dowson & Landau (1982);
Heusel et al. (2017) for generative models. The distance is biased upwards by about tr(S)/n and more as n nears the
number of features: it means something only beside the figure that real data get at the same n."""

from collections.abc import Iterable
from functools import reduce
from os import PathLike

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from jaxdiff.errors import InputError
from jaxdiff.metrics.inputs import Table, numbers, table


class Moments(eqx.Module):
    """Mean `mu` (F,), covariance `sigma` (F, F) with n - 1, and count `n` (None where a file doesn't say)."""

    mu: Float64[np.ndarray, " f"]
    sigma: Float64[np.ndarray, "f f"]
    n: int | None = eqx.field(static=True)

    def __check_init__(self):
        size = len(self.mu)
        scale = np.abs(self.sigma).max(initial=0.0)
        if self.sigma.shape != (size, size) or np.abs(self.sigma - self.sigma.T).max(initial=0.0) > 1e-6 * scale:
            raise InputError(
                f"sigma must be a symmetric ({size}, {size}) covariance to go with mu, got shape {self.sigma.shape}; "
                "give the covariance of the same features as mu."
            )

    @property
    def full_rank(self) -> bool:
        """Whether `n` samples can fill all F directions (n > F): if not, `frechet_distance` is far above its limit."""
        return self.n is None or self.n > len(self.mu)


def moments(features: Table) -> Moments:
    """Mean and covariance of a table (N, F) in float64; one row has covariance zero, so that single rows can be merged.

    Raises InputError for NaN, an empty table or another shape than (N, F)."""
    rows = table(features, "features")
    mu = rows.mean(0)
    away = rows - mu
    return Moments(mu, away.T @ away / max(len(rows) - 1, 1), len(rows))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two data sets together (Chan, Golub & LeVeque 1979), with no cancellation of large sums:

    (n - 1) S = (n_a - 1) S_a + (n_b - 1) S_b + (n_a n_b / n) d d^T,  d = mu_b - mu_a.

    Raises InputError for different features or an unknown count."""
    _same(a, b)
    if a.n is None or b.n is None:
        raise InputError(
            "moments can be merged only where both counts are known, got n = None; load a file that has n."
        )
    n = a.n + b.n
    d = b.mu - a.mu
    scatter = (a.n - 1) * a.sigma + (b.n - 1) * b.sigma + np.outer(d, d) * (a.n * b.n / n)
    return Moments(a.mu + d * (b.n / n), scatter / (n - 1), n)


def stream(chunks: Iterable[Table]) -> Moments:
    """The moments of chunks (n_i, F) that are never in memory together; equal to `moments` of them all.

    Raises InputError if there is no chunk."""
    parts = map(moments, chunks)
    first = next(parts, None)
    if first is None:
        raise InputError("chunks must hold at least one table (samples, features), got none; give some data.")
    return reduce(merge, parts, first)


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)), in squared units of the features.

    Right for covariances of any rank (never below zero). Raises InputError for different features, fewer than two
    samples, or a sigma with negative eigenvalues."""
    _same(a, b)
    for m in (a, b):
        if m.n is not None and m.n < 2:
            raise InputError(f"a covariance needs at least 2 samples, got {m.n}; give more samples.")
    d = a.mu - b.mu
    cross = np.linalg.svd(_root(a.sigma) @ _root(b.sigma), compute_uv=False).sum()
    return max(float(d @ d + np.trace(a.sigma) + np.trace(b.sigma) - 2.0 * cross), 0.0)


def save_moments(path: str | PathLike, m: Moments) -> None:
    """Write an npz file with keys mu, sigma and, if known, n; `path` must end in .npz or be given without an ending."""
    if m.n is None:
        np.savez(path, mu=m.mu, sigma=m.sigma)
    else:
        np.savez(path, mu=m.mu, sigma=m.sigma, n=np.int64(m.n))


def load_moments(path: str | PathLike) -> Moments:
    """Read the npz file of `save_moments`, or any with keys mu and sigma (n is then None).

    Raises InputError if mu or sigma is missing or their shapes don't match."""
    with np.load(path) as file:
        if not {"mu", "sigma"} <= set(file):
            raise InputError(f"{path} must hold mu and sigma, got {sorted(file)}; write it with `save_moments`.")
        mu, sigma = numbers(file["mu"], "mu"), numbers(file["sigma"], "sigma")
        n = int(file["n"]) if "n" in file else None
    if mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
        raise InputError(
            f"{path} must hold mu (F,) and sigma (F, F), got {mu.shape} and {sigma.shape}; write it with "
            "`save_moments`."
        )
    return Moments(mu, sigma, n)


def _root(sigma):
    """The symmetric square root; eigenvalues that are zero but for rounding are zero."""
    values, vectors = np.linalg.eigh(sigma)
    floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    if values[0] < -max(1e-6 * values[-1], floor):
        raise InputError(
            f"sigma must be a covariance, got an eigenvalue of {values[0]:.3g} (the largest is {values[-1]:.3g}); "
            "compute it in float64."
        )
    return (vectors * np.sqrt(np.where(values > floor, values, 0.0))) @ vectors.T


def _same(a: Moments, b: Moments):
    if len(a.mu) != len(b.mu):
        raise InputError(
            f"moments must be of the same features, got {len(a.mu)} and {len(b.mu)}; "
            "compute both with one feature function."
        )
