"""Churn climbs and is otherwise nothing; Langevin keeps the law it corrects towards; a projection holds after every
step; a product is its leaves, side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes, samplers
from jaxdiff.errors import InputError


def zeros(key, shape, dtype):
    return jnp.zeros(shape, dtype)


def step(stepper, key, denoise, x, t, s, **options):
    t, s = jnp.asarray(t, x.dtype), jnp.asarray(s, x.dtype)
    return stepper.step(key, denoise, stepper.init(x, t), x, t, s, **options)[0]


class Stay(samplers.Stepper):
    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        return x, carry


# Churn ---------------------------------------------------------------------------------------------------------------


def test_churn_of_amount_0_is_its_inner_stepper(key):
    p = processes.vp()
    denoise = oracles.gaussian(p, jnp.full(2, 0.3), 0.25).denoise
    x, ts = jnp.array([0.5, -2.0]), grids.karras(p, 6)
    plain = samplers.sample(key, samplers.euler(p), denoise, x, ts)
    for options in ({"amount": 0.0}, {"amount": 0.3, "low": 1e4}, {"amount": 0.3, "high": 1e-4}):
        churned = samplers.sample(key, samplers.churn(p, samplers.euler(p), **options), denoise, x, ts)
        np.testing.assert_allclose(churned, plain, rtol=1e-6)


def test_churn_is_the_identity_where_there_is_no_signal(key):
    for p in (processes.cosine(), processes.flow()):
        inner, x = samplers.euler(p), jnp.array([0.5, -2.0])
        churned = samplers.churn(p, inner, 0.3, noise_scale=1.1)
        args = (key, lambda x, t: 0.1 * x, x, 1.0, 0.9)
        np.testing.assert_array_equal(step(churned, *args), step(inner, *args))


def test_churn_acts_within_its_range_of_levels_alone(key):
    """`low` and `high` are levels sigma / alpha, not times nor standard deviations."""
    p = processes.vp()
    for level, acts in ((0.5, False), (0.6, True), (1.9, True), (2.1, False)):
        t = p.time_of(level)
        churned = samplers.churn(p, samplers.euler(p), 0.2, low=0.55, high=2.0)
        x = jnp.array([0.5, -2.0])
        args = (key, lambda x, t: 0.1 * x, x, t, 0.5 * t)
        assert bool((step(churned, *args) != step(samplers.euler(p), *args)).any()) == acts


def test_churn_asks_the_denoiser_at_the_noisier_time(key):
    p = processes.edm(80.0)
    asked = []

    def denoise(x, t):
        asked.append(t)
        return x

    step(samplers.churn(p, samplers.euler(p), 0.25), key, denoise, jnp.ones(2), 0.5, 0.25)
    step(samplers.churn(p, samplers.euler(p), 0.25), key, denoise, jnp.ones(2), 0.9, 0.25)
    np.testing.assert_allclose(asked, [0.625, 1.0], rtol=1e-6)  # the second climb stops at t = 1


def test_churn_refuses_a_multistep_stepper(key):
    p = processes.vp()
    with pytest.raises(InputError, match=r"multistep.*memory new noise makes wrong.*such as heun"):
        samplers.sample(
            key, samplers.churn(p, samplers.dpmpp_2m(p), 0.1), lambda x, t: x, jnp.ones(2), jnp.array([0.9, 0.5, 0.1])
        )


# Langevin ------------------------------------------------------------------------------------------------------------


def stay(x, s):
    return x


@pytest.mark.parametrize("process", ["vp", "edm"])
def test_langevin_moves_the_marginal_by_the_square_of_its_step(process, x64):
    """With the exact score, x -> (1 - e / v) x + sqrt(2 e) z takes variance v to v + e^2 / v; e = 2 (snr sigma)^2."""
    p, s = getattr(processes, process)(), 0.3
    alpha, sigma = map(float, p.scales(s))
    mean, v = alpha * 0.7, alpha**2 * 0.25 + sigma**2
    denoise = oracles.gaussian(p, 0.7, 0.25).denoise
    nothing = Stay()
    for snr in (0.05, 0.1):
        for steps in (1, 3):
            stepper = samplers.langevin(p, nothing, snr=snr, steps=steps)

            def move(x, z, stepper=stepper):
                return step(stepper, jax.random.key(0), denoise, x, 0.4, s, noise=lambda k, shape, d: z)

            at = jnp.asarray(mean)
            np.testing.assert_allclose(move(at, jnp.zeros(())), mean, rtol=1e-12)
            gain, fresh = jax.grad(move, (0, 1))(at, jnp.zeros(()))
            e = 2 * (snr * sigma) ** 2
            assert gain == pytest.approx((1 - e / v) ** steps, rel=1e-10)
            if steps == 1:
                assert gain**2 * v + fresh**2 - v == pytest.approx(e**2 / v, rel=1e-8)


def test_langevin_needs_a_correction():
    p = processes.vp()
    with pytest.raises(InputError, match="steps=0, expected at least 1"):
        samplers.langevin(p, samplers.euler(p), steps=0)


# Project -------------------------------------------------------------------------------------------------------------


def test_a_projection_holds_after_every_step(key):
    """And is told the time that the step arrived at."""
    p = processes.vp()
    ts = jnp.linspace(1.0, 0.0, 7)

    def onto(x, s):
        return x - x.mean() + s

    states = samplers.sample(
        key, samplers.project(samplers.ancestral(p), onto), lambda x, t: 0.5 * x, jnp.arange(5.0), ts, trajectory=True
    )
    np.testing.assert_allclose(states[1:].mean(1), ts[1:], atol=1e-5)


def test_a_projection_keeps_the_memory_of_a_multistep_stepper(key):
    p = processes.vp()
    denoise, ts = oracles.gaussian(p, 0.3, 0.25).denoise, grids.karras(p, 8)
    plain, projected = (
        samplers.sample(key, stepper, denoise, jnp.asarray(0.7), ts, last=samplers.euler(p))
        for stepper in (samplers.dpmpp_2m(p), samplers.project(samplers.dpmpp_2m(p), stay))
    )
    assert plain == projected


# Product -------------------------------------------------------------------------------------------------------------

P = {"pos": processes.vp(), "feat": processes.cosine(), "rot": processes.flow()}
LAWS = {"pos": (0.3, 0.25), "feat": (-1.0, 0.5), "rot": (0.0, 2.0)}
TS = jnp.array([0.9, 0.8, 0.5, 0.3, 0.05])


def oracle(name):
    return oracles.gaussian(P[name], jnp.full(3, LAWS[name][0]), LAWS[name][1])


def joint(names):
    return lambda x, t: {name: oracle(name).denoise(x[name], t) for name in names}


MAKE = {
    "euler": samplers.euler,
    "ddim": lambda p: samplers.ddim(p, 0.7),
    "ancestral": samplers.ancestral,
    "dpmpp_2m": samplers.dpmpp_2m,
}


@pytest.mark.parametrize("name", MAKE)
def test_a_product_of_independent_leaves_is_each_leaf_alone(name, key):
    """With the leaf's own noise, here a function of its shape alone."""
    x = {"pos": jnp.array([0.5, -2.0, 0.1]), "feat": jnp.array([1.0, 0.3, -0.2]), "rot": jnp.array([-1.0, 0.0, 2.0])}

    def noise(key, shape, dtype):
        return jnp.linspace(-1, 1, 3, dtype=dtype)

    stepper = samplers.product({leaf: MAKE[name](p) for leaf, p in P.items()})
    together = samplers.sample(key, stepper, joint(P), x, TS, noise=noise)
    for leaf, p in P.items():
        alone = samplers.sample(key, MAKE[name](p), oracle(leaf).denoise, x[leaf], TS, noise=noise)
        np.testing.assert_allclose(together[leaf], alone, atol=1e-6)


def test_a_leaf_draws_by_its_name_alone(key):
    """Neither its neighbours, their order, nor dict or struct matter; two leaves never share."""
    x = jnp.zeros(3)
    walks = []
    for names in (("pos", "feat"), ("pos", "feat", "rot"), ("pos",)):
        stepper = samplers.product({name: samplers.ancestral(P[name]) for name in names})
        walks.append(samplers.sample(key, stepper, joint(names), {name: x for name in names}, TS))
    np.testing.assert_allclose(walks[0]["pos"], walks[1]["pos"], atol=1e-6)
    np.testing.assert_allclose(walks[0]["pos"], walks[2]["pos"], atol=1e-6)
    np.testing.assert_allclose(walks[0]["feat"], walks[1]["feat"], atol=1e-6)
    same = samplers.product({"a": samplers.ancestral(P["pos"]), "b": samplers.ancestral(P["pos"])})
    pair = samplers.sample(key, same, lambda x, t: jax.tree.map(lambda v: 0.5 * v, x), {"a": x, "b": x}, TS)
    assert (pair["a"] != pair["b"]).all()


def test_a_product_asks_once_a_step(key):
    asked = []

    def counted(x, t):
        jax.debug.callback(lambda: asked.append(1))
        return joint(P)(x, t)

    stepper = samplers.product({leaf: samplers.euler(p) for leaf, p in P.items()})
    samplers.sample(key, stepper, counted, {leaf: jnp.ones(3) for leaf in P}, TS)
    jax.effects_barrier()
    assert len(asked) == len(TS) - 1


@pytest.mark.parametrize("leaf", ["heun", "churn"])
def test_a_product_refuses_a_leaf_that_asks_again(leaf, key):
    p = P["pos"]
    wrong = samplers.heun(p) if leaf == "heun" else samplers.churn(p, samplers.euler(p), 0.2)
    stepper = samplers.product({"pos": wrong, "feat": samplers.euler(P["feat"])})
    x = {"pos": jnp.ones(3), "feat": jnp.ones(3)}
    with pytest.raises(InputError, match=r"one joint belief.*one denoiser call, such as euler"):
        samplers.sample(key, stepper, joint(("pos", "feat")), x, TS)


def test_a_product_demands_what_its_leaves_do(key):
    stepper = samplers.product({"pos": samplers.dpmpp_2m(P["pos"]), "feat": samplers.euler(P["feat"])})
    x = {"pos": jnp.ones(3), "feat": jnp.ones(3)}
    with pytest.raises(InputError, match="sigma is 0 at the last time"):
        samplers.sample(key, stepper, joint(("pos", "feat")), x, jnp.linspace(0.9, 0.0, 5))
