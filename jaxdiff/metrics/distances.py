"""Euclidean neighbours by brute force, in blocks of rows so that memory stays flat.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product, about features centred on the reference: the rounding error is
then relative to the spread of the data and not to its distance from the origin."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

from jaxdiff.metrics.inputs import Table, pair, whole

BLOCK = 1 << 22  # entries of one block of the distance matrix: 32 MB
COPY = 1e-13  # a squared distance below this, relative to the squared lengths, is rounding: the rows are copies
TIE = 1e-9  # relative slack in squared distances that are equal but for rounding


def squared_blocks(
    rows: Float64[np.ndarray, "n f"], columns: Float64[np.ndarray, "m f"]
) -> Iterator[tuple[slice, Float64[np.ndarray, "_ m"]]]:
    """Yield (slice of rows, squared distances to all columns); exact copies are at 0 up to rounding, never below."""
    centre = columns.mean(0)
    rows, columns = rows - centre, columns - centre
    lengths = np.einsum("nf,nf->n", columns, columns)
    longest = lengths.max()
    step = max(1, BLOCK // len(columns))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        own = np.einsum("nf,nf->n", part, part)[:, None]
        block = part @ columns.T
        block *= -2.0
        block += own
        block += lengths
        block[block < COPY * (own + longest)] = 0.0
        yield slice(start, start + len(part)), block


def nearest(
    queries: Table, reference: Table, *, k: int = 1, skip_self: bool = False
) -> tuple[Float64[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]:
    """The `k` nearest reference rows of each query, nearest first: Euclidean distances (N, k) and row numbers (N, k).

    `skip_self` leaves row i out for query i, for distances within one set. Ties at k = 1 go to the lower row number.
    Raises InputError for shapes that don't match or k above the number of reference rows."""
    queries, reference = pair(queries, reference, ("queries", "reference"))
    whole(k, "k", 1, len(reference) - skip_self, "the number of neighbours that the reference has")
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int64)
    for rows, block in squared_blocks(queries, reference):
        if skip_self:
            here = np.arange(rows.start, rows.stop)
            block[here - rows.start, here] = np.inf
        if k == 1:
            best = block.argmin(1)[:, None]
        else:
            best = np.argpartition(block, k - 1, axis=1)[:, :k]
            best.sort(axis=1)
            best = np.take_along_axis(best, np.take_along_axis(block, best, 1).argsort(1, kind="stable"), 1)
        indices[rows] = best
        distances[rows] = np.sqrt(np.take_along_axis(block, best, 1))
    return distances, indices
