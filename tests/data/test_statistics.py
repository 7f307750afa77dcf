"""Spreads, spectra and suggestions are right on data of known law, and are checked by other programs on real data."""

import math

import numpy as np
import pytest
from scipy import integrate
from scipy.spatial.distance import pdist
from scipy.stats import norm

from jaxdiff.data import (
    Images,
    diameter,
    digits,
    gaussian_mmse,
    mnist_5k,
    prior_gap,
    sigma_data,
    spectrum,
    statistics,
    suggest,
)
from jaxdiff.errors import InputError


def exactly(eigenvalues, n=400, mean=0.0, seed=0):
    """(n, d) data whose covariance has exactly these eigenvalues, in random directions."""
    rng = np.random.default_rng(seed)
    d = len(eigenvalues)
    white = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, d))]))[0][:, 1:] * n**0.5
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return mean + (white * np.sqrt(eigenvalues)) @ turn


@pytest.fixture(params=["digits", "colour"])
def images(request):
    if request.param == "digits":
        return digits()
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), np.uint8)
    return Images("colour", (pixels * [1, 0.5, 0.1]).astype(np.uint8))


@pytest.mark.parametrize("chunk", [1, 1000, 2**22])
def test_the_spread_is_numpys(images, chunk, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    x, got = images.to_model().astype(np.float64), sigma_data(images)
    assert got.overall == pytest.approx(x.std(), rel=1e-12)
    np.testing.assert_allclose(got.per_channel, x.std((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(got.channel_means, x.mean((0, 1, 2)), rtol=1e-12)
    assert got.about_mean_image == pytest.approx(math.sqrt(x.var(0).mean()), rel=1e-12)


def test_the_spread_keeps_its_digits_far_from_zero():
    x = 1e6 + 1e-3 * np.array([[-1.0], [1.0]] * 1000)
    assert sigma_data(x).overall == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("n", [400, 30])
def test_the_spectrum_is_the_one_put_in(n):
    values = np.geomspace(100, 0.01, 20)
    np.testing.assert_allclose(spectrum(exactly(values, n=n, mean=3.0)), values, rtol=1e-9)


def test_fewer_examples_than_values_show_the_same_spectrum():
    x = digits().to_model()[:40].reshape(40, -1).astype(np.float64)
    np.testing.assert_allclose(
        spectrum(digits().take(slice(40))), np.linalg.svd(x - x.mean(0))[1] ** 2 / 40, atol=1e-12
    )


def test_a_large_set_is_read_at_random_examples(monkeypatch):
    monkeypatch.setattr(statistics, "EXAMPLES", 1000)
    some, every = spectrum(digits()), np.linalg.eigvalsh(np.cov(digits().to_model().reshape(1797, -1).T))[::-1]
    assert not np.allclose(some, every, rtol=1e-6)
    np.testing.assert_allclose(some[:10], every[:10], rtol=0.2)


def test_the_trace_is_the_spread():
    assert spectrum(digits()).sum() / 64 == pytest.approx(sigma_data(digits()).about_mean_image ** 2, rel=1e-12)


def test_the_mean_square_error_is_wieners():
    rng = np.random.default_rng(1)
    values = np.array([4.0, 1.0, 0.01])
    for sigma in (0.1, 1.0, 5.0):
        x0 = rng.normal(size=(20000, 3)) * np.sqrt(values)
        x = x0 + sigma * rng.normal(size=x0.shape)
        gain = (x0 * x).mean(0) / (x * x).mean(0)  # least squares, one direction at a time
        errors = np.square(x0 - gain * x).sum(1)
        assert abs(errors.mean() - gaussian_mmse(values, sigma)) < 5 * errors.std() / len(errors) ** 0.5
    assert gaussian_mmse(values, np.ones((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(("mean", "value", "sigma"), [(0.7, 2.0, 1.5), (0.0, 0.3, 4.0), (-3.0, 0.0, 2.0)])
def test_the_prior_gap_is_the_integral(mean, value, sigma):
    p, q = norm(mean, math.sqrt(value + sigma**2)), norm(0, sigma)
    want = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -60, 60, points=[mean], limit=200)[0]
    assert prior_gap([mean], [value], sigma) == pytest.approx(want, rel=1e-8)
    assert prior_gap([mean, mean], [value, value], sigma) == pytest.approx(2 * want, rel=1e-8)


def test_the_diameter_is_scipys():
    assert diameter(digits()) == pytest.approx(pdist(digits().to_model().reshape(1797, -1)).max(), rel=1e-6)


def test_the_diameter_of_a_large_set_is_sought_far_from_its_mean(monkeypatch):
    monkeypatch.setattr(statistics, "FAR", 50)
    assert diameter(digits()) <= pdist(digits().to_model().reshape(1797, -1)).max() * (1 + 1e-9)
    x = np.random.default_rng(0).normal(size=(2000, 3))
    x[1234], x[7] = [50, 0, 0], [-40, 0, 0]
    assert diameter(x) == pytest.approx(90, rel=1e-12)


def by_quadrature(values):
    """Mean and standard deviation over log sigma of 1 - MMSE / (MMSE of one variance), from `gaussian_mmse` alone."""
    u = np.linspace(-25, 25, 20001)
    one = gaussian_mmse(np.full(len(values), np.mean(values)), np.exp(u))
    gain = 1 - gaussian_mmse(values, np.exp(u)) / one
    mean = (gain * u).sum() / gain.sum()
    return mean, math.sqrt((gain * (u - mean) ** 2).sum() / gain.sum())


@pytest.mark.parametrize("values", [[4.0, 4.0, 4.0, 0.01], [9.0, 1.0], np.geomspace(100, 1e-3, 30), [1.0, 1.1]])
def test_the_suggested_law_has_the_moments_of_the_gain(values):
    advice = suggest(exactly(np.array(values)))
    mean, std = by_quadrature(np.array(values))
    assert advice.P_mean.value == pytest.approx(mean, abs=1e-6)
    assert advice.P_std.value == pytest.approx(std, rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(4.0, 0.25), (100.0, 0.01), (2.0, 1.0)])
def test_two_variances_have_the_closed_form(a, b):
    advice = suggest(exactly(np.array([a, a, a, b, b, b])))
    assert advice.P_mean.value == pytest.approx(math.log(a * b) / 4, abs=1e-9)
    assert advice.P_std.value == pytest.approx(math.sqrt((math.pi**2 + math.log(a / b) ** 2 / 4) / 12), rel=1e-9)


def test_one_variance_is_the_limit():
    for values in (np.full(5, 4.0), np.array([4.0])):
        advice = suggest(exactly(values, n=50))
        assert advice.P_mean.value == pytest.approx(math.log(2), abs=1e-6)
        assert advice.P_std.value == pytest.approx(math.pi / math.sqrt(12), rel=1e-6)


def test_scaled_data_scale_every_noise_level():
    x = exactly(np.geomspace(3, 0.1, 12), mean=0.5)
    one, ten = suggest(x), suggest(10 * x)
    for name in ("sigma_data", "sigma_min", "sigma_max"):
        assert getattr(ten, name).value == pytest.approx(10 * getattr(one, name).value, rel=1e-6)
    assert ten.P_mean.value == pytest.approx(one.P_mean.value + math.log(10), abs=1e-6)
    assert ten.P_std.value == pytest.approx(one.P_std.value, rel=1e-6)


def test_directions_that_never_vary_do_not_count():
    x = exactly(np.geomspace(3, 0.1, 12))
    wide = np.concatenate([x, np.full((len(x), 50), 0.3)], 1)
    for name in ("P_mean", "P_std", "sigma_min"):
        assert getattr(suggest(wide), name).value == pytest.approx(getattr(suggest(x), name).value, rel=1e-6)


def test_the_least_noise_leaves_one_percent():
    values = np.geomspace(5, 0.01, 8)
    least = suggest(exactly(values)).sigma_min.value
    assert gaussian_mmse(values, least) == pytest.approx(1e-4 * values.sum(), rel=1e-6)


def test_the_least_noise_of_images_keeps_95_percent_of_levels():
    images = digits()
    least = suggest(images).sigma_min.value
    x = images.to_model()
    kept = images.to_pixels(x + least * np.random.default_rng(0).normal(size=x.shape)) == images.pixels
    inner = (images.pixels > 0) & (images.pixels < 16)  # the ends also clip
    want = norm.cdf(2) - norm.cdf(-2)
    assert abs(kept[inner].mean() - want) < 5 * math.sqrt(want * (1 - want) / inner.sum())


def test_the_most_noise_covers_distance_and_prior():
    far = exactly(np.full(3, 1e-4), mean=5.0)  # tiny, away from zero: KL = |mean|^2 / (2 sigma^2) = 0.01 nats
    assert suggest(far).sigma_max.value == pytest.approx(math.sqrt(75 / 0.02), rel=1e-4)
    centred = exactly(np.full(3, 1.0))
    assert suggest(centred).sigma_max.value == pytest.approx(pdist(centred).max(), rel=1e-9)


def test_the_numbers_of_real_digits():
    advice = suggest(digits())
    x = digits().to_model().reshape(1797, -1).astype(np.float64)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    mean, std = by_quadrature(values[values > 0.125**2 / 12])
    assert (advice.P_mean.value, advice.P_std.value) == pytest.approx((mean, std), abs=1e-6)
    assert advice.sigma_min.value == 1 / 32
    at = advice.sigma_max.value
    assert prior_gap(x.mean(0), values, at) == pytest.approx(0.01, rel=1e-6)


def test_the_numbers_do_not_hang_on_which_half_is_read():
    halves = [suggest(half) for half in mnist_5k().take(slice(0, None, 2)).split(0.5)]
    for name in ("sigma_data", "P_mean", "P_std"):
        a, b = (getattr(half, name).value for half in halves)
        assert abs(a - b) < 0.1


def test_suggestions_print_as_a_table():
    lines = str(suggest(digits())).splitlines()
    assert [line.split()[0] for line in lines] == ["sigma_data", "sigma_min", "sigma_max", "P_mean", "P_std"]
    assert all(len(line) > 40 for line in lines)


@pytest.mark.parametrize("function", [sigma_data, spectrum, diameter, suggest])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 4), np.uint8), "The data are uint8"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([[1.0], [np.nan]]), "NaN or infinite"),
        (np.array([[np.inf], [-np.inf]]), "NaN or infinite"),
    ],
)
def test_data_that_cannot_be_measured_are_refused(function, data, message):
    with pytest.raises(InputError, match=message):
        function(data)


@pytest.mark.parametrize("data", [np.full((4, 3), 0.3), np.zeros((4, 3)), digits().take(slice(1))])
def test_equal_examples_have_no_noise_level(data):
    with pytest.raises(InputError, match="examples are equal"):
        suggest(data)
