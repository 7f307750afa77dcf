"""Fidelity and diversity apart, by balls that reach to each point's k-th nearest neighbour in its own set.

Precision: samples inside some real ball. Recall: real points inside some sample ball (Kynkaanniemi et al. 2019).
Density: how many real balls hold a sample, over k, which one outlier can't inflate. Coverage: real balls that hold some
sample (Naeem et al. 2020). Balls are closed. Euclidean distance ties up to rounding count as inside."""

from typing import NamedTuple

import numpy as np

from jaxdiff.metrics.distances import TIE, nearest, squared_blocks
from jaxdiff.metrics.inputs import Table, pair, whole


class PrecisionRecall(NamedTuple):
    """Two fractions in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density, with expectation 1 for equal laws (it can exceed 1), and a fraction in [0, 1]."""

    density: float
    coverage: float


def precision_recall(samples: Table, reference: Table, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of (N, F) samples against (M, F) reference features (Kynkaanniemi et al. 2019).

    precision = mean_j [some i: |y_j - x_i| <= r_k(x_i)], and recall the same with samples y and reference x exchanged.
    Both fall with the number of samples. Raises InputError for different features or k >= N or M."""
    samples, reference = _checked(samples, reference, k, both=True)
    return PrecisionRecall(_fraction_inside(samples, reference, k), _fraction_inside(reference, samples, k))


def density_coverage(samples: Table, reference: Table, *, k: int = 5) -> DensityCoverage:
    """Density and coverage of (N, F) samples against (M, F) reference features (Naeem et al. 2020).

    density = sum_{j, i} [|y_j - x_i| <= r_k(x_i)] / (k N), coverage = mean_i [some j: |y_j - x_i| <= r_k(x_i)].
    A copy of the reference has density (k + 1) / k, since each ball then holds its own centre too. Raises InputError
    for different features or k >= M."""
    samples, reference = _checked(samples, reference, k, both=False)
    radii = _radii(reference, k)
    held, hit = 0, np.zeros(len(reference), bool)
    for _, block in squared_blocks(samples, reference):
        inside = block <= radii
        held += int(inside.sum())
        hit |= inside.any(0)
    return DensityCoverage(held / (k * len(samples)), float(hit.mean()))


def expected_coverage(samples: int, reference: int, k: int = 5) -> float:
    """Coverage's mean for two draws of one continuous law, whatever the law and the dimension (Naeem et al. 2020).

    1 - prod_{i=1}^{k} (M - i) / (N + M - i) with N samples and M reference points: the chance that the k nearest of a
    real point's M - 1 + N neighbours are not all real. Raises InputError unless N >= 1 and 1 <= k < M."""
    whole(samples, "samples", 1, 1 << 40, "a count")
    whole(k, "k", 1, reference - 1, "each reference point has one neighbour fewer than there are points")
    i = np.arange(1, k + 1)
    return float(1.0 - np.prod((reference - i) / (samples + reference - i)))


def _fraction_inside(points, centres, k):
    radii = _radii(centres, k)
    return sum(int((block <= radii).any(1).sum()) for _, block in squared_blocks(points, centres)) / len(points)


def _radii(points, k):
    """Squared distance to the k-th nearest other point."""
    return nearest(points, points, k=k, skip_self=True)[0][:, -1] ** 2 * (1.0 + TIE)


def _checked(samples, reference, k, both):
    samples, reference = pair(samples, reference, ("samples", "reference"), (1, 2))
    fewest = min(len(samples), len(reference)) if both else len(reference)
    whole(k, "k", 1, fewest - 1, "each point has one neighbour fewer than there are points")
    return samples, reference
