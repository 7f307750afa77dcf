"""Bits per dimension are those of the definition: 8 for uniform bytes whatever the data's scale, no fewer than the
entropy allows for any dequantiser, the same for any chunk and after any interruption."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from jaxdiff.errors import InputError
from jaxdiff.likelihood import dequantize
from jaxdiff.likelihood.bits import bits, bits_per_dim
from jaxdiff.likelihood.bound import bound

pytestmark = pytest.mark.claim("uniform bytes take 8 bits/dim on every scale")


NAN, INF = float("nan"), float("inf")


def scaled(levels, a, b):
    """All levels k at a (k + 1/2) / L + b, the middles of their cells, one example of one element each."""
    x = a * (np.arange(levels) + 0.5) / levels + b
    return x.astype(np.float32)[:, None], {"low": float(x[0]), "high": float(x[-1])}


@pytest.mark.parametrize(("a", "b", "offset"), [(1.0, 0.0, 8), (2.0, -1.0, 7), (256.0, -0.5, 0)])
def test_a_uniform_density_on_bytes_takes_8_bits_whatever_the_scale(a, b, offset, key):
    x, ends = scaled(256, a, b)

    def log_prob(key, y, cond):
        inside = (y >= b - 1e-5 * a) & (y <= a + b + 1e-5 * a)
        return jnp.sum(jnp.where(inside, -jnp.log(jnp.float32(a)), -jnp.inf))

    found = bits_per_dim(key, log_prob, x, dequantize=dequantize.uniform(256, **ends), draws=3, chunk=100)
    assert found.mean == pytest.approx(8, abs=1e-5)
    np.testing.assert_allclose(found.each, 8, atol=1e-5)
    # bits/dim = -log2 p / D + offset, and -log2 p is log2(a) here.
    assert found.mean - float(bits(-np.log(a), 1)) == pytest.approx(offset, abs=1e-5)


def test_a_discrete_probability_needs_no_dequantiser(key):
    x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2)
    found = bits_per_dim(key, lambda key, y, cond: -y.size * jnp.log(jnp.float32(4)), x)
    np.testing.assert_allclose(found.each, 2, rtol=1e-6)
    assert found.terms == {"log_prob": found.mean}


def test_a_bound_is_the_sum_of_its_terms_with_the_error_of_the_sum():
    """The terms' errors are those of means of three draws; they share their noise, so that of the sum is smaller."""
    found = bound({"a": jnp.array([1.0, 2.0, 6.0]), "b": jnp.array([5.0, 4.0, 0.0]), "c": jnp.array(2.0)})
    np.testing.assert_allclose([found.value, found.stderr], [8, 0], atol=1e-6)
    assert found.terms == {"a": 3, "b": 3, "c": 2}
    error = np.sqrt((4 + 1 + 9) / 2 / 3)
    np.testing.assert_allclose([found.stderrs[name] for name in "abc"], [error, error, 0], rtol=1e-6)
    assert jnp.isnan(bound({"a": jnp.ones(1)}).stderr)


def test_terms_add_up(key):
    def log_prob(key, y, cond):
        return {"prior": -jnp.sum(y**2), "rest": jax.random.normal(key)}

    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    found = bits_per_dim(key, log_prob, x, dequantize=dequantize.uniform(6), draws=4, chunk=2)
    assert found.terms.keys() == {"prior", "rest", "dequantization"}
    assert sum(found.terms.values()) == pytest.approx(found.mean)
    assert found.terms["dequantization"] == pytest.approx(-np.log2(2 / 5))


LEVELS, STD = 8, 0.25
STATES = np.linspace(-1, 1, LEVELS, dtype=np.float32)[:, None]
WIDTH = 2 / (LEVELS - 1)


def density(key, y, cond):
    return jnp.sum(norm.logpdf(y, 0.1, STD))


def exact_bits():
    """-log2 of the mass that the density has in each cell."""
    mass = norm.cdf(STATES[:, 0] + WIDTH / 2, 0.1, STD) - norm.cdf(STATES[:, 0] - WIDTH / 2, 0.1, STD)
    return -np.log2(np.asarray(mass))


def off_centre(params, x):
    return params[0] * x, params[1] * jnp.ones_like(x)


@pytest.mark.parametrize("kind", ["uniform", "variational"])
def test_no_dequantiser_finds_more_likelihood_than_there_is(kind, key):
    made = {
        "uniform": dequantize.uniform(LEVELS),
        "variational": dequantize.variational(off_centre, jnp.array([0.3, 0.4]), LEVELS),
    }[kind]
    draws = 4000
    found = bits_per_dim(key, density, STATES, dequantize=made, draws=draws)
    error = found.each.std(1, ddof=1) / np.sqrt(draws)
    gap = found.each.mean(1) - exact_bits()
    assert np.all(gap > -5 * error)
    assert gap.max() > 5 * error.max()  # and the bound is no equality
    # 2^-bits of one draw, p / q, is the mass itself on average: the importance weights are unbiased.
    weights = 2.0**-found.each
    off = weights.mean(1) - 2.0 ** -exact_bits()
    assert np.all(np.abs(off) < 5 * weights.std(1, ddof=1) / np.sqrt(draws))


def test_a_variational_dequantiser_learns_a_tighter_bound(key):
    def loss(params, key):
        made = dequantize.variational(off_centre, params, LEVELS)

        def one(key, x):
            y, bonus = made(key, x)
            return -density(key, y, None) - bonus

        keys = jax.random.split(key, (64, LEVELS))
        return jnp.mean(jax.vmap(jax.vmap(one), (0, None))(keys, STATES))

    @jax.jit
    def learned(params, keys):
        return jax.lax.scan(lambda p, key: (p - 0.1 * jax.grad(loss)(p, key), None), params, keys)[0]

    learn, test = jax.random.split(key)
    params = learned(jnp.array([0.0, 0.56]), jax.random.split(learn, 100))
    draws = 2000
    plain = bits_per_dim(test, density, STATES, dequantize=dequantize.uniform(LEVELS), draws=draws)
    found = bits_per_dim(
        test, density, STATES, dequantize=dequantize.variational(off_centre, params, LEVELS), draws=draws
    )
    error = np.hypot(*(kind.each.std(1, ddof=1) / np.sqrt(draws) for kind in (plain, found)))
    gain = plain.each.mean(1) - found.each.mean(1)
    assert gain.mean() > 5 * np.sqrt((error**2).sum()) / LEVELS


def test_a_learned_q_is_a_density_on_the_cell(key, x64):
    """Integrated over sorted draws of its own, q has mass 1; and it stays in x's cell."""
    made = dequantize.variational(off_centre, jnp.array([0.5, 0.9]), LEVELS)
    x = jnp.asarray(STATES[5], jnp.float64)
    y, bonus = jax.vmap(lambda key: made(key, x))(jax.random.split(key, 4000))
    y, q = (np.asarray(v).reshape(-1) for v in (y, jnp.exp(-bonus)))
    order = np.argsort(y)
    assert np.trapezoid(q[order], y[order]) == pytest.approx(1, abs=2e-3)
    assert np.abs(y - STATES[5, 0]).max() < WIDTH / 2


def noisy(key, y, cond):
    return -jnp.sum(y**2) + jax.random.normal(key) + (0.0 if cond is None else cond.astype(y.dtype))


DATA = np.random.default_rng(0).uniform(-1, 1, (11, 2, 3)).astype(np.float32)


def test_a_value_hangs_on_its_place_and_draw_alone(key):
    labels = np.arange(11)
    whole = bits_per_dim(key, noisy, DATA, draws=3, cond=labels, chunk=11)
    parts = bits_per_dim(key, noisy, DATA, draws=3, cond=labels, chunk=4)
    fewer = bits_per_dim(key, noisy, DATA[:6], draws=2, cond=labels[:6], chunk=4)
    np.testing.assert_array_equal(parts.each, whole.each)
    np.testing.assert_array_equal(fewer.each, whole.each[:6, :2])
    alike = bits_per_dim(key, noisy, np.zeros((5, 2, 3), np.float32), draws=3)
    assert len(set(alike.each.ravel().tolist())) == 15  # equal examples do not share their noise
    mean = whole.each.mean(1)
    reach = 1.959964 * mean.std(ddof=1) / np.sqrt(11)
    np.testing.assert_allclose(
        [whole.mean, whole.low, whole.high], [mean.mean(), mean.mean() - reach, mean.mean() + reach]
    )
    wider = bits_per_dim(key, noisy, DATA, draws=3, cond=labels, confidence=0.99)
    assert wider.high - wider.mean == pytest.approx(reach * 2.575829 / 1.959964)


def test_the_interval_covers_the_truth_as_often_as_it_says(key):
    hits = 0
    for i in range(60):
        x = np.random.default_rng(i).normal(size=(40, 1)).astype(np.float32)
        found = bits_per_dim(key, lambda key, y, cond: jnp.sum(y) * jnp.log(2.0), x, chunk=40, confidence=0.8)
        hits += found.low < 0 < found.high
    assert abs(hits - 0.8 * 60) < 5 * np.sqrt(0.8 * 0.2 * 60)


def test_an_interrupted_run_goes_on_where_it_stopped(key, tmp_path):
    path = tmp_path / "deep" / "bits.npz"
    whole = bits_per_dim(key, noisy, DATA, chunk=4)
    said = []

    def interrupt(done, n):
        said.append((done, n))
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bits_per_dim(key, noisy, DATA, chunk=4, resume=path, progress=interrupt)
    assert said == [(4, 11), (8, 11)]
    said.clear()
    shutil.copy(path, tmp_path / "copy.npz")
    other = bits_per_dim(key, noisy, DATA, chunk=5, resume=tmp_path / "copy.npz")
    np.testing.assert_array_equal(other.each, whole.each)  # 8 were done, and chunks end at 5 and 10
    again = bits_per_dim(key, noisy, DATA, chunk=4, resume=path, progress=lambda *at: said.append(at))
    assert said == [(11, 11)]
    np.testing.assert_array_equal(again.each, whole.each)
    said.clear()
    bits_per_dim(key, noisy, DATA, chunk=4, resume=path, progress=lambda *at: said.append(at))
    assert said == []
    for other in (
        lambda: bits_per_dim(jax.random.fold_in(key, 1), noisy, DATA, resume=path),
        lambda: bits_per_dim(key, noisy, DATA + 1, resume=path),
        lambda: bits_per_dim(key, noisy, DATA, draws=2, resume=path),
        lambda: bits_per_dim(key, noisy, DATA, cond=np.zeros(11), resume=path),
    ):
        with pytest.raises(InputError, match=r"another computation.*remove it or name another file"):
            other()
    path.write_bytes(b"PK not a file")
    with pytest.raises(InputError, match="cannot be read as an unfinished bits_per_dim"):
        bits_per_dim(key, noisy, DATA, resume=path)


def test_a_draw_without_a_likelihood_is_never_a_number(key, tmp_path):
    def sometimes(key, y, cond):
        return jnp.where(y[0, 0] > 0.5, jnp.nan, -jnp.sum(y**2))

    bad = int((DATA[:, 0, 0] > 0.5).sum())
    for _ in range(2):  # the second time from the file
        found = bits_per_dim(key, sometimes, DATA, resume=tmp_path / "bits.npz")
        assert found.failed == bad > 0
        assert np.isnan([found.mean, found.low, found.high]).all()
        assert np.isnan(found.each[:, 0]).sum() == bad


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: bits_per_dim(k, noisy, DATA[:0]), r"shape \(0, 2, 3\).*at least one example"),
        (lambda k: bits_per_dim(k, noisy, DATA, draws=0), "draws=0"),
        (lambda k: bits_per_dim(k, noisy, DATA, confidence=95), "confidence=95"),
        (lambda k: bits_per_dim(k, noisy, DATA.astype(np.uint8)), "dtype uint8, expected finite floats"),
        (lambda k: bits_per_dim(k, noisy, np.where(DATA > 0, DATA, NAN)), "values that are NaN or infinite"),
        (lambda k: bits_per_dim(k, noisy, DATA, cond={"label": np.zeros(3)}), r"cond\['label'\] has shape \(3,\)"),
        (lambda k: bits_per_dim(k, noisy, DATA, dequantize=dequantize.uniform(8)), "none of the 8 levels from -1 to 1"),
        (lambda k: dequantize.uniform(8).check(np.zeros(3, np.uint8)), "dtype uint8.*to_model"),
        (lambda k: dequantize.uniform(8).check(np.array([1.2857143])), "none of the 8 levels"),
        (lambda k: dequantize.uniform(1), "levels is 1, expected at least 2"),
        (
            lambda k: dequantize.variational(lambda p, x: (x[:1], x), None, 8)(k, jnp.ones(3)),
            r"mean has shape \(1,\), expected \(3,\)",
        ),
    ],
)
def test_mistakes(call, words, key):
    with pytest.raises(InputError, match=words):
        call(key)
