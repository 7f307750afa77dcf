"""One dimension is scipy's sorted transport; more are closed forms of shifts and scalings."""

import math

import jax
import numpy as np
import pytest
import scipy.stats

from jaxdiff.metrics import sliced_wasserstein


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (40, 40), (12, 8), (31, 57), (100, 7)])
def test_one_dimension_is_scipys_distance_at_any_counts(n, m, key):
    rng = np.random.default_rng(n + 100 * m)
    x, y = rng.standard_normal(n), 0.3 + rng.exponential(size=m)
    found = sliced_wasserstein(x[:, None], y[:, None], key=key, projections=3)
    np.testing.assert_allclose(found, scipy.stats.wasserstein_distance(x, y), rtol=1e-12)


def test_order_two_at_unequal_counts_is_repetition(key):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 1)), rng.standard_normal((4, 1))
    repeated = np.sort(np.repeat(x, 2, 0), 0) - np.sort(np.repeat(y, 3, 0), 0)
    found = sliced_wasserstein(x, y, key=key, order=2.0)
    np.testing.assert_allclose(found, np.sqrt((repeated**2).mean()), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_a_shift_costs_its_mean_projection(size, key):
    rng = np.random.default_rng(size)
    x, c, count = rng.standard_normal((20, size)), rng.standard_normal(size), 4000
    length = np.linalg.norm(c)
    mean = length * math.gamma(size / 2) / (math.sqrt(math.pi) * math.gamma((size + 1) / 2))  # E|c.u|
    error = np.sqrt(max(length**2 / size - mean**2, 0.0) / count)
    found = sliced_wasserstein(x, x + c, key=key, projections=count)
    assert abs(found - mean) < 5 * error + 1e-12
    second = length**2 / size  # E (c.u)^2, and E (c.u)^4 = 3 |c|^4 / F (F + 2)
    spread = np.sqrt(max(3 * length**4 / (size * (size + 2)) - second**2, 0.0) / count)
    squared = sliced_wasserstein(x, x + c, key=key, projections=count, order=2.0) ** 2
    assert abs(squared - second) < 5 * spread + 1e-12


def test_gaussians_of_two_widths_on_their_quantiles(key):
    # W_2 of N(0, 1) and N(m, s^2) is sqrt(m^2 + (s - 1)^2); on n quantiles the tails cost O(log n / n).
    q = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    q /= q.std()
    found = sliced_wasserstein(q[:, None], 0.7 + 2.0 * q[::-1, None], key=key, order=2.0)
    np.testing.assert_allclose(found, np.hypot(0.7, 1.0), rtol=1e-12)
    ours, scipys = q[:, None], 1.5 * q[:, None]
    mean_abs = sliced_wasserstein(ours, scipys, key=key)  # E|z| / 2
    np.testing.assert_allclose(mean_abs, 0.5 * np.sqrt(2 / np.pi), rtol=1e-3)


def test_zero_for_a_shuffle_and_repeats_with_its_key(key):
    x = np.random.default_rng(1).standard_normal((30, 4))
    assert sliced_wasserstein(x, np.repeat(x[::-1], 3, 0), key=key) < 1e-14
    a, b, c = (sliced_wasserstein(x, 2 * x, key=jax.random.key(i)) for i in (0, 0, 1))
    assert a == b != c


def test_directions_favour_no_axis(key):
    # Along an axis and along a diagonal of the plane: directions drawn in a square would give the diagonal more.
    x = np.zeros((1, 2))
    costs = [sliced_wasserstein(x, np.array([c]), key=key, projections=40_000) for c in ([1.0, 1.0], [np.sqrt(2), 0.0])]
    spread = np.sqrt(2) * np.sqrt((0.5 - (2 / np.pi) ** 2) / 40_000)
    assert np.abs(np.array(costs) - np.sqrt(2) * 2 / np.pi).max() < 5 * spread
