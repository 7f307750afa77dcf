"""Laws of time: each estimates the integral that it claims to. The densities are typed from their closed forms, VP,
sub-VP, VE and log-SNR, or found by quadrature where there is none; what importance buys is measured and printed."""

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from scipy import integrate, stats

from jaxdiff import grids, losses, oracles, parameterizations, processes, schedules
from jaxdiff.errors import InputError

LOW = 1e-3


def _b(t):
    return 0.1 * t + 9.95 * t**2


def _b_inverse(b):
    return (-0.1 + np.sqrt(0.1**2 + 2 * 19.9 * b)) / 19.9


# The antiderivative A of g^2 / sigma^2, and the time at which it has a value.
CLOSED = {
    "vp": (processes.vp, lambda t: np.log(np.expm1(_b(t))), lambda a: _b_inverse(np.log1p(np.exp(a)))),
    "subvp": (
        processes.subvp,
        lambda t: 2 * np.log(np.sinh(_b(t) / 2)),
        lambda a: _b_inverse(2 * np.arcsinh(np.exp(a / 2))),
    ),
    "ve": (processes.ve, lambda t: 2 * np.log(5000) * t, lambda a: a / (2 * np.log(5000))),
    "logsnr": (processes.logsnr, lambda t: 18.3 * t, lambda a: a / 18.3),
}
TOTALS = {"vp": 19.1654, "subvp": 28.2809, "ve": 2 * np.log(5000) * (1 - LOW), "logsnr": 18.3 * (1 - LOW)}


@pytest.mark.parametrize("name", CLOSED)
def test_importance_times_invert_the_closed_antiderivative(name, key, x64):
    make, antiderivative, inverse = CLOSED[name]
    process, n = make(), 2000
    t, weight = (np.asarray(v) for v in jax.jit(lambda k: grids.importance_times(k, process, n, low=LOW))(key))
    first, last = antiderivative(LOW), antiderivative(1.0)
    np.testing.assert_allclose(last - first, TOTALS[name], atol=5e-5)
    u = (antiderivative(t) - first) / (last - first)
    # Stratified and uniform in A: one in each of n parts, and back.
    assert np.all((u * n > np.arange(n) - 1e-6) & (u * n < np.arange(1, n + 1) + 1e-6))
    assert stats.kstest(np.mod(u * n, 1), "uniform").pvalue > 1e-6
    np.testing.assert_allclose(inverse(first + u * (last - first)), t, rtol=1e-9)
    # The weight is 1 / density: Z / A'(t), by differences.
    h = 1e-6 * t
    rate = (antiderivative(t + h) - antiderivative(t - h)) / (2 * h)
    np.testing.assert_allclose(weight * rate, last - first, rtol=1e-6)


def test_a_schedule_of_ones_own_is_inverted_numerically(key, x64):
    """VP's two functions without its closed inverse: the same process, the same times; and one that nobody inverted."""
    closed = processes.vp()
    given = processes.given(closed.schedule.alpha, closed.schedule.variance)
    t = np.concatenate([[0.0], np.geomspace(1e-9, 1, 200)])
    ratio = np.divide(*closed.scales(t)[::-1])
    time_of = jax.jit(lambda process, ratio: process.time_of(ratio))
    found = time_of(given, np.concatenate([ratio, [0.0, np.inf, np.nan, 200.0]]))
    np.testing.assert_allclose(found[:-4], t, rtol=1e-9)
    np.testing.assert_array_equal(found[-4:-1], [0, 1, np.nan])
    assert found[-1] > 1  # beyond the process's range, as for the others
    for law in (grids.importance_times, grids.debiased_times):
        both = (jax.jit(lambda k, process, law=law: law(k, process, 50))(key, process) for process in (given, closed))
        for one, two in zip(*both, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-8)

    own = processes.given(lambda t: 1 - t**3 * (2 - t) / 2, lambda t: jnp.expm1(t) ** 2 + 0.1 * t)
    t, weight = jax.jit(lambda process: grids.quadrature_times(key, process, 40, low=0.1, high=0.9))(own)
    np.testing.assert_allclose(jnp.mean(weight * jnp.cos(t)), np.sin(0.9) - np.sin(0.1), rtol=1e-10)
    np.testing.assert_allclose(time_of(own, np.divide(*own.scales(t)[::-1])), t, rtol=1e-12)
    # Its derivative is the inverse function's, and that of what the functions are made of.
    slope = jax.grad(lambda t: own.scales(t)[1] / own.scales(t)[0])(0.4)
    level = np.divide(*own.scales(0.4)[::-1])
    np.testing.assert_allclose(jax.jit(jax.grad(own.time_of))(level), 1 / slope, rtol=1e-9)

    @jax.jit
    def time(a):
        return processes.given(lambda t: jnp.exp(-a * t), lambda t: t).time_of(2.0)

    difference = (time(1.3 + 1e-6) - time(1.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(time))(1.3), difference, rtol=1e-6)


def test_a_given_schedule_keeps_float32s_precision_and_is_a_process(x64):
    closed = processes.vp()
    given = processes.given(closed.schedule.alpha, closed.schedule.variance)
    ratio = np.geomspace(1e-4, 100, 300)
    time_of = jax.jit(lambda ratio: given.time_of(ratio))
    low, high = (time_of(ratio.astype(dtype)) for dtype in (np.float32, float))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, high, rtol=1e-5)
    for t in (0.2, 0.9):
        np.testing.assert_allclose(given.sde(t), closed.sde(t), rtol=1e-12)
        np.testing.assert_allclose(given.log_snr(t), closed.log_snr(t), rtol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "variance", "words"),
    [
        (lambda t: 1 - t, lambda t: 1 - t, "from 1 to nan and does not rise all the way"),
        (jnp.ones_like, lambda t: t * (1 - t), "does not rise"),
        (lambda t: 0.5 - t, lambda t: t, "alpha >= 0"),
        (lambda t: 1.0, lambda t: t, r"alpha and variance of \(65,\) times have shapes \(\) and \(65,\)"),
    ],
)
def test_a_given_schedule_that_is_none_is_refused(alpha, variance, words):
    with pytest.raises(InputError, match=words):
        schedules.Given(alpha, variance)


# Variance ------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("importance-sampled time: equal mean, less variance (prints the ratio)", "-s")
@pytest.mark.parametrize("name", ["vp", "subvp"])
def test_importance_times_keep_the_mean_of_the_likelihood_loss_and_lower_its_variance(name, key):
    """Of a denoiser whose noise is a little wrong at every level, 2-d data, over [1e-3, 1]: 1e4 draws of each law."""
    process, n = CLOSED[name][0](), 10_000
    oracle = oracles.gaussian(process, np.array([0.3, -0.5]), np.array([[0.5, 0.2], [0.2, 0.4]]))
    loss = losses.matching(process, parameterizations.score, losses.weights.likelihood)

    def wrong(x, t):
        alpha, sigma = process.scales(t)
        return oracle.denoise(x, t) + 0.3 * sigma / alpha * jnp.tanh(x)

    def one(key, x0, t):
        return loss(key, wrong, x0, t)

    found = {}
    for i, law in enumerate((grids.uniform_times, grids.importance_times)):
        data_key, time_key, noise_key = jax.random.split(jax.random.fold_in(key, i), 3)
        # One time a call: the variance of a single draw, not that of a stratified batch.
        t, weight = jax.jit(jax.vmap(lambda k, law=law: law(k, process, 1, low=LOW)))(jax.random.split(time_key, n))
        values = jax.jit(jax.vmap(one))(jax.random.split(noise_key, n), oracle.sample(data_key, n), t[:, 0])
        values = np.asarray(values * weight[:, 0], float)
        found[law.__name__] = values.mean(), values.var()
    (uniform, wide), (importance, narrow) = found.values()
    z = (uniform - importance) / np.sqrt((wide + narrow) / n)
    print(f"{name}: mean {uniform:.2f} by uniform and {importance:.2f} by importance times, z {z:.2f}; "
          f"variance {wide:.1f} and {narrow:.1f}, ratio {wide / narrow:.1f}")  # fmt: skip
    assert abs(z) < 5
    assert narrow < wide / 3


# The other laws ------------------------------------------------------------------------------------------------------


def test_quadrature_is_exact_where_the_integrand_is_known(x64):
    for name in CLOSED:
        t, weight = jax.jit(lambda process: grids.quadrature_times(jax.random.key(0), process, 64))(CLOSED[name][0]())
        assert np.all(np.diff(t) > 0)
        for f, exact in ((np.cos, np.sin(1) - np.sin(LOW)), (np.exp, np.exp(1) - np.exp(LOW))):
            np.testing.assert_allclose(np.mean(weight * f(t)), exact, rtol=1e-9, err_msg=name)


def test_a_lattice_is_one_uniform_start_and_even_steps(key):
    process, n = processes.vp(), 16
    t, weight = jax.jit(jax.vmap(lambda k: grids.lattice_times(k, process, n, low=0.2, high=0.6)))(
        jax.random.split(key, 500)
    )
    u = (np.sort(np.asarray(t, float), axis=1) - 0.2) / 0.4
    np.testing.assert_allclose(np.diff(u), 1 / n, atol=1e-5)
    np.testing.assert_allclose(weight, 0.4, rtol=1e-5)
    assert 0 < u.min() < u.max() <= 1 + 1e-6
    assert stats.kstest(u[:, 0] * n, "uniform").pvalue > 1e-6
    # Each place is uniform on the whole of it.
    assert stats.kstest((np.asarray(t[:, 3], float) - 0.2) / 0.4, "uniform").pvalue > 1e-6
    pair = np.asarray(grids.lattice_times(key, process, 2, low=0.0).t)
    np.testing.assert_allclose(abs(pair[0] - pair[1]), 0.5, rtol=1e-5)  # antithetic


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_debiased_times_are_the_objective_that_they_claim(name, published, key, x64):
    """q is proportional to r = g^2 / sigma^2, flat before 1e-3. Times 1 / q that is the likelihood's integral, down to
    t = 0; as published, times Z / r, what is before counts by r(flat) / r."""
    process, flat, n = CLOSED[name][0](), 1e-3, 200_000
    t, weight = (
        np.asarray(v) for v in jax.jit(lambda k: grids.debiased_times(k, process, n, published=published))(key)
    )
    assert 0 < t.min() < 2e-5
    first, last = CLOSED[name][1](flat), CLOSED[name][1](1.0)

    def rate(t):
        return papers.SDES[name](t)[1] / papers.SCHEDULES[name](t)[1] ** 2

    head = flat * rate(flat)
    total = head + last - first
    # The law itself: its distribution function is uniform, one time in each of n parts.
    u = np.where(t < flat, t * rate(flat), head + CLOSED[name][1](t) - first) / total
    assert np.all(np.abs(u * n - np.arange(n) - 0.5) < 0.5 + 1e-4)
    np.testing.assert_allclose(weight * rate(t if published else np.maximum(t, flat)), total, rtol=1e-6)
    # What it is for: the integral of a loss that is as large as r at t = 0, with an error of t |log t|.
    exact = integrate.quad(lambda a: np.exp(a) * rate(np.exp(a)) * np.exp(a) * (np.minimum(1, rate(flat) / rate(np.exp(a))) if published and np.exp(a) < flat else 1), np.log(1e-12), 0, points=[np.log(flat)], limit=200)[0]  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(np.mean(weight * rate(t) * t), exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("inner", "power"),
    [(grids.uniform_times, 0.0), (grids.uniform_times, 1.0), (grids.uniform_times, 1.5), (grids.importance_times, 1.0)],
)
def test_soft_truncation_counts_a_time_by_the_chance_that_it_is_reached(inner, power, key):
    """The mean of weight x loss is the integral of P(tau <= t) loss, with one tau a call."""
    process, n, low, high = processes.vp(), 4000, 0.01, 0.9
    law = grids.soft_truncated(inner, power=power, low=low, high=high)
    t, weight = jax.jit(jax.vmap(lambda k: law(k, process, 3)))(jax.random.split(key, n))
    t, weight = np.asarray(t, float), np.asarray(weight, float)

    def reached(t):
        if power == 1:
            return np.log(t / low) / np.log(high / low)
        return (t ** (1 - power) - low ** (1 - power)) / (high ** (1 - power) - low ** (1 - power))

    assert t.min() >= low * (1 - 1e-6)
    assert t.max() <= high * (1 + 1e-6)
    for loss in (lambda t: np.ones_like(t), np.exp, lambda t: 1 / (0.1 + t)):
        means = np.mean(weight * loss(t), axis=1)
        exact = integrate.quad(lambda t, loss=loss: reached(t) * loss(t), low, high)[0]
        assert abs(means.mean() - exact) < 5 * means.std() / np.sqrt(n) + 1e-5 * exact
    if inner is grids.uniform_times:  # whose weight is high - tau: tau itself is of the density 1 / tau^power
        tau = high - weight[:, 0]
        assert stats.kstest(np.clip(reached(np.maximum(tau, low)), 0, 1), "uniform").pvalue > 1e-6


@pytest.mark.parametrize(
    "law", [grids.quadrature_times, grids.soft_truncated(grids.importance_times)], ids=["quadrature", "soft_truncated"]
)
def test_laws_that_no_config_names_repeat_by_key_and_compile_once(law, key):
    traces = 0

    @jax.jit
    def compiled(law, key, process):
        nonlocal traces
        traces += 1
        return law(key, process, 8)

    law = jax.tree_util.Partial(law) if law is grids.quadrature_times else law
    one, two = (compiled(law, key, processes.vp()) for _ in range(2))
    other = compiled(law, key, processes.vp(0.2, 15.0))
    assert traces == 1
    assert one.t.shape == one.weight.shape == (8,)
    assert one.t.dtype == one.weight.dtype == jnp.float32
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one.t, other.t)  # the process decides


def test_mistakes_in_laws(key):
    process = processes.vp()
    with pytest.raises(InputError, match=r"low=0.0, high=1.0, expected 0 < low < high <= 1"):
        grids.soft_truncated(grids.uniform_times, low=0.0)
    with pytest.raises(InputError, match=r"low=0.5, high=0.1, expected 0 <= low < high <= 1"):
        grids.debiased_times(key, process, 4, low=0.5, high=0.1)
    with pytest.raises(InputError, match=r"the log-SNR is infinite at t=0.001 or t=1"):
        grids.debiased_times(key, processes.flow(), 4)
    with pytest.raises(InputError, match=r"the log-SNR is infinite at t=0.001 or t=1"):
        grids.quadrature_times(key, processes.cosine(), 4)
    with pytest.raises(InputError, match=r"low=0.5, high=0.1, expected 0 <= low < high <= 1"):
        grids.lattice_times(key, process, 4, low=0.5, high=0.1)
    # Known limits are refused while a program is traced; of others it makes no times.
    with pytest.raises(InputError, match=r"low=2, high=1, expected 0 <= low < high <= 1"):
        jax.jit(lambda key: grids.uniform_times(key, process, 4, low=2.0).t)(key)
    assert jnp.isnan(jax.jit(lambda low: grids.uniform_times(key, process, 4, low=low).t)(2.0)).all()
