"""The squared distance of two laws' mean embeddings, without bias at any sample count (Gretton et al. 2012, eq. 3):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j).

With the cubic kernel (x.y / F + 1)^3 it compares all moments up to the third (Binkowski et al. 2018). For equal laws
its mean is zero at any count, so it can be negative. No bias is not power: on raw pixels the cubic kernel sees little
but means; a radial kernel at the data's own scale sees more."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.metrics.distances import squared_blocks
from jaxdiff.metrics.inputs import Table, generator, pair
from jaxdiff.types import PRNGKey

Kernel = Callable[[Any, Any], Any]
"""k(x, y): tables (N, F) and (M, F) -> Gram matrix (N, M)."""
ROWS = 2048  # rows of a Gram matrix at a time


class KernelDistance(NamedTuple):
    """MMD^2 and its standard error."""

    value: float
    standard_error: float


def cubic() -> Kernel:
    """k(x, y) = (x.y / F + 1)^3: the polynomial kernel of Binkowski et al. (2018)."""
    return Partial(_cubic)


def rbf(bandwidth: float) -> Kernel:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)): zero distance only for equal laws, but blind far from `bandwidth`.

    Raises InputError unless the bandwidth is positive."""
    if not 0.0 < bandwidth < np.inf:
        raise InputError(
            f"bandwidth must be positive, got {bandwidth}; `median_distance` of real data is a usual choice."
        )
    return Partial(_rbf, bandwidth)


def median_distance(a: Table, b: Table, *, most: int = 1000) -> float:
    """The median Euclidean distance between rows of `a` and of `b`, over `most` evenly spaced rows of each.

    Two disjoint pieces of *real* data give a bandwidth that doesn't move with the generator. Raises InputError for
    shapes that don't match."""
    a, b = pair(a, b, ("a", "b"))
    a, b = (x[np.linspace(0, len(x) - 1, min(len(x), most)).astype(int)] for x in (a, b))
    return float(np.sqrt(np.median(np.concatenate([block.ravel() for _, block in squared_blocks(a, b)]))))


def kernel_distance(
    samples: Table, reference: Table, *, kernel: Kernel | None = None, blocks: int = 10, key: PRNGKey | None = None
) -> KernelDistance:
    """The unbiased MMD^2 of (N, F) and (M, F) features with `kernel` (`cubic()` if none), and its standard error.

    The value uses all pairs. The error is that of the mean over `blocks` disjoint random subsets (shuffled by `key`),
    which bounds the value's from above: the all-pairs statistic is the subset mean averaged over all shuffles
    (Rao-Blackwell). It is NaN where there are too few samples for two blocks of two. Raises InputError for fewer than
    two samples or different features."""
    a, b = pair(samples, reference, ("samples", "reference"), (2, 2))
    kernel = cubic() if kernel is None else kernel
    rng = generator(jax.random.key(0) if key is None else key)
    count = min(blocks, len(a) // 2, len(b) // 2)
    error = float("nan")
    if count >= 2:
        pieces = (np.array_split(rng.permutation(x), count) for x in (a, b))
        parts = [_mmd(kernel, x, y) for x, y in zip(*pieces, strict=True)]
        error = float(np.std(parts, ddof=1) / np.sqrt(count))
    return KernelDistance(_mmd(kernel, a, b), error)


def _mmd(kernel, x, y):
    return _within(kernel, x) + _within(kernel, y) - 2.0 * _total(kernel, x, y) / (len(x) * len(y))


def _within(kernel, x):
    # Diagonal entries k(x_i, x_i) are what would bias the mean: row-wise blocks find them without a loop over rows.
    own = sum(np.trace(np.asarray(kernel(x[i : i + ROWS], x[i : i + ROWS]))) for i in range(0, len(x), ROWS))
    return (_total(kernel, x, x) - float(own)) / (len(x) * (len(x) - 1))


def _total(kernel, x, y):
    return float(sum(np.sum(np.asarray(kernel(x[i : i + ROWS], y))) for i in range(0, len(x), ROWS)))


def _cubic(x, y):
    inner = x @ y.T / x.shape[1] + 1.0
    return inner * inner * inner


def _rbf(bandwidth, x, y):
    return np.concatenate([np.exp(block / (-2.0 * bandwidth**2)) for _, block in squared_blocks(x, y)])
