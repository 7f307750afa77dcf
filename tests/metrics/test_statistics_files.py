"""Statistics of a data set: the same in any chunks, in a file, under the name of their features; and what a distance
to them is worth."""

import jax
import numpy as np
import pytest
from scipy.special import gammaln

from jaxdiff.errors import InputError
from jaxdiff.metrics import (
    Moments,
    extract,
    frechet_distance,
    gaussian_floor,
    load_moments,
    merge,
    moments,
    name_of,
    named,
    over_seeds,
    pca,
    pixels,
    save_moments,
    statistics,
    worth,
)

IMAGES = np.random.default_rng(0).standard_normal((37, 3, 2, 1)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000])
def test_any_chunks_give_numpys_covariance(chunk):
    rows = IMAGES.reshape(37, -1).astype(np.float64)
    for images in (IMAGES, [IMAGES[:4], IMAGES[4:30], IMAGES[30:]], (IMAGES[i : i + 1] for i in range(37))):
        found = statistics(images, pixels(), chunk=chunk)
        np.testing.assert_allclose(found.mu, rows.mean(0), rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(found.sigma, np.cov(rows.T), rtol=1e-12, atol=1e-15)
        assert (found.n, found.features) == (37, "pixels")


def test_features_are_asked_for_no_more_than_a_chunk():
    seen = []

    def features(x):
        seen.append(len(x))
        return x.reshape(len(x), -1)

    assert statistics(IMAGES, features, chunk=10).features is None
    assert seen == [10, 10, 10, 7]


def test_names_are_kept_and_compared(tmp_path):
    ours = statistics(IMAGES, pixels())
    save_moments(tmp_path / "stats.npz", ours)
    back = load_moments(tmp_path / "stats.npz")
    assert (back.n, back.features) == (37, "pixels")
    assert frechet_distance(back, ours) < 1e-12
    other = statistics(IMAGES, named("edges", lambda x: x.reshape(len(x), -1)))
    for do in (frechet_distance, merge):
        with pytest.raises(InputError, match="got those of 'pixels' and 'edges'"):
            do(back, other)
    with pytest.raises(InputError, match=r"got 6 of 'pixels' and 4 of 'edges'; compute both with one feature function"):
        frechet_distance(back, Moments(np.zeros(4), np.eye(4), None, "edges"))
    np.savez(tmp_path / "foreign.npz", mu=ours.mu, sigma=ours.sigma)
    foreign = load_moments(tmp_path / "foreign.npz")
    assert (foreign.n, foreign.features) == (None, None)
    assert frechet_distance(foreign, other) < 1e-12  # whose features are not known can't be refused
    with pytest.raises(InputError, match="got 6 and 4"):
        frechet_distance(foreign, Moments(np.zeros(4), np.eye(4), None))


def test_two_bases_have_two_names():
    one, two = pca(IMAGES, 2), pca(IMAGES[:20], 2)
    assert name_of(one) == name_of(pca(IMAGES, 2))
    assert name_of(one) != name_of(two)
    assert name_of(len) is None
    np.testing.assert_array_equal(extract(named("mine", one), IMAGES), extract(one, IMAGES))


def test_damaged_files_are_said(tmp_path):
    path = tmp_path / "stats.npz"
    with pytest.raises(InputError, match="there is no file"):
        load_moments(path)
    save_moments(path, statistics(IMAGES, pixels()))
    whole = path.read_bytes()
    flipped = bytes(b ^ 255 if 200 < i < 240 else b for i, b in enumerate(whole))
    for content in (b"", b"mu, sigma", whole[:50], whole[: len(whole) // 2], flipped):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            load_moments(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match="cannot be read"):
        load_moments(tmp_path / "array.npy")
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), n=np.int64(0))
    with pytest.raises(InputError, match="n must be 1"):
        load_moments(path)


def test_seeds_have_their_least_mean_and_spread():
    reference = Moments(np.zeros(2), np.eye(2), None)
    sets = [Moments(np.array([c, 0.0]), np.eye(2), None) for c in (3.0, 1.0, 2.0)]
    found = over_seeds(sets, reference)
    np.testing.assert_allclose(found.each, [9, 1, 4], rtol=1e-12)
    np.testing.assert_allclose([found.min, found.mean, found.std], [1, 14 / 3, np.std([9, 1, 4], ddof=1)], rtol=1e-12)
    assert over_seeds(sets[:1], reference).std is None
    with pytest.raises(InputError, match="no set of samples"):
        over_seeds([], reference)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_floor_of_one_feature_is_exact(n, key):
    """E (mean - m)^2 + E (s - s_n)^2 = s^2 / n + 2 s^2 (1 - c_4(n)); within five standard errors."""
    reference, draws = Moments(np.array([3.0]), np.array([[4.0]]), None), 3000
    c4 = np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    expected = 4 / n + 8 * (1 - c4)
    found = gaussian_floor(reference, n, key=key, draws=draws)
    each = [gaussian_floor(reference, n, key=k, draws=1) for k in jax.random.split(key, 200)]
    assert abs(found - expected) < 5 * np.std(each) / np.sqrt(draws)


def test_the_floor_of_many_features_is_the_expansion_where_that_holds(key):
    """n >> F: tr(S) / n + (sum_ij l_i l_j / (l_i + l_j) + tr(S) / 2) / (2 n), the Bures metric of a Wishart error. Its
    next term is of relative order F / n."""
    values, n = np.array([4.0, 1.0, 0.25, 0.0]), 20_000
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    reference = Moments(np.ones(4), (q * values) @ q.T, None)
    some = values[:3]
    harmonic = (some[:, None] * some / (some[:, None] + some)).sum()
    expected = some.sum() / n + (harmonic + some.sum() / 2) / (2 * n)
    each = [gaussian_floor(reference, n, key=k, draws=1) for k in jax.random.split(key, 60)]
    assert abs(np.mean(each) - expected) < 5 * np.std(each) / np.sqrt(60) + 4 / n * expected


def test_what_few_samples_are_worth(key):
    rows = np.random.default_rng(1).standard_normal((500, 30))
    reference, few, enough = moments(rows), moments(rows[:12]), moments(rows[:31])
    floor = gaussian_floor(reference, 12, key=key)
    said = worth(few, reference, floor)
    assert len(said) == 1
    assert "12 samples of 30 features give a covariance of rank 11" in said[0]
    assert f"{floor:.4g}" in said[0]
    assert "draw more than 30 samples" in said[0]
    assert worth(enough, reference) == []
    assert "reference itself is 12 examples of 30 features, a covariance of rank 11" in worth(enough, few)[0]
    assert worth(enough, Moments(reference.mu, reference.sigma, None)) == []


@pytest.mark.parametrize("images", [IMAGES[:0], [], [IMAGES, IMAGES[:0]], [IMAGES, IMAGES[:, :2]]])
def test_mistakes_in_images(images):
    with pytest.raises(InputError):
        statistics(images, pixels())
