"""MMD^2 of two known laws: a polynomial in their moments for the cubic kernel, a Gaussian integral for the radial."""

import jax
import numpy as np
import pytest

from jaxdiff.metrics import cubic, kernel_distance, median_distance, rbf


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def polynomial_mmd(p, q):
    """sum_j C(3, j) (E_p x^j - E_q x^j)^2 in one dimension, where (x y + 1)^3 = sum_j C(3, j) x^j y^j."""
    return sum(c * (p[j] - q[j]) ** 2 for j, c in enumerate([1, 3, 3, 1]))


def test_unbiased_for_equal_laws_at_six_samples():
    rng = np.random.default_rng(0)
    draws = [kernel_distance(*rng.standard_normal((2, 6, 4)), blocks=1).value for _ in range(4000)]
    mean, error = mean_and_error(draws)
    assert abs(mean) < 5 * error
    assert error < 0.02  # the biased statistic's mean is E k(x, x) / 3 - ..., over 1
    assert np.min(draws) < 0


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.0, 1.5), (-0.5, 0.7)])
def test_cubic_kernel_has_the_moment_polynomial_as_mean(shift, scale):
    rng = np.random.default_rng(1)
    one = [1, 0, 1, 0]
    two = [1, shift, shift**2 + scale**2, shift**3 + 3 * shift * scale**2]
    draws = [
        kernel_distance(rng.standard_normal((7, 1)), shift + scale * rng.standard_normal((11, 1)), blocks=1).value
        for _ in range(2000)
    ]
    mean, error = mean_and_error(draws)
    expected = polynomial_mmd(one, two)
    assert abs(mean - expected) < 5 * error
    assert 5 * error < expected  # so that zero would fail


def test_cubic_kernel_sees_the_third_moment():
    rng = np.random.default_rng(2)
    skewed = [1, 0, 1, 2]  # a centred exponential
    draws = [
        kernel_distance(rng.exponential(size=(60, 1)) - 1, rng.standard_normal((60, 1)), blocks=1).value
        for _ in range(3000)
    ]
    mean, error = mean_and_error(draws)
    assert abs(mean - polynomial_mmd(skewed, [1, 0, 1, 0])) < 5 * error
    assert 5 * error < 4


def test_radial_kernel_has_the_gaussian_integral_as_mean():
    # E exp(-(x - y)^2 / 2 h^2) for x - y ~ N(m, v) is h / sqrt(h^2 + v) exp(-m^2 / 2 (h^2 + v))
    rng, h, m = np.random.default_rng(3), 0.8, 1.0
    total = h**2 + 2
    expected = 2 * h / np.sqrt(total) * (1 - np.exp(-(m**2) / (2 * total)))
    draws = [
        kernel_distance(rng.standard_normal((6, 1)), m + rng.standard_normal((9, 1)), kernel=rbf(h), blocks=1).value
        for _ in range(2000)
    ]
    mean, error = mean_and_error(draws)
    assert abs(mean - expected) < 5 * error
    assert 5 * error < expected


def test_value_is_the_double_loop():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))

    def k(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 20
    within += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 12
    cross = sum(k(a, b) for a in x for b in y) / 20
    np.testing.assert_allclose(kernel_distance(x, y, blocks=1).value, within - 2 * cross, rtol=1e-12)


def test_long_tables_in_blocks_of_rows_equal_one_matrix(monkeypatch):
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((53, 3)), rng.standard_normal((31, 3))
    whole = [kernel_distance(x, y, kernel=k, blocks=1).value for k in (cubic(), rbf(1.0))]
    monkeypatch.setattr("jaxdiff.metrics.kernel.ROWS", 7)
    monkeypatch.setattr("jaxdiff.metrics.distances.BLOCK", 64)
    np.testing.assert_allclose([kernel_distance(x, y, kernel=k, blocks=1).value for k in (cubic(), rbf(1.0))], whole)


def test_standard_error_is_the_subset_means_and_bounds_the_values():
    rng, key = np.random.default_rng(6), jax.random.key(0)
    near, far = ([], []), ([], [])
    for kept, shift in ((near, 0.0), (far, 3.0)):
        for _ in range(300):
            value, error = kernel_distance(rng.standard_normal((80, 2)), shift + rng.standard_normal((80, 2)), key=key)
            kept[0].append(value)
            kept[1].append(error)
    for values, errors in (near, far):
        assert np.std(values) < 1.15 * np.sqrt(np.mean(np.square(errors)))
    # Far apart the statistic is a mean of independent terms, and blocks of it lose little.
    assert np.std(far[0]) > 0.7 * np.sqrt(np.mean(np.square(far[1])))


def test_rows_in_class_order_are_shuffled_before_blocks():
    rng = np.random.default_rng(7)
    x, y = (np.sort(rng.standard_normal((400, 1)), axis=0) for _ in range(2))
    errors = [
        kernel_distance(x, y[order], key=jax.random.key(1)).standard_error
        for order in (slice(None), slice(None, None, -1))
    ]
    assert errors[1] < 3 * errors[0]


def test_too_few_for_blocks_says_nan_and_the_same_key_repeats():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((3, 2)), rng.standard_normal((30, 2))
    assert np.isnan(kernel_distance(x, y).standard_error)
    a, b, c = (kernel_distance(y, y[::2], key=jax.random.key(i)) for i in (1, 1, 2))
    assert a == b
    assert a.standard_error != c.standard_error


def test_median_distance_of_gaussians():
    # |x - y|^2 / 2 is chi-squared with 2 degrees of freedom in the plane: median 2 log 2
    rng = np.random.default_rng(9)
    found = median_distance(rng.standard_normal((1500, 2)), rng.standard_normal((1200, 2)))
    assert abs(found - np.sqrt(4 * np.log(2))) < 0.1
