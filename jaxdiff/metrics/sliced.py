"""Optimal transport is sorting in one dimension, so project on random directions and sort (Rabin et al. 2011):

    SW_p^p(P, Q) = E_u int_0^1 |F_u^{-1}(q) - G_u^{-1}(q)|^p dq,   u uniform on the sphere.

Empirical quantile functions are steps at i/N and j/M: between neighbouring steps of either, both are constant, so the
integral is a finite sum, exact for unequal counts, and its N + M - 1 intervals are the same for every direction."""

import numpy as np
from jaxtyping import Float64

from jaxdiff.errors import InputError
from jaxdiff.metrics.inputs import Table, generator, pair, whole
from jaxdiff.types import PRNGKey


def sliced_wasserstein(
    samples: Table, reference: Table, *, key: PRNGKey, projections: int = 256, order: float = 1.0
) -> float:
    """The sliced Wasserstein distance SW_p of (N, F) and (M, F) features over random directions, in the features' unit.

    A shift by c has E|c.u| at order 1, |c| / sqrt(F) at order 2. Raises InputError for different features, order < 1
    or no projection."""
    a, b = pair(samples, reference, ("samples", "reference"))
    whole(projections, "projections", 1, 1 << 30, "random directions")
    if not 1.0 <= order < np.inf:
        raise InputError(f"order must be finite and at least 1, got {order}; use 1 or 2.")
    u = generator(key).standard_normal((a.shape[1], projections))
    u /= np.linalg.norm(u, axis=0)
    i, j, width = _steps(len(a), len(b))
    total = 0.0
    for columns in np.array_split(u, -(-projections // 64), axis=1):  # 64 directions at a time
        gap = np.abs(np.sort(a @ columns, axis=0)[i] - np.sort(b @ columns, axis=0)[j])
        total += float((width @ gap**order).sum())
    return (total / projections) ** (1.0 / order)


def _steps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, Float64[np.ndarray, " s"]]:
    """Intervals on which both quantile functions are constant: ranks in each sample, and widths that sum to 1.

    Counted in whole units of 1 / (n m), so that no step is lost to rounding."""
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return starts // m, starts // n, (ends - starts) / (n * m)
