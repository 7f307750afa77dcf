"""Classifier-free guidance is the affine mix of two beliefs, and calls no network it does not need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import guidance, oracles, processes

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


X, T = jnp.array([0.3, -0.8]), 0.4


class Counted:
    """A denoiser that knows how often a compiled program called it."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, x, t):
        jax.debug.callback(self._count)
        return self.denoise(x, t)

    def _count(self):
        self.calls += 1


@pytest.fixture
def pair():
    process = processes.vp()
    return (
        Counted(oracles.gaussian(process, jnp.array([1.0, 2.0]), 0.25).denoise),
        Counted(oracles.gaussian(process, jnp.array([-1.0, 0.0]), 1.0).denoise),
    )


@pytest.mark.parametrize(("weight", "calls"), [(1, (1, 0)), (1.0, (1, 0)), (0, (0, 1)), (2.0, (1, 1)), (-0.5, (1, 1))])
def test_a_known_weight_of_1_or_0_calls_one_denoiser(pair, weight, calls):
    denoise, null = pair
    guided = guidance.classifier_free(denoise, null, weight)
    got = jax.jit(lambda x: guided(x, T))(X)
    jax.effects_barrier()
    assert (denoise.calls, null.calls) == calls
    expected = weight * np.asarray(denoise.denoise(X, T)) + (1 - weight) * np.asarray(null.denoise(X, T))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_traced_weight_gives_the_same_mix_and_a_gradient(pair):
    denoise, null = pair

    def guided(weight):
        return guidance.classifier_free(denoise.denoise, null.denoise, weight)(X, T)

    for weight in (0.0, 1.0, 1.7):
        np.testing.assert_allclose(jax.jit(guided)(weight), guided(weight), rtol=1e-5, atol=1e-6)
    slope = jax.jacfwd(guided)(1.7)
    np.testing.assert_allclose(slope, denoise.denoise(X, T) - null.denoise(X, T), rtol=1e-6)


def test_guidance_tempers_the_classifier_of_gaussian_classes(x64):
    """With beliefs D_c of N(m_c, S) and D of N(m, S), weight w guides as N(m + w (m_c - m), S) would: exactly."""
    process, cov = processes.cosine(), jnp.array([[0.5, 0.2], [0.2, 0.3]])
    own, null = jnp.array([1.0, 2.0]), jnp.array([-1.0, 0.5])
    for weight in (0.3, 1.0, 3.0):
        guided = guidance.classifier_free(
            oracles.gaussian(process, own, cov).denoise, oracles.gaussian(process, null, cov).denoise, weight
        )
        exact = oracles.gaussian(process, null + weight * (own - null), cov).denoise
        for t in (0.1, 0.5, 0.9):
            np.testing.assert_allclose(guided(X.astype(float), t), exact(X.astype(float), t), rtol=1e-10)


def test_trees_of_beliefs_mix_leaf_by_leaf_in_their_own_dtype(x64):
    def belief(value):
        return lambda x, t: {"a": jnp.float32(value) + x["a"], "b": jnp.float64(2 * value) + x["b"]}

    x = {"a": jnp.float32(0.0), "b": jnp.float64(1.0)}
    mixed = guidance.classifier_free(belief(3.0), belief(1.0), 1.5)(x, T)
    assert jax.tree.map(lambda leaf: (float(leaf), str(leaf.dtype)), mixed) == {
        "a": (4.0, "float32"),
        "b": (9.0, "float64"),
    }


def test_interval_calls_only_the_chosen_denoiser_and_owns_its_upper_bound():
    process = processes.flow()  # sigma / alpha = t / (1 - t)
    inside, outside = Counted(lambda x, t: x + 1), Counted(lambda x, t: x - 1)
    guided = jax.jit(guidance.interval(process, inside, outside, low=0.25, high=1.0))
    # t = .2 and .5 are the bounds .25 and 1: the lower is out, the upper in; alpha = 0 at t = 1 is no special case.
    for t, is_in in ((0.0, 0), (0.1, 0), (0.2, 0), (0.3, 1), (0.5, 1), (0.51, 0), (1.0, 0)):
        inside.calls = outside.calls = 0
        got = guided(X, t)
        jax.effects_barrier()
        assert (inside.calls, outside.calls) == (is_in, 1 - is_in), t
        np.testing.assert_array_equal(got, X + (2 * is_in - 1))


def test_interval_without_bounds_is_always_inside_but_at_sigma_0():
    for process in (processes.flow(), processes.edm(), processes.ve()):
        guided = guidance.interval(process, lambda x, t: x + 1, lambda x, t: x - 1)
        np.testing.assert_array_equal(guided(X, 1e-6), X + 1)
        np.testing.assert_array_equal(guided(X, 0.999), X + 1)


def test_guided_denoisers_made_anew_compile_nothing():
    traces = 0

    @jax.jit
    def call(guided, x, t):
        nonlocal traces
        traces += 1
        return guided(x, t)

    process = processes.vp()
    for weight in (1.5, 2.5):
        one, two = (oracles.gaussian(process, jnp.full(2, m), 0.25).denoise for m in (1.0, -1.0))
        free = guidance.classifier_free(one, two, weight)
        call(guidance.interval(process, free, one, low=0.1, high=weight), X, T)
    assert traces == 1
