"""Data to noise and back: naive inversion returns at the order of its stepper, a repaired one gains an order a round,
and latents of Gaussian data are the exact flow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError

LOW, HIGH = 0.02, 40.0
LAW = np.array([0.4, 0.6]), np.array([[-1.0, 0.3], [0.8, 1.2]]), np.array([[0.2, 0.1], [0.1, 0.3]])


def times(p, n):
    return p.time_of(jnp.geomspace(HIGH, LOW, n + 1))


@jax.jit
def round_trip(p, up, down, denoise, x, ts):
    """How far data is from itself after a walk to noise and back. (Up and down, the error of an even order cancels, C
    h^3 + C (-h)^3: Heun's comes back at order 3.)"""

    def walk(x):
        z = samplers.invert(p, up, denoise, x, ts)
        return samplers.sample(jax.random.key(0), down, denoise, z, ts)

    return jnp.linalg.norm(jax.vmap(walk)(x) - x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", ["vp", "flow"])
@pytest.mark.parametrize(
    ("inner", "rounds", "order"),
    [(samplers.euler, None, 1), (samplers.heun, None, 3), (samplers.euler, 0, 1), (samplers.euler, 1, 2),
     (samplers.euler, 2, 3), (samplers.heun, 1, 4)],
)  # fmt: skip
def test_the_round_trip_closes_at_the_order(inner, rounds, order, process, key):
    p = getattr(processes, process)()
    oracle = oracles.mixture(p, *LAW)
    x0 = oracle.sample(key, 16)
    errors = []
    for n in (64, 128):
        ts = times(p, n)
        alpha, sigma = p.scales(ts[-1])
        x = alpha * x0 + sigma * jax.random.normal(jax.random.fold_in(key, 1), x0.shape)
        up = inner(p) if rounds is None else samplers.inverse(p, inner(p), rounds=rounds)
        errors.append(round_trip(p, up, inner(p), oracle.denoise, x, ts))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25, errors


@pytest.mark.usefixtures("x64")
def test_enough_rounds_undo_the_steps_to_rounding(key):
    p = processes.vp()
    oracle = oracles.mixture(p, *LAW)
    x = oracle.sample(key, 8)
    up = samplers.inverse(p, samplers.euler(p), rounds=20)
    assert round_trip(p, up, samplers.euler(p), oracle.denoise, x, times(p, 64)) < 1e-10


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [samplers.euler, samplers.heun, samplers.dpmpp_2m])
def test_latents_of_gaussian_data_are_the_flows(make, key):
    """Carried by the exact flow they are N(alpha m, alpha^2 s^2 + sigma^2), close to the prior; the steps come to that
    at their order."""
    p, order = processes.vp(), 1 if make is samplers.euler else 2
    oracle = oracles.gaussian(p, jnp.array([0.3, -0.8]), jnp.array([0.25, 1.0]))
    errors = []
    for n in (64, 128):
        ts = times(p, n)
        alpha, sigma = p.scales(ts[-1])
        x = alpha * oracle.sample(key, 256) + sigma * jax.random.normal(jax.random.fold_in(key, 1), (256, 2))
        z = jax.vmap(lambda x, ts=ts: samplers.invert(p, make(p), oracle.denoise, x, ts))(x)
        exact = jax.vmap(lambda x, ts=ts: oracle.flow(x, ts[-1], ts[0]))(x)
        solved = samplers.flow(p, oracle.denoise, x[0], ts[-1], ts[0], rtol=1e-9, atol=1e-9).x
        np.testing.assert_allclose(solved, exact[0], atol=1e-6)
        errors.append(np.linalg.norm(z - exact))
        white = z / p.scales(ts[0])[1]
        gap = np.max(abs(z - exact)) / p.scales(ts[0])[1] + 1 / HIGH
        assert np.all(abs(white.mean(0)) < 5 / np.sqrt(256) + gap)
        assert np.all(abs(white.std(0) - 1) < 5 / np.sqrt(2 * 256) + gap)
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25, errors


def test_the_states_on_the_way_can_be_kept(key):
    p = processes.vp()
    path = samplers.invert(p, samplers.euler(p), lambda x, t: 0.5 * x, jnp.ones(3), times(p, 4), trajectory=True)
    assert path.shape == (5, 3)
    np.testing.assert_array_equal(path[0], jnp.ones(3))


def test_mistakes():
    p, x, denoise = processes.vp(), jnp.ones(2), lambda x, t: 0.5 * x
    with pytest.raises(InputError, match=r"sigma is 0 at the last time; end the grid above: ts\[:-1\]"):
        samplers.invert(p, samplers.euler(p), denoise, x, jnp.array([0.9, 0.5, 0.0]))
    with pytest.raises(InputError, match="must fall"):
        samplers.invert(p, samplers.euler(p), denoise, x, jnp.array([0.1, 0.9]))
    with pytest.raises(InputError, match=r"inversion got a stepper that draws noise.*use a deterministic one"):
        samplers.invert(p, samplers.ancestral(p), denoise, x, jnp.array([0.9, 0.1]))
    with pytest.raises(InputError, match="inverse got a multistep stepper"):
        samplers.invert(p, samplers.inverse(p, samplers.dpmpp_2m(p)), denoise, x, jnp.array([0.9, 0.1]))
    with pytest.raises(InputError, match="rounds=-1, expected 0 or more"):
        samplers.inverse(p, samplers.euler(p), rounds=-1)
