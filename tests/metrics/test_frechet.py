"""The oracle is Gaussians' closed form, and scipy's general matrix square root where covariances don't commute."""

import numpy as np
import pytest
import scipy.linalg

from jaxdiff.errors import InputError
from jaxdiff.metrics import Moments, frechet_distance, load_moments, merge, moments, save_moments, stream


def gaussian(rng, size, rank=None):
    root = rng.standard_normal((size, rank or size))
    return Moments(rng.standard_normal(size), root @ root.T, None)


def test_commuting_covariances_have_the_closed_form():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    s, t, shift = rng.uniform(0.1, 4, 5), rng.uniform(0.1, 4, 5), rng.standard_normal(5)
    a, b = Moments(np.zeros(5), (q * s**2) @ q.T, None), Moments(shift, (q * t**2) @ q.T, None)
    np.testing.assert_allclose(frechet_distance(a, b), shift @ shift + ((s - t) ** 2).sum(), rtol=1e-13)


def test_non_commuting_covariances_equal_the_general_square_root():
    rng = np.random.default_rng(1)
    a, b = gaussian(rng, 12), gaussian(rng, 12)
    assert np.abs(a.sigma @ b.sigma - b.sigma @ a.sigma).max() > 1.0
    root = scipy.linalg.sqrtm(a.sigma @ b.sigma)
    expected = ((a.mu - b.mu) ** 2).sum() + np.trace(a.sigma + b.sigma - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-11)


def test_two_by_two_has_a_closed_form_trace():
    # tr (S S')^(1/2) of 2x2 matrices: sqrt(tr(S S') + 2 sqrt(det(S S')))
    rng = np.random.default_rng(2)
    a, b = gaussian(rng, 2), gaussian(rng, 2)
    product = a.sigma @ b.sigma
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = ((a.mu - b.mu) ** 2).sum() + np.trace(a.sigma) + np.trace(b.sigma) - 2 * cross
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_rank_deficient_covariances_lose_no_digits(rank):
    # Laws on a subspace, rotated into 30 dimensions, are as far apart as in the subspace.
    rng = np.random.default_rng(rank)
    a, b = gaussian(rng, rank), gaussian(rng, rank)
    q = np.linalg.qr(rng.standard_normal((30, rank)))[0]
    up_a, up_b = (Moments(q @ m.mu, q @ m.sigma @ q.T, None) for m in (a, b))
    np.testing.assert_allclose(frechet_distance(up_a, up_b), frechet_distance(a, b), rtol=1e-12)


def test_one_dimensional_law_against_a_full_one():
    # S = v v^T: tr (S S')^(1/2) = sqrt(v^T S' v)
    rng = np.random.default_rng(3)
    v, b = rng.standard_normal(40), gaussian(rng, 40)
    a = Moments(b.mu, np.outer(v, v), None)
    expected = v @ v + np.trace(b.sigma) - 2 * np.sqrt(v @ b.sigma @ v)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


def test_fewer_samples_than_features_and_a_point_mass():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((6, 25)), rng.standard_normal((9, 25))
    a, b = moments(x), moments(y)
    root = scipy.linalg.svdvals((x - x.mean(0)) @ (y - y.mean(0)).T).sum() / np.sqrt(
        5 * 8
    )  # tr |X Y^T|: no square root
    expected = ((a.mu - b.mu) ** 2).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * root
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-13)
    assert not a.full_rank
    assert not moments(rng.standard_normal((25, 25))).full_rank  # the mean takes one direction
    assert moments(rng.standard_normal((26, 25))).full_rank
    point = moments(np.zeros((5, 25)))
    np.testing.assert_allclose(frechet_distance(point, a), a.mu @ a.mu + np.trace(a.sigma), rtol=1e-14)


def test_zero_for_itself_symmetric_and_unmoved_by_isometries():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 8)), rng.standard_normal((70, 8))
    q, c = np.linalg.qr(rng.standard_normal((8, 8)))[0], 1e3 * rng.standard_normal(8)
    d = frechet_distance(moments(x), moments(y))
    assert frechet_distance(moments(x), moments(x)) < 1e-12
    np.testing.assert_allclose(frechet_distance(moments(y), moments(x)), d, rtol=1e-12)
    np.testing.assert_allclose(frechet_distance(moments(x @ q + c), moments(y @ q + c)), d, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(moments(3 * x), moments(3 * y)), 9 * d, rtol=1e-12)


@pytest.mark.parametrize("cuts", [[1], [1, 2, 3], [40], [7, 50, 99]])
def test_streaming_in_any_chunks_is_one_pass_and_is_numpy(cuts):
    x = 1e6 + np.random.default_rng(6).standard_normal((100, 5))  # a far mean: sums of squares would lose 12 digits
    m = stream(np.split(x, cuts))
    np.testing.assert_allclose(m.mu, x.mean(0), rtol=1e-15)
    np.testing.assert_allclose(m.sigma, np.cov(x.T), rtol=1e-8, atol=1e-9)
    assert m.n == 100
    other = merge(moments(x[60:]), moments(x[:60]))
    np.testing.assert_allclose(other.sigma, m.sigma, rtol=1e-8, atol=1e-9)


def test_files_hold_moments_and_foreign_files_load(tmp_path):
    m = moments(np.random.default_rng(7).standard_normal((9, 3)))
    save_moments(tmp_path / "ours.npz", m)
    back = load_moments(tmp_path / "ours.npz")
    np.testing.assert_array_equal(back.mu, m.mu)
    np.testing.assert_array_equal(back.sigma, m.sigma)
    assert back.n == 9
    np.savez(tmp_path / "theirs.npz", mu=m.mu.astype(np.float32), sigma=m.sigma)
    theirs = load_moments(tmp_path / "theirs.npz")
    assert theirs.n is None
    assert frechet_distance(theirs, m) < 1e-6
    with pytest.raises(InputError, match="counts"):
        merge(theirs, m)
    save_moments(tmp_path / "again.npz", theirs)
    assert load_moments(tmp_path / "again.npz").n is None


@pytest.mark.parametrize(
    "content",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3), "sigma": np.eye(2)},
        {"mu": np.zeros((3, 1)), "sigma": np.eye(3)},
        {"mu": np.zeros(3), "sigma": np.eye(3) * np.nan},
        {"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])},
    ],
)
def test_mistakes_in_files(tmp_path, content):
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(InputError):
        load_moments(tmp_path / "bad.npz")


def test_a_negative_eigenvalue_is_refused():
    bad = Moments(np.zeros(2), np.diag([1.0, -0.1]), None)
    with pytest.raises(InputError, match=r"eigenvalue of -0\.1"):
        frechet_distance(bad, Moments(np.zeros(2), np.eye(2), None))
