"""Autoguidance on exact denoisers: the linear combination, one call where one is enough, the closed form of the guided
flow between Gaussians, and samples that move into the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import guidance, oracles, processes, samplers

X, T = jnp.array([0.3, -0.8]), 0.4


def test_it_is_the_line_through_two_beliefs(x64):
    process = processes.cosine()
    x = X.astype(jnp.float64)
    good = oracles.mixture(process, [0.4, 0.6], [[1.0, 2.0], [-1.0, 0.0]], [0.1, 0.2]).denoise
    bad = oracles.mixture(process, [0.4, 0.6], [[1.0, 2.0], [-1.0, 0.0]], [0.4, 0.5]).denoise
    for weight in (0.0, 0.5, 1.0, 1.4, 3.0):
        guided = guidance.autoguidance(good, bad, weight)
        for t in (0.1, 0.5, 0.9):
            exact = np.asarray(bad(x, t)) + weight * (np.asarray(good(x, t)) - np.asarray(bad(x, t)))
            np.testing.assert_allclose(guided(x, t), exact, rtol=1e-12)
            np.testing.assert_array_equal(guided(x, t), guidance.classifier_free(good, bad, weight)(x, t))


@pytest.mark.parametrize(("weight", "calls"), [(1, [1, 0]), (0.0, [0, 1]), (2.5, [1, 1])])
def test_weight_1_calls_no_guide(weight, calls):
    called = [0, 0]

    def counted(i):
        def denoise(x, t):
            called[i] += 1
            return x * t

        return denoise

    guidance.autoguidance(counted(0), counted(1), weight)(X, T)
    assert called == calls


def test_it_composes_with_an_interval():
    """Outside of it the denoiser is alone; in it, guided (Kynkaanniemi et al. 2024)."""
    process = processes.flow()  # sigma / alpha = t / (1 - t)
    good, bad = (
        oracles.gaussian(process, jnp.zeros(2), 0.5).denoise,
        oracles.gaussian(process, jnp.zeros(2), 1.0).denoise,
    )
    guided = guidance.autoguidance(good, bad, 2.0)
    both = guidance.interval(process, guided, good, low=0.25, high=1.0)
    np.testing.assert_allclose(both(X, 0.4), guided(X, 0.4), rtol=1e-6)
    np.testing.assert_allclose(both(X, 0.8), good(X, 0.8), rtol=1e-6)
    assert jnp.abs(guided(X, 0.8) - good(X, 0.8)).min() > 1e-3


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0, 3.0])
def test_the_guided_flow_between_gaussians_has_a_closed_form(weight, x64):
    """D and D_g of N(m, V) and N(m, V_g), axes in common: with k = V / (V + sigma^2), 1 - w k - (1 - w) k_g is
    w (1 - k) + (1 - w) (1 - k_g), so d ln(x - m) / d sigma = w sigma / (V + sigma^2) + (1 - w) sigma / (V_g + sigma^2).
    From sigma to 0 an axis of x - m shrinks by (V / (V + sigma^2))^(w / 2) (V_g / (V_g + sigma^2))^((1 - w) / 2)."""
    process = processes.edm()
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    variance, wider, mean = np.array([0.5, 0.1]), np.array([0.8, 0.9]), np.array([1.0, -2.0])
    good, bad = (oracles.gaussian(process, mean, turn @ np.diag(v) @ turn.T).denoise for v in (variance, wider))
    start = jnp.array([90.0, -40.0])
    end = samplers.flow(process, guidance.autoguidance(good, bad, weight), start, 1.0, 0.0, rtol=1e-10, atol=1e-10).x
    shrink = (variance / (variance + 80**2)) ** (weight / 2) * (wider / (wider + 80**2)) ** ((1 - weight) / 2)
    exact = mean + turn @ (shrink * (turn.T @ (np.asarray(start) - mean)))
    np.testing.assert_allclose(end, exact, rtol=1e-6)
    # Started from all of x_t at sigma = 80, the variance at the end: V (V / V_g)^(w - 1), as sigma grows.
    np.testing.assert_allclose(shrink**2 * (variance + 80**2), variance * (variance / wider) ** (weight - 1), rtol=5e-4)


def test_samples_move_into_the_data(key):
    """A model that blurs the data, guided by one that blurs it more: what it draws is likelier under the data's law,
    and few stray samples are left. Guided the other way it gets worse. All classes stay."""
    process, n = processes.edm(), 400
    angles = 2 * np.pi * np.arange(6) / 6
    means = 1.5 * np.stack([np.cos(angles), np.sin(angles)], 1)

    def law(std):
        return oracles.mixture(process, np.full(6, 1 / 6), means, np.full(6, std**2))

    data, model, guide = law(0.1), law(0.2), law(0.3)
    sampler = samplers.edm(process, steps=18)
    starts = jax.vmap(lambda k: sampler.start(k, jnp.zeros(2)))(jax.random.split(key, n))

    @jax.jit
    def draw(weight):
        denoise = guidance.autoguidance(model.denoise, guide.denoise, weight)
        return jax.vmap(lambda x: sampler(jax.random.key(0), denoise, x))(starts)

    def scores(x):
        log_prob = np.asarray(jax.vmap(data.log_prob)(x), np.float64)
        nearest = np.linalg.norm(np.asarray(x)[:, None] - means, axis=-1)
        return log_prob, (nearest.min(1) > 0.4).mean(), np.bincount(nearest.argmin(1), minlength=6) / n

    (plain, stray, _), (guided, strays, share) = scores(draw(1.0)), scores(draw(2.0))
    gain = guided - plain  # the same starts: paired
    assert gain.mean() > 5 * gain.std() / np.sqrt(n)
    # One component alone: P(r > 2 std) = e^-2 = .135 becomes e^-4.5 = .011, since V becomes V (V / V_g).
    assert stray - strays > 5 * np.sqrt(stray / n)
    assert np.all(np.abs(share - 1 / 6) < 5 * np.sqrt(5 / 36 / n))
    back = scores(draw(0.5))[0] - plain
    assert back.mean() < -5 * back.std() / np.sqrt(n)
