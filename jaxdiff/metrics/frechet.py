"""Two laws seen only through mean and covariance, and the Wasserstein-2 distance of the Gaussians that have them:

    d^2 = |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)).

tr (S S')^(1/2) is the sum of the singular values of S^(1/2) S'^(1/2): two symmetric eigendecompositions and no square
root of a non-symmetric or singular matrix, so rank-deficient covariances lose no digits. Dowson & Landau (1982);
Heusel et al. (2017) for generative models. The distance is biased upwards by about tr(S)/n and more as n nears the
number of features: it means something only beside the figure that real data get at the same n."""

import zlib
from collections.abc import Iterable
from functools import reduce
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import equinox as eqx
import numpy as np
from jaxtyping import Float64
from numpy.lib.npyio import NpzFile

from jaxdiff.errors import InputError
from jaxdiff.metrics.features import Features, extract, name_of
from jaxdiff.metrics.inputs import Images, Table, numbers, table, whole
from jaxdiff.numerics.files import replacing


class Moments(eqx.Module):
    """Mean `mu` (F,), covariance `sigma` (F, F) with n - 1, count `n`, name of the `features` (None where unknown)."""

    mu: Float64[np.ndarray, " f"]
    sigma: Float64[np.ndarray, "f f"]
    n: int | None = eqx.field(static=True)
    features: str | None = eqx.field(static=True, default=None)

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
    same_features(a, b)
    if a.n is None or b.n is None:
        raise InputError(
            "moments can be merged only where both counts are known, got n = None; load a file that has n."
        )
    n = a.n + b.n
    d = b.mu - a.mu
    scatter = (a.n - 1) * a.sigma + (b.n - 1) * b.sigma + np.outer(d, d) * (a.n * b.n / n)
    return Moments(a.mu + d * (b.n / n), scatter / (n - 1), n, a.features or b.features)


def stream(chunks: Iterable[Table]) -> Moments:
    """The moments of chunks (n_i, F) that are never in memory together; equal to `moments` of them all.

    Raises InputError if there is no chunk."""
    parts = map(moments, chunks)
    first = next(parts, None)
    if first is None:
        raise InputError("chunks must hold at least one table (samples, features), got none; give some data.")
    return reduce(merge, parts, first)


def statistics(images: Images | Iterable[Images], features: Features, *, chunk: int = 1024) -> Moments:
    """The moments of a data set's features, `chunk` images at a time, under the name of `features`.

    `images` are one array (N, ...), or an iterable of such arrays where the set is never in memory whole. Raises
    InputError for no images, NaN, and a feature function that returns another shape than (rows, F)."""
    whole(chunk, "chunk", 1, 1 << 40, "images at a time")
    batches: Any = [images] if hasattr(images, "shape") else images
    rows = (batch[i : i + chunk] for batch in batches for i in range(0, max(len(batch), 1), chunk))
    found = stream(extract(features, part, name="images", chunk=chunk) for part in rows)
    return Moments(found.mu, found.sigma, found.n, name_of(features))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Frechet distance |mu - mu'|^2 + tr(S + S' - 2 (S S')^(1/2)), in squared units of the features.

    Right for covariances of any rank (never below zero). Raises InputError for different features, fewer than two
    samples, or a sigma with negative eigenvalues."""
    same_features(a, b)
    for m in (a, b):
        if m.n is not None and m.n < 2:
            raise InputError(f"a covariance needs at least 2 samples, got {m.n}; give more samples.")
    d = a.mu - b.mu
    cross = np.linalg.svd(symmetric_root(a.sigma) @ symmetric_root(b.sigma), compute_uv=False).sum()
    return max(float(d @ d + np.trace(a.sigma) + np.trace(b.sigma) - 2.0 * cross), 0.0)


def save_moments(path: str | PathLike, m: Moments) -> None:
    """Write an npz file with keys mu and sigma, and n and features where known; without an ending it gets .npz."""
    known = {name: np.array(v) for name, v in {"n": m.n, "features": m.features}.items() if v is not None}
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    with replacing(path) as draft, open(draft, "wb") as file:
        np.savez(file, allow_pickle=False, mu=m.mu, sigma=m.sigma, **known)


def load_moments(path: str | PathLike) -> Moments:
    """Read the npz file of `save_moments`, or any with keys mu and sigma (the rest is then None).

    Raises InputError if there is no file, it is cut short or of another kind, or mu and sigma don't go together."""
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, NpzFile):
                raise ValueError("a single array")
            names = sorted(content)
            found = {name: content[name] for name in ("mu", "sigma", "n", "features") if name in names}
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; expected the statistics of a data set, an .npz") from error
    except (OSError, ValueError, EOFError, zlib.error, BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected an .npz with mu and sigma: it is cut short or of another kind"
        ) from error
    if not {"mu", "sigma"} <= found.keys():
        raise InputError(f"{path} must hold mu and sigma, got {names}; write it with `save_moments`.")
    mu, sigma = numbers(found["mu"], "mu"), numbers(found["sigma"], "sigma")
    if mu.ndim != 1 or sigma.shape != (mu.size, mu.size):
        raise InputError(
            f"{path} must hold mu (F,) and sigma (F, F), got {mu.shape} and {sigma.shape}; write it with "
            "`save_moments`."
        )
    n = int(whole(found["n"].item(), "n", 1, 1 << 62, "a count")) if "n" in found else None
    return Moments(mu, sigma, n, str(found["features"]) if "features" in found else None)


def symmetric_root(sigma):
    """The symmetric square root; eigenvalues that are zero but for rounding are zero."""
    values, vectors = np.linalg.eigh(sigma)
    floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    if values[0] < -max(1e-6 * values[-1], floor):
        raise InputError(
            f"sigma must be a covariance, got an eigenvalue of {values[0]:.3g} (the largest is {values[-1]:.3g}); "
            "compute it in float64."
        )
    return (vectors * np.sqrt(np.where(values > floor, values, 0.0))) @ vectors.T


def same_features(a: Moments, b: Moments) -> None:
    """Raise InputError unless both are of the same features, as far as they say."""
    if len(a.mu) != len(b.mu):
        raise InputError(
            f"moments must be of the same features, got {_called(a)} and {_called(b)}; "
            "compute both with one feature function."
        )
    if a.features is not None and b.features is not None and a.features != b.features:
        raise InputError(
            f"moments must be of the same features, got those of {a.features!r} and {b.features!r}; "
            "compute both with one feature function."
        )


def _called(m: Moments) -> str:
    return f"{len(m.mu)}" + (f" of {m.features!r}" if m.features is not None else "")
