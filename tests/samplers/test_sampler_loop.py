"""The loop gives each interval to the right stepper, returns what was asked for, and takes its noise from where it was
told to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import STEPPERS

from jaxdiff import oracles, processes, samplers
from jaxdiff.samplers.stepper import one_step

TS = jnp.array([1.0, 0.7, 0.4, 0.2, 0.1])


def belief(x, t):
    return 0.5 * x


def marks(scale):
    """A stepper that multiplies by `scale` and adds where it went from and to: x -> scale x + 10 t + s."""
    return one_step(mark, jnp.asarray(scale))


def mark(scale, key, denoise, x, t, s, noise):
    return scale * x + 10 * t + s


def by_hand(scales):
    x, states = 1.0, [1.0]
    for scale, t, s in zip(scales, TS[:-1], TS[1:], strict=True):
        x = scale * x + 10 * float(t) + float(s)
        states.append(x)
    return states


@pytest.mark.parametrize("first", [None, 3.0])
@pytest.mark.parametrize("last", [None, 5.0])
def test_first_and_last_take_their_interval_alone(first, last, key):
    scales = [first or 2.0, 2.0, 2.0, last or 2.0]
    ends = {"first": first and marks(first), "last": last and marks(last)}
    states = samplers.sample(key, marks(2.0), belief, jnp.asarray(1.0), TS, trajectory=True, **ends)
    np.testing.assert_allclose(states, by_hand(scales), rtol=1e-6)
    end = samplers.sample(key, marks(2.0), belief, jnp.asarray(1.0), TS, **ends)
    assert end == states[-1]


def test_first_and_last_may_be_the_whole_way(key):
    ends = {"first": marks(3.0), "last": marks(5.0)}
    end = samplers.sample(key, marks(2.0), belief, jnp.asarray(1.0), TS[:3], **ends)
    np.testing.assert_allclose(end, 5 * (3 + 10 * 1.0 + 0.7) + 10 * 0.7 + 0.4, rtol=1e-6)


def test_a_trajectory_starts_at_x_and_ends_at_the_result(key):
    p = processes.vp()
    x = jnp.ones((2, 3))
    options = {"last": samplers.euler(p), "denoise_last": True}
    end = samplers.sample(key, samplers.heun(p), belief, x, TS, **options)
    states = samplers.sample(key, samplers.heun(p), belief, x, TS, trajectory=True, **options)
    assert states.shape == (len(TS) + 1, 2, 3)
    np.testing.assert_array_equal(states[0], x)
    np.testing.assert_array_equal(states[-1], end)


def test_denoise_last_returns_the_belief_at_the_last_time(key):
    p = processes.ve()
    oracle = oracles.gaussian(p, 0.3, 0.25)
    ts = jnp.linspace(1.0, 0.0, 8)
    noisy = samplers.sample(key, samplers.euler(p), oracle.denoise, jnp.asarray(40.0), ts)
    clean = samplers.sample(key, samplers.euler(p), oracle.denoise, jnp.asarray(40.0), ts, denoise_last=True)
    np.testing.assert_allclose(clean, oracle.denoise(noisy, 0.0), rtol=1e-6)
    assert clean != noisy


@pytest.mark.parametrize("name", [name for name, row in STEPPERS.items() if row.stochastic])
def test_all_noise_comes_from_the_injected_function(name, key):
    """Zero noise from a zero state under a zero belief goes nowhere; without injection the same walk moves."""
    p = processes.vp()
    stepper, x = STEPPERS[name].make(p), jnp.zeros(3)

    def zeros(key, shape, dtype):
        return jnp.zeros(shape, dtype)

    still = samplers.sample(key, stepper, belief, x, TS, noise=zeros)
    np.testing.assert_array_equal(still, 0)
    assert (samplers.sample(key, stepper, belief, x, TS) != 0).all()


P = processes.vp()
DRAWS = {
    "ancestral": (samplers.ancestral(P), 1),
    "reverse_sde": (samplers.reverse_sde(P), 1),
    "churned": (samplers.churn(P, samplers.ancestral(P), 0.2), 2),
    "corrected": (samplers.langevin(P, samplers.ancestral(P), steps=3), 4),
    "product": (samplers.product({"a": samplers.ancestral(P), "b": samplers.ancestral(P)}), 2),
}


@pytest.mark.parametrize("name", DRAWS)
def test_no_two_draws_of_a_walk_share_their_noise(name, key):
    """Every key that asks for noise is another one: from step to step, within a step, from leaf to leaf."""
    stepper, draws_a_step = DRAWS[name]
    seen = []

    def recorded(key, shape, dtype):
        jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key))
        return jax.random.normal(key, shape, dtype)

    x = {"a": jnp.zeros(3), "b": jnp.zeros(3)} if name == "product" else jnp.zeros(3)
    samplers.sample(key, stepper, lambda x, t: x, x, TS, noise=recorded)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == draws_a_step * (len(TS) - 1)


def test_a_sampler_is_sample_with_its_fields(key):
    p = processes.vp()
    sampler = samplers.Sampler(
        p, samplers.dpmpp_2m(p), TS, first=samplers.euler(p), last=samplers.ancestral(p), denoise_last=True
    )
    x = sampler.start(key, (3,))
    expected = samplers.sample(
        key, samplers.dpmpp_2m(p), belief, x, TS,
        first=samplers.euler(p), last=samplers.ancestral(p), denoise_last=True,
    )  # fmt: skip
    np.testing.assert_array_equal(sampler(key, belief, x), expected)


def test_a_sampler_starts_with_the_noise_of_its_first_time(key):
    """Not of t = 1: a grid may start lower."""
    p = processes.edm(80.0)
    sampler = samplers.edm(p, steps=4, sigma_max=10.0)
    np.testing.assert_allclose(sampler.start(key, (5,)), 10 * jax.random.normal(key, (5,)), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_edm_asks_the_denoiser_twice_a_step_less_one(steps, key):
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return 0.5 * x

    samplers.edm(processes.edm(), steps=steps)(key, counted, jnp.ones(2))
    jax.effects_barrier()
    assert len(calls) == 2 * steps - 1


@pytest.mark.parametrize(("name", "calls"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 1), ("ancestral", 1)])
def test_a_step_asks_as_often_as_it_says(name, calls, key):
    asked = []

    def counted(x, t):
        jax.debug.callback(lambda: asked.append(1))
        return 0.5 * x

    samplers.sample(key, STEPPERS[name].make(processes.vp()), counted, jnp.ones(2), TS)
    jax.effects_barrier()
    assert len(asked) == calls * (len(TS) - 1)
