"""A decoder is Bayes' rule where it can be: then every draw of noise returns the data's own probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxdiff import data, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.likelihood import decoders

pytestmark = pytest.mark.claim("uniform bytes take 8 bits/dim on every scale")


PROCESSES = {"logsnr": processes.logsnr, "edm": processes.edm, "flow": processes.flow}
every_process = pytest.mark.parametrize("name", PROCESSES)


def nothing(x, t):
    raise AssertionError("the discrete decoder asks no denoiser")


@every_process
def test_the_discrete_decoder_is_the_posterior_of_equally_likely_levels(name, key, x64):
    """Each level's log-probability given z, by SciPy's normal density at z: so it sums to 1 over the levels."""
    process, values = PROCESSES[name](), np.linspace(-1, 1, 17)
    z = 0.7 * jax.random.normal(key, (5,))
    for t in (0.002, 0.05, 0.3):
        alpha, sigma = process.scales(t)
        decode = jax.jit(lambda x, z, t=t: decoders.discrete(17)(process, nothing, x, z, t))
        ours = jax.vmap(jax.vmap(decode, (0, None)), (None, 0))(jnp.asarray(values), z)
        joint = stats.norm.logpdf(np.asarray(z)[:, None], alpha * values, sigma)
        np.testing.assert_allclose(ours, joint - special.logsumexp(joint, 1, keepdims=True), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(np.exp(ours).sum(1), 1, rtol=1e-9)


@every_process
def test_uniform_data_cost_eight_bits_at_every_draw_of_the_noise(name, key):
    """Bayes' rule: log p(x | z) + log q(z) - log q(z | x) = log p(x), whatever z and t; in float32."""
    process = PROCESSES[name]()
    grid = data.to_model(np.arange(256, dtype=np.uint8), 256)
    oracle = oracles.mixture(process, np.full(256, 1 / 256), grid, np.zeros(256))

    @jax.jit
    @jax.vmap
    def nats(x, eps, t):
        alpha, sigma = process.scales(t)
        z = alpha * x + sigma * eps
        ours = decoders.discrete()(process, nothing, x, z, t)
        return ours + oracle.log_prob(z, t) + 0.5 * eps**2 + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(sigma)

    eps, t = jax.random.normal(key, (3, 256)), jnp.broadcast_to(jnp.array([[0.003], [0.03], [0.3]]), (3, 256))
    bits = nats(jnp.tile(grid, 3), eps.ravel(), t.ravel()) / -np.log(2)
    np.testing.assert_allclose(bits, 8, atol=2e-3)  # log(sigma) to 1e-7 of a grey level's width
    pure = decoders.discrete()(process, nothing, jnp.asarray(grid), process.scales(0.999999)[1] * eps[0], 0.999999)
    np.testing.assert_allclose(pure / (-256 * np.log(2)), 8, rtol=3e-2 if name == "logsnr" else 1e-3)


def test_as_the_noise_goes_the_level_is_certain(x64):
    x = jnp.asarray(data.to_model(np.arange(256, dtype=np.uint8), 256), float)
    process, decode = processes.logsnr(), decoders.discrete()
    alpha, sigma = process.scales(0.0)
    sharp = decode(process, nothing, x, alpha * x, 0.0)
    # Beside the right level stand two at a step's distance; at gamma = -13.3 a step is 6.06 standard deviations.
    step = alpha / sigma * 2 / 255
    np.testing.assert_allclose(
        sharp, -254 * np.log1p(2 * np.exp(-(step**2) / 2)) - 2 * np.exp(-(step**2) / 2), rtol=1e-6
    )
    assert 6 < step < 6.1


@pytest.mark.parametrize("levels", [2, 1000])
def test_it_takes_the_levels_of_to_model_and_nothing_between(levels, key):
    pixels = np.arange(levels, dtype=np.uint16)
    x = jnp.asarray(data.to_model(pixels, levels))
    process, decode = processes.vp(), decoders.discrete(levels)
    assert jnp.isfinite(decode(process, nothing, x, x, 0.01))
    traced = jax.jit(lambda x: decode(process, nothing, x, x, 0.01))
    assert jnp.isfinite(traced(x))
    step = 2 / (levels - 1)
    for wrong in (x + 0.02 * step, x.at[0].add(-step), x.at[-1].add(step), x.at[0].set(jnp.nan)):
        with pytest.raises(InputError, match=rf"off its {levels} grey levels from -1.0 to 1.0.*not dequantised"):
            decode(process, nothing, wrong, x, 0.01)
        assert jnp.isnan(traced(wrong))  # a compiled mistake is no number


def test_its_range_is_the_callers_and_its_ends_are_checked(x64):
    process, x = processes.logsnr(), jnp.array([0.0, 0.25, 1.0])
    one = decoders.discrete(5, 0.0, 1.0)(process, nothing, x, 0.9 * x, 0.4)
    two = decoders.discrete(5)(process, nothing, 2 * x - 1, 0.0 * x, 0.4)
    assert one != two
    alpha, sigma = process.scales(0.4)
    joint = stats.norm.logpdf(0.9 * np.asarray(x)[:, None], alpha * np.linspace(0, 1, 5), sigma)
    exact = (joint - special.logsumexp(joint, 1, keepdims=True))[[0, 1, 2], [0, 1, 4]].sum()
    np.testing.assert_allclose(one, exact, rtol=1e-9)
    for levels in (1, 0):
        with pytest.raises(InputError, match=rf"levels={levels}, expected at least 2"):
            decoders.discrete(levels)
    with pytest.raises(InputError, match=r"low=1.0, which is not below high=-1.0"):
        decoders.discrete(256, 1.0, -1.0)


def test_the_gaussian_decoder_is_a_normal_density_at_the_belief(key, x64):
    process = processes.vp()
    oracle = oracles.gaussian(process, np.array([0.3, -0.2]), np.array([[0.5, 0.2], [0.2, 0.4]]))
    x, z = jnp.array([0.1, -0.7]), jax.random.normal(key, (2,))
    for t in (0.01, 0.3):
        alpha, sigma = process.scales(t)
        ours = decoders.gaussian()(process, oracle.denoise, x, z, t)
        np.testing.assert_allclose(ours, stats.norm.logpdf(x, oracle.denoise(z, t), sigma / alpha).sum(), rtol=1e-9)


@every_process
def test_the_price_of_the_gaussian_decoder_is_its_excess_variance(name, x64):
    """Of N(0, s^2) it knows the posterior's mean but not its variance v < r^2 = (sigma / alpha)^2, so that the mean of
    log p(x | z) + log q(z) - log q(z | x) falls short of -H by KL(N(0, v) | N(0, r^2)).

    All is quadratic in x and eps, and even: the mean over x = +-s, eps = +-1 is that over both Gaussians."""
    process, s = PROCESSES[name](), 0.5
    oracle = oracles.gaussian(process, 0.0, s**2)
    for t in (0.003, 0.05, 0.4):
        alpha, sigma = process.scales(t)
        total = 0.0
        for x, eps in ((s, 1.0), (s, -1.0), (-s, 1.0), (-s, -1.0)):
            z = alpha * x + sigma * eps
            ours = decoders.gaussian()(process, oracle.denoise, jnp.float64(x), z, t)
            total += 0.25 * (ours + oracle.log_prob(z, t) - stats.norm.logpdf(z, alpha * x, sigma))
        share = s**2 / (s**2 + (sigma / alpha) ** 2)
        kl = 0.5 * (share - 1 - np.log(share))
        np.testing.assert_allclose(-0.5 * np.log(2 * np.pi * np.e * s**2) - total, kl, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [decoders.gaussian, lambda: decoders.discrete(2)], ids=["gaussian", "discrete"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoder_is_a_pytree_that_compiles_once_maps_and_keeps_the_dtype(make, dtype, key):
    process, traces = processes.logsnr(), []
    x = jax.random.rademacher(key, (4, 3, 2), jnp.dtype(dtype))

    @jax.jit
    def value(decode, x, z):
        traces.append(1)
        return decode(process, lambda z, t: 0.9 * z, x, z, 0.3)

    alone = [value(make(), x[i], 0.8 * x[i]) for i in range(4)]
    assert len(traces) == 1
    assert {(a.dtype, a.shape) for a in alone} == {(jnp.dtype(dtype), ())}
    together = jax.jit(jax.vmap(lambda x, z: make()(process, lambda z, t: 0.9 * z, x, z, 0.3)))(x, 0.8 * x)
    np.testing.assert_allclose(
        together.astype(float), np.array(alone, float), rtol=1e-5 if dtype == "float32" else 0.05
    )


def test_a_belief_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"shape \(1, 3\).*one example"):
        decoders.gaussian()(processes.vp(), lambda z, t: z[None], jnp.ones(3), jnp.ones(3), 0.3)
