"""The flow's log-likelihood of data whose density is known at every noise level: with the exact belief and the exact
law at t = 1 it is that density at t0, on every process and every clock, for data and for samples, and so is its
gradient. With any belief it is a density: it integrates to 1."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from flows import words

from jaxdiff import likelihood, oracles, processes
from jaxdiff.likelihood.ends import start
from jaxdiff.numerics import partial
from jaxdiff.samplers import clocks

pytestmark = pytest.mark.claim(
    "the flow's density of a Gaussian with full covariance and of a mixture, to 1e-6; on every clock"
)


MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
MIXTURE = [0.3, 0.7], [[-1.0, 0.5], [1.2, -0.3]], [[[0.05, 0.02], [0.02, 0.1]], [[0.2, -0.1], [-0.1, 0.15]]]
TWICE = [0.5, 0.5], [MEAN, MEAN], [COV, COV]  # the Gaussian, in the mixture's program
PROCESSES = ["vp", "subvp", "ve", "edm", "flow", "logsnr"]
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def make(process, **options):
    return getattr(processes, process)(**options)


def law_at(oracle, t, x):
    return oracle.log_prob(x, t)


def log_prob(key, oracle, x, t1=1.0, **options):
    """By the flow from a prior that is exact."""
    prior = partial(law_at, oracle, jnp.asarray(t1))
    options = {"prior": prior, "t1": t1, **options}
    return jax.vmap(lambda x: likelihood.flow_log_prob(key, oracle.process, oracle.denoise, x, **words(**options)))(x)


def solve(key, oracle, n, t0=None, t1=1.0, **options):
    """(what the flow finds of n draws of x_t0, their exact log-densities, their exact latents if known)."""

    @jax.jit
    def run(key, oracle):
        p, t = oracle.process, start(oracle.process, t0)
        x = jax.vmap(lambda x0, key: p.perturb(key, x0, t))(oracle.sample(key, n), jax.random.split(key, n))
        latent = jax.vmap(lambda x: oracle.flow(x, t, t1))(x) if hasattr(oracle, "flow") else None
        return log_prob(key, oracle, x, t1, t0=t, **options), jax.vmap(lambda x: oracle.log_prob(x, t))(x), latent

    return [run(key, one) for one in (oracle if isinstance(oracle, list) else [oracle])]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", PROCESSES)
def test_it_is_the_density_of_noisy_data(key, process):
    p = make(process)
    for found, exact, _ in solve(key, [oracles.mixture(p, *TWICE), oracles.mixture(p, *MIXTURE)], 4, **TIGHT):
        assert (found.result == diffrax.RESULTS.successful).all()
        np.testing.assert_allclose(found.log_prob, exact, atol=1e-6)
        np.testing.assert_array_equal(found.stderr, np.zeros(4))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("process", "clock", "t1"),
    [("vp", clocks.angle, 1.0), ("ve", clocks.time, 1.0), ("flow", clocks.log_snr, 0.999), ("flow", clocks.time, 1.0)],
)
def test_every_clock_shows_the_same_density(key, process, clock, t1):
    oracle = oracles.gaussian(make(process), MEAN, COV)
    ((found, exact, latent),) = solve(key, oracle, 1, 0.01, t1, clock=clock(), **TIGHT)
    np.testing.assert_allclose(found.log_prob, exact, atol=1e-6)
    np.testing.assert_allclose(found.latent, latent, atol=1e-6 * oracle.process.scales(t1)[1])


@pytest.mark.usefixtures("x64")
def test_it_is_the_density_of_position_and_velocity(key):
    ((found, exact, _),) = solve(key, oracles.linear(processes.cld(), MEAN, COV), 1, 0.05, **TIGHT)
    np.testing.assert_allclose(found.log_prob, exact, atol=1e-6)


def test_float32_keeps_three_digits(key):
    ((found, exact, _),) = solve(key, oracles.gaussian(processes.ve(), MEAN, COV), 8)
    assert {leaf.dtype for leaf in (found.log_prob, found.latent, found.stderr)} == {np.dtype("float32")}
    np.testing.assert_allclose(found.log_prob, exact, atol=2e-3)


@pytest.mark.usefixtures("x64")
def test_any_belief_makes_a_density():
    """One that is no data's: the flow keeps the mass of its (default) prior whatever it does with it."""
    p = processes.flow()
    oracle = oracles.mixture(p, [0.3, 0.7], [[-1.0], [1.2]], [0.05, 0.2])

    def believe(x, t):
        return 0.9 * oracle.denoise(x, t) + 0.4 * t * jnp.sin(3 * x)

    x = jnp.linspace(-8.0, 8.0, 401)
    options = words(t0=0.05, rtol=1e-6, atol=1e-6)
    find = jax.vmap(lambda x: likelihood.flow_log_prob(jax.random.key(0), p, believe, x, **options))
    density = np.exp(find(x[:, None]).log_prob)
    assert max(density[0], density[-1]) < 1e-7
    assert abs(np.trapezoid(density, x) - 1) < 1e-5
    assert abs(np.trapezoid(density * x, x) - 0.54) > 0.02  # not the oracle's


@pytest.mark.usefixtures("x64")
def test_a_sample_comes_with_the_log_prob_that_it_has(key):
    p = processes.vp()
    oracle = oracles.mixture(p, *MIXTURE)
    prior = partial(law_at, oracle, jnp.asarray(1.0))
    latents = jax.vmap(lambda key: p.prior(key, (2,)))(jax.random.split(key, 4))
    options = {"rtol": 1e-7, "atol": 1e-7, "prior": prior}

    @jax.jit
    def there_and_back(latents):
        made = jax.vmap(lambda z: likelihood.flow_sample(key, p, oracle.denoise, z, **words(**options)))(latents)
        found = log_prob(key, oracle, made.x, rtol=1e-7, atol=1e-7)
        return made, found, jax.vmap(lambda x: oracle.log_prob(x, start(p)))(made.x)

    made, found, exact = there_and_back(latents)
    np.testing.assert_allclose(found.log_prob, made.log_prob, atol=1e-5)
    np.testing.assert_allclose(found.latent, latents, atol=1e-5)
    np.testing.assert_allclose(made.log_prob, exact, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_gradients_are_the_densitys(key):
    p = processes.vp()

    def found(mean, x):
        return log_prob(key, oracles.gaussian(p, mean, COV), x[None], **TIGHT).log_prob[0]

    def exact(mean, x):
        return oracles.gaussian(p, mean, COV).log_prob(x, start(p))

    at = jnp.asarray(MEAN), jnp.array([0.3, 0.1])
    gradients = [jax.jit(jax.grad(f, (0, 1)))(*at) for f in (found, exact)]
    for got, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        assert abs(wanted).max() > 0.3


def _summed(pixels, pixel, x):
    return pixels(pixel.log_prob, x, 1.0).sum()


@pytest.mark.usefixtures("x64")
def test_many_dimensions_do_not_hide_an_error_of_the_density(key):
    """2,500 pixels of one law, whose Jacobian is diagonal, so that one probe of signs is exact."""
    p, size, tolerance = processes.vp(), 2500, 1e-4
    pixel = oracles.mixture(p, [0.3, 0.7], [[-1.0], [1.2]], [0.05, 0.2])

    def pixels(of, x, t):
        return jax.vmap(lambda x: of(x[None], t).reshape(()))(x)

    x = pixel.sample(key, size)[:, 0]
    exact = pixels(pixel.log_prob, x, start(p)).sum()
    errors = {}
    for norm in (likelihood.flow_norm, optimistix.rms_norm):
        controller = diffrax.PIDController(rtol=0.0, atol=tolerance, norm=norm)
        options = words(divergence="hutchinson", controller=controller, max_steps=64)
        prior = partial(_summed, pixels, pixel)
        found = likelihood.flow_log_prob(key, p, partial(pixels, pixel.denoise), x, prior=prior, **options)
        errors[norm] = abs(found.log_prob - exact)
    assert errors[likelihood.flow_norm] < 10 * tolerance
    assert errors[optimistix.rms_norm] > 20 * tolerance
