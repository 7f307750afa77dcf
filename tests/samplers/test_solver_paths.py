"""One Brownian path for all grids: the same key gives the same sample as the steps are refined, at strong order 1; with
fresh noise each step it never does."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError

STEPPERS = {
    "ancestral": samplers.ancestral,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_sde": samplers.dpmpp_sde,
}
WIDTH = 512  # coordinates, each a walk of its own


def gaps(key, p, make):
    """Root mean square distance between the results of n and 2 n steps, for n = 16, 32."""
    oracle = oracles.gaussian(p, 0.3 * jnp.ones(WIDTH), 0.25 * jnp.ones(WIDTH))
    x = jax.random.normal(jax.random.fold_in(key, 1), (WIDTH,))

    def walk(n):
        ts = p.time_of(jnp.geomspace(10.0, 0.1, n + 1))
        return np.asarray(samplers.sample(key, make(p), oracle.denoise, p.scales(ts[0])[1] * x, ts))

    ends = [walk(n) for n in (16, 32, 64)]
    return [np.sqrt(np.mean((a - b) ** 2)) for a, b in pairwise(ends)]


@pytest.mark.parametrize("name", STEPPERS)
def test_the_walks_of_one_key_converge_at_strong_order_1(name, key):
    p = processes.vp()
    found = gaps(key, p, lambda p: samplers.one_path(p, STEPPERS[name](p)))
    # A mean of WIDTH squares, so each order has a standard error of about sqrt(2 / WIDTH) / log 2 = .09.
    order = np.log2(found[0] / found[1])
    assert abs(order - 1) < 0.3, found


def test_walks_of_fresh_noise_do_not_converge(key):
    found = gaps(key, processes.vp(), samplers.ancestral)
    assert min(found) > 0.3
    assert found[1] > 0.8 * found[0]


def test_the_increments_are_a_standard_normal_and_those_of_parts_add_up(key):
    """Over [t, m], [m, s] and [t, s], with variances in the proportion of log(alpha / sigma)."""
    p = processes.edm()
    t, m, s = (p.time_of(jnp.asarray(v)) for v in (4.0, 1.0, 0.5))
    found = []

    def step(key, denoise, carry, x, t, s, *, noise):
        found.append([noise.between(x, a, b) for a, b in ((t, m), (m, s), (t, s))])
        return x, carry

    class Asking(samplers.Stepper):
        def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
            return step(key, denoise, carry, x, t, s, noise=noise)

    inner = Asking()
    stepper, x = samplers.one_path(p, inner), jnp.zeros(20_000)
    stepper.step(key, None, stepper.init(x, t), x, t, s)
    first, second, whole = map(np.asarray, found[0])
    np.testing.assert_allclose(np.sqrt(2 / 3) * first + np.sqrt(1 / 3) * second, whole, atol=1e-4)
    for part in (first, second):
        assert abs(part.mean()) < 5 / np.sqrt(len(part))
        assert abs(part.var() - 1) < 5 * np.sqrt(2 / len(part))
    assert abs(np.mean(first * second)) < 5 / np.sqrt(len(first))


def test_each_example_has_a_path_of_its_own(key):
    p = processes.vp()
    oracle = oracles.gaussian(p, 0.3 * jnp.ones(3), 0.25)
    stepper, ts = samplers.one_path(p, samplers.ancestral(p)), p.time_of(jnp.geomspace(10.0, 0.1, 9))
    keys = jax.random.split(key, 2)
    walk = lambda k: samplers.sample(k, stepper, oracle.denoise, jnp.zeros(3), ts)  # noqa: E731
    one, other = (walk(k) for k in keys)
    assert (abs(one - other) > 1e-3).all()
    np.testing.assert_allclose(jax.vmap(walk)(keys), jnp.stack([one, other]), atol=1e-5)


def test_mistakes_in_levels():
    p = processes.vp()
    with pytest.raises(InputError, match="one_path got levels=0, expected at least 1"):
        samplers.one_path(p, samplers.ancestral(p), levels=0)


@pytest.mark.parametrize("modifier", [samplers.langevin, lambda p, inner: samplers.churn(p, inner, 0.2)])
def test_noise_that_is_no_increment_is_refused(modifier, key):
    p = processes.vp()
    stepper = samplers.one_path(p, modifier(p, samplers.euler(p)))
    with pytest.raises(InputError, match=r"one_path got a stepper whose noise is no increment.*use it on steppers"):
        samplers.sample(key, stepper, lambda x, t: x, jnp.ones(2), jnp.array([0.9, 0.5]))
