"""What objectives ask of each noise level: closed forms of EDM's and of uniform time on VP, gradients that are known,
and a balanced weight after which every level contributes alike."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxdiff import grids, losses, oracles, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.losses import weights
from jaxdiff.theory import balance

EDGES = np.geomspace(0.02, 10.0, 9)
MIDDLES = np.sqrt(EDGES[1:] * EDGES[:-1])


def mean_over_bins(density):
    """The mean over ln s in each bin."""
    return np.array(
        [
            integrate.quad(lambda u: density(np.exp(u)), *np.log(ends), epsrel=1e-9)[0] / np.log(ends[1] / ends[0])
            for ends in pairwise(EDGES)
        ]
    )


def edm_bell(s):
    """Karras et al. (2022), Table 1: ln s ~ N(-1.2, 1.2^2), and the weight (s^2 + .25) / (.5 s)^2 on |x0 - D|^2."""
    return stats.norm.pdf(np.log(s), -1.2, 1.2) * (s**2 + 0.25) / 0.25


def vp_simple(s):
    """DDPM's loss at uniform t: dt / dln s = 2 (1 - e^-B) / beta, with B = ln(1 + s^2) = .1 t + 9.95 t^2."""
    integral = np.log1p(s**2)
    beta = np.sqrt(0.1**2 + 2 * 19.9 * integral)
    return 2 * -np.expm1(-integral) / beta


OBJECTIVES = {
    "edm": (processes.edm, grids.lognormal_times, weights.unit, parameterizations.edm(0.5), edm_bell),
    "edm on data": (processes.vp, grids.lognormal_times, weights.edm(0.5), parameterizations.data, edm_bell),
    "ddpm": (processes.vp, grids.uniform_times, weights.unit, parameterizations.noise, vp_simple),
    # g^2 |score error|^2 / 2 is the noise's error times dln s / dt: flat, whatever the law of times.
    "likelihood": (processes.vp, grids.importance_times, weights.likelihood, parameterizations.score, lambda s: 2.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_total_weighting_is_its_closed_form(name, key):
    make, times, weight, row, exact = OBJECTIVES[name]
    found = balance.total_weighting(key, make(), times, EDGES, weight=weight, row=row, draws=2**15)
    expected = mean_over_bins(exact)
    np.testing.assert_allclose(found.levels, MIDDLES, rtol=1e-5)
    assert np.all(abs(found.value - expected) < 5 * found.stderr + 1e-5), (found.value, expected)
    assert np.all(found.stderr < 0.15 * found.value)


def belief(params):
    def denoise(x, t):
        return params["gain"] * x + params["shift"]

    return denoise


def test_losses_and_gradients_by_level_are_those_of_a_known_denoiser(key, x64):
    """D = k x + b on N(m, v) at sigma: E|x0 - D|^2 = (1-k)^2 v + k^2 s^2 + ((1-k) m - b)^2 and its derivatives."""
    process, n = processes.edm(10.0), 4000
    loss = losses.matching(process)
    data = 0.3 + np.sqrt(0.5) * np.asarray(jax.random.normal(jax.random.key(3), (n, 1)))
    m, v, k, b = data.mean(), data.var(), 0.6, 0.1
    levels, params = np.array([0.1, 0.6, 2.0]), {"gain": jnp.asarray(k), "shift": jnp.asarray([b])}
    off = (1 - k) * m - b

    found = balance.per_level_loss(key, process, loss, belief(params), data, levels)
    assert np.all(abs(found.value - ((1 - k) ** 2 * v + k**2 * levels**2 + off**2)) < 5 * found.stderr)
    assert np.all(found.stderr < 0.1 * found.value)

    slope = np.stack([-2 * (1 - k) * v + 2 * k * levels**2 - 2 * m * off, np.full(3, -2 * off)])
    norms = np.sqrt(np.sum(slope**2, axis=0))
    found = balance.gradient_share(key, process, loss, belief, params, data, levels, chunk=300)
    # Of an example's gradient, the part `noise` is noise: the mean over n has that over n.
    error = norms * np.sqrt(found.noise / (1 - found.noise) / n)
    assert np.all(abs(found.norm - norms) < 5 * error), (found.norm, norms, error)
    assert np.all((found.noise > 0) & (found.noise < 1))
    np.testing.assert_allclose(found.share, found.norm / found.norm.sum(), rtol=1e-12)

    # Against finite differences of the mean loss itself, on the same examples and noise.
    def mean_loss(params):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, 1), i))(jnp.arange(n))
        t = process.time_of(levels[1])
        return jax.vmap(lambda key, x: loss(key, belief(params), x, t))(keys, data).mean()

    step = 1e-5
    moved = [
        (mean_loss(params | {name: params[name] + step}) - mean_loss(params | {name: params[name] - step})) / (2 * step)
        for name in params
    ]
    square = np.sum(np.square(moved))
    noise = square * found.noise[1] / (n * (1 - found.noise[1]))
    np.testing.assert_allclose(found.norm[1], np.sqrt(square), atol=noise / np.sqrt(square) + 1e-8)


def test_a_gradient_of_nothing_but_noise_is_no_gradient(key):
    """At the best belief of centred data the mean gradient is 0, and an example's is all noise: the square that is left
    of it is as often below 0, and then 0, as above."""
    process = processes.edm(10.0)
    data = np.asarray(jax.random.normal(jax.random.key(3), (1000, 1)))
    data = data - data.mean()
    params = {"gain": jnp.asarray(1 / (1 + 0.25 / data.var())), "shift": jnp.zeros(1)}
    levels = 0.5 * (1 + 1e-4 * np.arange(12, dtype=np.float32))
    loss, weights = losses.matching(process), np.arange(1, 13, dtype=np.float32)
    found = balance.gradient_share(key, process, loss, belief, params, data, levels, weights=weights)
    assert np.all(found.noise > 0.98)
    assert np.any(found.norm == 0)
    assert np.any(found.norm > 0)
    plain = balance.gradient_share(key, process, loss, belief, params, data, levels)
    np.testing.assert_allclose(found.norm, plain.norm * weights, rtol=1e-5)


def test_after_balancing_every_level_contributes_alike_and_the_weight_is_a_bell(key, x64):
    process, row = processes.edm(20.0), parameterizations.edm(1.0)
    oracle = oracles.mixture(process, [0.5, 0.5], [[-1.0], [1.0]], [0.02, 0.02])  # of variance 1.02
    data, levels = oracle.sample(jax.random.key(2), 1500), np.geomspace(0.02, 15.0, 12)
    plain = losses.matching(process, row)
    loss_key, again = jax.random.split(key)
    measured = balance.per_level_loss(loss_key, process, plain, oracle.denoise, data, levels)
    weight = balance.balanced(levels, measured.value)

    even = losses.matching(process, row, weight)
    same = balance.per_level_loss(loss_key, process, even, oracle.denoise, data, levels)
    np.testing.assert_allclose(same.value, 1, rtol=1e-8)  # the same noise
    fresh = balance.per_level_loss(again, process, even, oracle.denoise, data, levels)
    assert np.all(abs(fresh.value - 1) < 5 * np.hypot(fresh.stderr, measured.stderr / measured.value))
    assert np.all(fresh.stderr < 0.15)

    # EDM's row has a loss of 1 at both ends, and learns something in between: the weight rises once and falls once.
    shape = np.asarray(weight(process, levels / 20.0))
    top = shape.argmax()
    assert 0 < top < len(levels) - 1
    noise = 5 * np.hypot(*(shape * np.asarray(measured.stderr / measured.value))[np.array([[1], [0]]) + np.arange(11)])
    assert np.all(np.diff(shape)[:top] > -noise[:top])
    assert np.all(np.diff(shape)[top:] < noise[top:])
    assert shape[top] > 2 * max(shape[0], shape[-1])

    # With the density that training draws, and between and beyond the levels.
    density = jnp.linspace(0.5, 1.5, 12)
    drawn = balance.balanced(levels, measured.value, density=density, scale=3.0)
    np.testing.assert_allclose(drawn(process, levels / 20.0), 3 * shape / density, rtol=1e-9)
    between = weight(process, np.sqrt(levels[4] * levels[5]) / 20.0)
    np.testing.assert_allclose(between, np.sqrt(shape[4] * shape[5]), rtol=1e-9)
    np.testing.assert_allclose(weight(process, np.array([1e-4, 1.0])), shape[[0, -1]], rtol=1e-9)


def test_mistakes(key):
    process, data = processes.edm(), np.zeros((3, 1), np.float32)
    loss = losses.matching(process)
    for levels in ([1.0], [1.0, 0.5], [0.0, 1.0]):
        with pytest.raises(InputError, match="at least two rising ones above 0"):
            balance.total_weighting(key, process, grids.uniform_times, levels)
    with pytest.raises(InputError, match="draws=1"):
        balance.total_weighting(key, process, grids.uniform_times, [0.5, 1.0], draws=1)
    with pytest.raises(InputError, match=r"data of shape \(3,\)"):
        balance.per_level_loss(key, process, loss, lambda x, t: x, data[:, 0], [0.5, 1.0])
    for levels, sentence in (([1.0, 8000.0], "which the process has not"), ([0.5, 1.0], "not all finite")):
        nothing = np.full((3, 1), np.nan) if sentence == "not all finite" else data
        with pytest.raises(InputError, match=sentence):
            balance.per_level_loss(key, process, loss, lambda x, t: x, nothing, levels)
        with pytest.raises(InputError, match=sentence):
            balance.gradient_share(key, process, loss, belief, {}, nothing, levels)
    with pytest.raises(InputError, match="chunk=0"):
        balance.gradient_share(key, process, loss, belief, {}, data, [0.5, 1.0], chunk=0)
    with pytest.raises(InputError, match=r"the weights have shape \(3,\)"):
        balance.gradient_share(key, process, loss, belief, {}, data, [0.5, 1.0], weights=np.ones(3))
    for bad in ([1.0, 0.0], [1.0, np.nan], [1.0, -1.0]):
        with pytest.raises(InputError, match="not positive and finite"):
            balance.balanced([0.5, 1.0], bad)
    with pytest.raises(InputError, match=r"losses of shape \(3,\)"):
        balance.balanced([0.5, 1.0], [1.0, 1.0, 1.0])
