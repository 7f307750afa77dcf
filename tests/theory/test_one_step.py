"""The fit against NumPy's least squares, its law against draws and quadrature, expectations against many runs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxdiff.errors import InputError
from jaxdiff.theory import one_step
from jaxdiff.theory.one_step import Fit, OneStep

pytestmark = pytest.mark.claim("the linear one-step model: closed forms, the pole at n = d, P(Delta > 0)")


RUNS = 300


@pytest.mark.parametrize("n", [4, 5, 12])
@pytest.mark.usefixtures("x64")
def test_the_fit_is_numpys(n, key):
    """n > d: the only least squares solution; n <= d: of those through every point, the one of least norm."""
    x, y = one_step.pairs(key, one_step.model(4), n)
    found = one_step.fit(x, y)
    centred, targets = np.array(x - x.mean(0)), np.array(y - y.mean(0))
    weights = np.linalg.lstsq(centred, targets, rcond=1e-10)[0].T
    np.testing.assert_allclose(found.weights, weights, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.bias, y.mean(0) - weights @ np.array(x.mean(0)), rtol=1e-8)
    np.testing.assert_allclose(found.variance, np.var(np.array(y), axis=0, ddof=1).mean())
    assert bool(found.full) == (n > 4)
    if n <= 5:
        np.testing.assert_allclose(found.bias + x @ found.weights.T, y, atol=1e-8)


def test_pairs_have_the_moments_of_the_step(key):
    model = one_step.model(3, time=0.7, noise=2.5, mean=jnp.array([1.0, -2.0, 3.0]), std=1.5)
    x, y = (np.asarray(v) for v in one_step.pairs(key, model, 40_000))
    shrink = math.exp(-0.7)
    spread = shrink**2 * 2.25 + 2.5 * shrink**2 * (1 - shrink**2)
    near = 5 / math.sqrt(len(x))
    np.testing.assert_allclose(y.mean(0), [1, -2, 3], atol=1.5 * near)
    np.testing.assert_allclose(x.mean(0), shrink * np.array([1, -2, 3]), atol=math.sqrt(spread) * near)
    np.testing.assert_allclose(x.var(0), spread, rtol=near * math.sqrt(2))
    np.testing.assert_allclose(np.cov(x.T, y.T)[:3, 3:], shrink * 2.25 * np.eye(3), atol=2 * near)


def skewed():
    """A fit whose W W' and W' W differ, two-dimensional."""
    weights = jnp.array([[2.0, 3.0], [0.5, 0.1]])
    fit = Fit(jnp.array([0.2, -0.1]), weights, jnp.array([1.0, 2.0]), jnp.float32(1.3), jnp.array(True))
    return one_step.model(2, time=0.9, noise=0.6, mean=0.5, std=1.4), fit


def test_the_law_is_that_of_what_is_generated(key):
    model, fit = skewed()
    mean, cov = (np.asarray(v) for v in one_step.law(model, fit))
    drawn = np.asarray(one_step.generate(key, model, fit, 40_000))
    scale = np.sqrt(np.outer(cov.diagonal(), cov.diagonal()))
    np.testing.assert_array_less(abs(drawn.mean(0) - mean), 5 * np.sqrt(cov.diagonal() / 40_000))
    np.testing.assert_array_less(abs(np.cov(drawn.T) - cov), 5 * scale * math.sqrt(2 / 40_000))
    shrink = math.exp(-0.9)
    np.testing.assert_allclose(
        np.trace(cov), (shrink**2 * 1.3 + 0.6 * shrink**2 * (1 - shrink**2)) * (4 + 9 + 0.25 + 0.01), rtol=1e-5
    )


def test_the_divergences_are_integrals():
    model, fit = skewed()
    mean, cov = (np.asarray(v, np.float64) for v in one_step.law(model, fit))
    axis = np.linspace(-22, 22, 1201)
    grid, cell = np.stack(np.meshgrid(axis, axis), -1), (axis[1] - axis[0]) ** 2
    made, true = (multivariate_normal(m, c).logpdf(grid) for m, c in ((mean, cov), ([0.5, 0.5], 1.96 * np.eye(2))))
    found = one_step.divergences(model, fit)
    np.testing.assert_allclose(found.kl_generated, cell * np.sum(np.exp(made) * (made - true)), rtol=1e-4)
    np.testing.assert_allclose(found.kl_true, cell * np.sum(np.exp(true) * (true - made)), rtol=1e-4)
    affinity = cell * np.sum(np.exp(0.5 * (made + true)))
    np.testing.assert_allclose(found.hellinger2, 1 - affinity, rtol=1e-4)


def test_infinitely_many_points_give_the_limit(key):
    model = one_step.model(3, noise=2.0, std=0.8, mean=1.0)
    end = one_step.limit(model)
    ratio = 0.64 / (0.64 + 2 * (1 - math.exp(-4)))
    np.testing.assert_allclose(end.variance, 0.64 * ratio, rtol=1e-6)
    weights = math.exp(2) * ratio * jnp.eye(3)  # E[y | x] = mu + e^T r (x - e^-T mu)
    perfect = Fit(jnp.ones(3) - ratio, weights, jnp.ones(3), jnp.float32(0.64), jnp.array(True))
    exact = one_step.divergences(model, perfect)
    np.testing.assert_allclose(exact.kl_generated, end.kl_generated, rtol=1e-4)
    np.testing.assert_allclose(exact.kl_true, end.kl_true, rtol=1e-4)
    np.testing.assert_allclose(one_step.law(model, perfect)[0], 1, rtol=1e-5)
    mean, cov = one_step.law(model, one_step.fit(*one_step.pairs(key, model, 100_000)))
    np.testing.assert_allclose(mean, 1, atol=0.02)
    np.testing.assert_allclose(cov, end.variance * jnp.eye(3), atol=0.02 * end.variance)
    np.testing.assert_allclose(one_step.expected_trace(model, 10**7), end.variance, rtol=1e-4)


def traces(model, fits):
    covs = jax.vmap(one_step.law, (None, 0))(model, fits)[1]
    return np.trace(covs, axis1=1, axis2=2) / model.dim


@pytest.mark.parametrize(("n", "runs", "reference"), [(40, 400, 1.055), (80, 300, 0.675), (1000, 50, 0.515)])
def test_traces_are_the_references(n, runs, reference, key):
    model = one_step.model(20)
    found = traces(model, one_step.fits(key, model, n, runs)[1])
    error, exact = found.std() / math.sqrt(runs), float(one_step.expected_trace(model, n))
    assert abs(found.mean() - exact) < 5 * error
    assert abs(exact - reference) < 0.03 * reference
    assert abs(found.mean() - reference) < 0.03 * reference


@pytest.mark.parametrize(("dim", "n"), [(1, 9), (2, 11), (9, 2), (9, 5)])
def test_traces_on_both_sides_of_the_pole(dim, n, key):
    """In so few dimensions the covariance of v with W counts."""
    model = one_step.model(dim, noise=0.7, mean=1.0, std=1.2)
    found = traces(model, one_step.fits(key, model, n, 20_000)[1])
    assert abs(found.mean() - one_step.expected_trace(model, n)) < 5 * found.std() / math.sqrt(20_000)


def test_the_pole():
    model = one_step.model(20)
    curve = np.array([float(one_step.expected_trace(model, n)) for n in range(2, 60)])
    assert np.flatnonzero(np.isinf(curve)).tolist() == [18, 19, 20]  # n = 20, 21, 22
    assert (np.diff(curve[:18]) > 0).all()
    assert (np.diff(curve[21:]) < 0).all()


def test_memorisation_falls_as_in_the_reference(key):
    """The published figures are of 1,000 runs, so they have an error too."""
    reference = {20: 0.003, 30: 0.061, 40: 0.435, 80: 0.791}
    found = one_step.memorized(key, one_step.model(20), tuple(reference), runs=RUNS)
    for estimate, p in zip(found, reference.values(), strict=True):
        print(f"{estimate}, reference {p}")
        assert estimate.n == RUNS
        assert abs(estimate.value - p) < 5 * math.sqrt(p * (1 - p) * (1 / RUNS + 1 / 1000))


@pytest.mark.parametrize("n", [5, 8])
def test_too_few_points_make_a_singular_law(n, key):
    model = one_step.model(8)
    far = one_step.divergences(model, one_step.fit(*one_step.pairs(key, model, n)))
    assert (float(far.kl_generated), float(far.kl_true), float(far.hellinger2)) == (math.inf, math.inf, 1.0)
    x, y = one_step.pairs(key, model, n)
    repeated = one_step.fit(jnp.tile(x, (3, 1)), jnp.tile(y, (3, 1)))  # 3n points, n different ones
    assert not repeated.full
    np.testing.assert_allclose(repeated.weights, one_step.fit(x, y).weights, rtol=2e-2, atol=1e-3)
    far_off = one_step.model(8, mean=1e4)  # where what rounding leaves of rank n is no longer small
    assert not one_step.fit(*one_step.pairs(key, far_off, n)).full
    near = one_step.divergences(model, one_step.fit(*one_step.pairs(key, model, 30)))
    assert 0 < near.hellinger2 < 1
    assert jnp.isfinite(near.kl_true)


@pytest.mark.usefixtures("x64")
def test_the_mapped_fit_is_the_fit_in_either_precision(key):
    model = one_step.model(3)
    y, fits = one_step.fits(key, model, 7, 2)
    x, again = one_step.pairs(jax.random.fold_in(key, 1), model, 7)
    np.testing.assert_allclose(y[1], again)
    alone = one_step.fit(x, again)
    np.testing.assert_allclose(fits.weights[1], alone.weights, rtol=1e-9)
    short = one_step.fit(x.astype(jnp.float32), again.astype(jnp.float32))
    assert {leaf.dtype.name for leaf in short[:4]} == {"float32"}
    np.testing.assert_allclose(short.weights, alone.weights, rtol=1e-2, atol=1e-3)


X = jnp.ones((4, 3)) * jnp.arange(4.0)[:, None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_step.fit(X[:1], X[:1]), r"expected \(n, d\) twice, n of 2 or more"),
        (lambda: one_step.fit(X, X[:, :2]), r"x of shape \(4, 3\), y of shape \(4, 2\)"),
        (lambda: one_step.fit(X.at[0, 0].set(jnp.nan), X), "NaN or infinite"),
        (lambda: one_step.model(3, std=0.0), "std=0.0; expected positive"),
        (lambda: one_step.model(3, time=-1.0), "time=-1.0"),
        (lambda: one_step.model(0), "dim=0"),
        (lambda: one_step.model(3, mean=jnp.ones(2)), r"mean of shape \(2,\)"),
        (lambda: one_step.expected_trace(one_step.model(3), 1), "n=1, expected 2 points"),
        (lambda: one_step.memorized(jax.random.key(0), one_step.model(3), (1, 5)), "2 points or more"),
        (lambda: one_step.memorized(jax.random.key(0), one_step.model(3), ()), r"got ns=\(\)"),
        (lambda: one_step.memorized(jax.random.key(0), one_step.model(3), (4,), runs=0), "runs=0"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_model_is_a_pytree():
    model = one_step.model(3, time=0.5)
    moved = jax.tree.map(lambda leaf: leaf + 1, model)
    assert isinstance(moved, OneStep)
    assert float(moved.time) == 1.5
    assert jax.grad(lambda m: one_step.limit(m).kl_true)(model).time > 0
