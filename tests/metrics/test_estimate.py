"""Means, shares and ratios carry the standard error that repeating them would show."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxdiff.errors import InputError
from jaxdiff.metrics.estimate import Estimate, fraction, mean, ratio


def test_a_mean_has_scipys_standard_error():
    x = np.array([1.0, 4.0, 4.5, -2.0, 0.25])
    assert mean(x) == Estimate(x.mean(), pytest.approx(stats.sem(x), rel=1e-14), 5)
    assert str(mean(x)) == "1.55 +- 1.2"
    assert (mean([3.0]).value, mean([3.0]).n) == (3.0, 1)
    assert math.isnan(mean([3.0]).stderr)
    assert all(math.isnan(x) for x in mean([])[:2])
    with pytest.raises(InputError, match="qed must be finite, got 1 NaN"):
        mean([1.0, np.nan], "qed")


def test_a_share_has_the_binomial_error():
    assert fraction(3, 12) == Estimate(0.25, 0.125, 12)
    assert fraction(0, 5)[:2] == (0.0, 0.0)
    assert math.isnan(fraction(0, 0).value)
    for count, n in ((-1, 3), (4, 3)):
        with pytest.raises(InputError, match=f"got {count} of {n}"):
            fraction(count, n)


def test_a_ratios_error_is_its_spread_over_repetitions():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 60, (4000, 80))
    sums = sizes * 1.5 + np.sqrt(sizes) * rng.standard_normal(sizes.shape)
    found = np.array([ratio(a, b)[:2] for a, b in zip(sums, sizes, strict=True)])
    assert abs(found[:, 0].mean() - 1.5) < 5 * found[:, 0].std() / 4000**0.5
    spread = found[:, 0].std(ddof=1)  # known to 1 / sqrt(2 n) of itself
    assert abs(np.sqrt(np.mean(found[:, 1] ** 2)) / spread - 1) < 5 / np.sqrt(2 * 4000) + 1 / 80


def test_a_ratio_over_equal_counts_is_a_mean():
    x = np.array([3.0, 5.0, 10.0])
    assert ratio(x, 2) == pytest.approx(mean(x / 2), rel=1e-14)
    assert math.isnan(ratio([1.0], [2.0]).stderr)
    for above, below in (([], []), ([1.0], [0.0]), ([1.0, 2.0], [3.0, -1.0]), (np.eye(1), np.eye(1))):
        with pytest.raises(InputError, match="over positive counts"):
            ratio(above, below)
