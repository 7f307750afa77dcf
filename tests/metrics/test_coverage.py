"""Balls whose contents are known: by construction, or in expectation for any continuous law."""

import numpy as np
import pytest

from jaxdiff.metrics import density_coverage, expected_coverage, precision_recall


def test_disjoint_sets_score_zero():
    x = np.random.default_rng(0).standard_normal((40, 3))
    assert precision_recall(x, x + 100.0) == (0.0, 0.0)
    assert density_coverage(x, x + 100.0) == (0.0, 0.0)


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_copies_score_one_and_density_counts_the_centre(far):
    x = far + np.random.default_rng(1).standard_normal((60, 4))
    assert precision_recall(x, x[::-1]) == (1.0, 1.0)
    density, coverage = density_coverage(x, x[::-1], k=5)
    assert coverage == 1.0
    np.testing.assert_allclose(density, 6 / 5, rtol=1e-12)


def test_duplicates_with_balls_of_radius_zero_are_still_covered():
    x = np.repeat(np.random.default_rng(2).standard_normal((5, 3)), 7, axis=0)
    assert precision_recall(x, x, k=3) == (1.0, 1.0)
    assert density_coverage(x, x, k=5).coverage == 1.0


def test_points_on_a_line_counted_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # k = 1 radii: 1, 1, 1, 8
    fake = np.array([[0.5], [2.9], [30.0]])  # in the balls of {0, 1}, {2, 10}, {}
    assert precision_recall(fake, real, k=1).precision == 2 / 3
    assert density_coverage(fake, real, k=1) == (4 / 3, 1.0)
    # fake radii: 2.4, 2.4, 27.1, so balls [-1.9, 2.9], [.5, 5.3], [2.9, 57.1]
    assert precision_recall(fake, real, k=1).recall == 1.0
    # Without the middle real points: radii 10, 10; 0.5 and 2.9 lie in the balls [-10, 10] and [0, 20].
    assert density_coverage(fake, real[[0, 3]], k=1) == (4 / 3, 1.0)
    assert density_coverage(fake[2:], real, k=1) == (0.0, 0.0)


def test_a_lost_mode_costs_recall_and_a_wrong_one_precision():
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((2, 100, 2)) + np.array([[[-50.0, 0]], [[50.0, 0]]])
    fresh = rng.standard_normal((100, 2)) + np.array([-50.0, 0])
    both = np.concatenate([left, right])
    lost = precision_recall(fresh, both)
    assert lost.recall <= 0.5
    assert lost.precision > 0.8
    assert density_coverage(fresh, both).coverage <= 0.5
    wrong = precision_recall(both, fresh)
    assert wrong.precision <= 0.5
    assert wrong.recall > 0.8


@pytest.mark.parametrize(("n", "m", "k"), [(30, 30, 3), (50, 20, 5), (15, 60, 5)])
@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_equal_laws_have_density_one_and_the_closed_form_coverage(n, m, k, law):
    rng = np.random.default_rng(n * m + k)
    draw = getattr(rng, f"standard_{law}")
    scores = np.array([density_coverage(draw((n, 2)), draw((m, 2)), k=k) for _ in range(1000)])
    errors = scores.std(0, ddof=1) / np.sqrt(len(scores))
    assert (errors < 0.02).all()
    assert (np.abs(scores.mean(0) - [1.0, expected_coverage(n, m, k)]) < 5 * errors).all()


def test_expected_coverage_of_two_points_and_its_limit():
    # Two real points, k = 1: a sample is nearer to the first than the second real point is, with chance 1/2.
    assert expected_coverage(1, 2, 1) == pytest.approx(0.5)
    assert expected_coverage(100_000, 100_000, 5) == pytest.approx(1 - 2.0**-5, abs=1e-4)


def test_blocks_of_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((61, 3)), 0.5 + rng.standard_normal((47, 3))
    whole = precision_recall(x, y), density_coverage(x, y)
    monkeypatch.setattr("jaxdiff.metrics.distances.BLOCK", 100)
    assert (precision_recall(x, y), density_coverage(x, y)) == whole
