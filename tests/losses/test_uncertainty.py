"""loss / e^u + n u is least at the log of an element's expected loss: on exact denoisers, that is a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdiff import denoisers, losses, networks, oracles, parameterizations, processes
from jaxdiff.losses import weights

COV = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])
PROCESS = processes.edm()
TIMES = np.array([0.0005, 0.003, 0.01, 0.1])  # sigma from .04 to 8


def expected(t):
    """E[(sigma^2 + .25) / (.5 sigma)^2 |x0 - D|^2] / 3, by linear algebra."""
    sigma = 80 * t
    least = np.trace(COV - COV @ np.linalg.solve(COV + sigma**2 * np.eye(3), COV))
    return (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * least / 3


def test_the_least_loss_is_at_the_log_of_the_expected_one(key):
    """The slope in u has mean 0 there, and not .1 to either side."""
    oracle, draws = oracles.gaussian(PROCESS, np.zeros(3), COV), 4000
    x0, keys = oracle.sample(key, draws), jax.random.split(jax.random.fold_in(key, 1), draws)
    inner = losses.matching(PROCESS, parameterizations.data, weights.edm(0.5))

    def total(u, key, x0, t):
        return losses.uncertain(inner, lambda t: u)(key, oracle.denoise, x0, t)

    slopes = jax.jit(jax.vmap(jax.grad(total), (None, 0, 0, None)))
    for t in TIMES:
        at = np.log(expected(t))
        for shift, zero in ((0, True), (0.1, False), (-0.1, False)):
            slope = np.asarray(slopes(jnp.float32(at + shift), keys, x0, jnp.float32(t)), np.float64)
            assert (abs(slope.mean()) < 5 * slope.std() / np.sqrt(draws)) == zero, (t, shift)


def test_by_hand_and_with_a_mask(x64):
    """Error 1 in each of four elements at sigma = 40: the sum over elements of lambda / e^u + u (EDM2, eq. 21)."""

    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    inner = losses.matching(PROCESS, parameterizations.data, weights.edm(0.5))
    loss = losses.uncertain(inner, lambda t: jnp.log(2 * t))
    x0, u, lam = jnp.ones((2, 2)), np.log(2 * 0.5), (40**2 + 0.25) / 20**2
    given = (jax.random.key(0), lambda x, t: 0 * x, x0, 0.5)
    np.testing.assert_allclose(loss(*given, noise=ones), 4 * (lam / np.exp(u) + u), rtol=1e-12)
    loss = losses.uncertain(inner, lambda t: jnp.log(6 * t))
    for mask, n in ((jnp.array([[True], [False]]), 2), (jnp.array([[True, False], [False, False]]), 1)):
        exact = n * (lam / 3 + np.log(3))
        np.testing.assert_allclose(loss(*given, noise=ones, mask=mask), exact, rtol=1e-12)


def test_a_constant_shifts_nothing_but_its_own_price(key):
    """u = 0 is the loss as it was; the denoiser's gradient is that of loss / e^u, exactly."""
    inner, x0 = losses.matching(PROCESS), jnp.array([0.3, -1.0, 0.8])

    def value(scale, u):
        loss = inner if u is None else losses.uncertain(inner, lambda t: jnp.float32(u))
        return loss(key, lambda x, t: scale * x, x0, 0.01)

    np.testing.assert_allclose(value(0.3, 0.0), value(0.3, None), rtol=1e-6)
    bare, divided = jax.grad(value)(0.3, None), jax.grad(lambda s: value(s, 1.5))(0.3)
    np.testing.assert_allclose(divided, bare / np.exp(1.5), rtol=1e-5)


def test_the_network_learns_the_expected_loss_of_every_level(key):
    """`networks.LogVariance` under `uncertain`, on a loss that is its own mean: u(t) becomes ln E[loss] / n."""
    apply, params = networks.functional(networks.LogVariance(rngs=nnx.Rngs(0)))
    apply, times = jax.jit(apply), jnp.geomspace(1e-4, 1e-1, 32)
    mean = jnp.asarray([expected(float(t)) for t in times], jnp.float32)

    def exact(key, denoise, x0, t, *, mask=None, noise=None):
        return 3 * jnp.interp(t, times, mean)

    def objective(params):
        u = losses.log_variance(apply, params, PROCESS)
        return jnp.mean(jax.vmap(lambda t: losses.uncertain(exact, u)(key, perfect, jnp.zeros(3), t))(times))

    def perfect(x, t):
        return x

    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 600))

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            params = networks.project(params)
            updates, state = optimizer.update(jax.grad(objective)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, 600)[0][0]

    with jax.numpy_dtype_promotion("standard"):
        learned = train(params)
    u = jax.vmap(losses.log_variance(apply, learned, PROCESS))(times)
    before = jax.vmap(losses.log_variance(apply, params, PROCESS))(times)
    assert np.abs(before - np.log(mean)).max() > 0.5
    np.testing.assert_allclose(u, np.log(mean), atol=0.05)
    level = denoisers.log_ratio(PROCESS, times)
    np.testing.assert_allclose(u, apply(learned, None, level), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_a_pytree_that_compiles_once_and_keeps_its_dtype(dtype, key):
    apply, params = networks.functional(networks.LogVariance(rngs=nnx.Rngs(0)))
    traces = []

    @jax.jit
    def value(loss, x0, t):
        traces.append(1)
        return loss(key, lambda x, t: 0.5 * x, x0, t)

    for scale in (1.0, 2.0):
        u = losses.log_variance(apply, {"read": {"weight": scale * params["read"]["weight"]}}, PROCESS)
        loss = losses.uncertain(losses.matching(PROCESS), u)
        out = value(loss, jnp.ones(3, dtype), jnp.asarray(0.01, dtype))
        assert (out.dtype, out.shape) == (jnp.dtype(dtype), ())
        assert jnp.isfinite(out)
    assert len(traces) == 1
