"""Thresholding: what lies in the data's range is untouched, what does not is brought into it as the paper says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, guidance, oracles, processes, samplers
from jaxdiff.errors import InputError


def believing(values):
    return lambda x, t: jnp.asarray(values, x.dtype)


def test_dynamic_thresholding_is_saharias(key):
    """Clip to the quantile of |D| and divide by it, in NumPy."""
    rng = np.random.default_rng(0)
    for scale in (0.2, 1.0, 3.0):
        d = scale * rng.normal(size=(5, 4)).astype(np.float32)
        for quantile in (0.5, 0.9, 0.995, 1.0):
            s = max(np.quantile(abs(d), quantile), 1.0)
            found = guidance.threshold(believing(d), quantile)(jnp.zeros((5, 4)), 0.5)
            np.testing.assert_allclose(found, np.clip(d, -s, s) / s, rtol=1e-5, atol=1e-6)
            assert np.max(abs(found)) <= 1


def test_a_belief_in_range_is_the_same_bits():
    d = np.linspace(-1, 1, 7, dtype=np.float32)
    for held in (guidance.threshold(believing(d)), guidance.clip(believing(d))):
        np.testing.assert_array_equal(held(jnp.zeros(7), 0.5), d)


def test_static_thresholding_clips():
    d = np.array([-3.0, -0.5, 2.0], np.float32)
    np.testing.assert_array_equal(guidance.clip(believing(d))(jnp.zeros(3), 0.5), [-1, -0.5, 1])
    np.testing.assert_array_equal(guidance.clip(believing(d), 0.0, 1.5)(jnp.zeros(3), 0.5), [0, 0, 1.5])


def test_another_limit_is_another_unit():
    d = np.array([-3.0, -0.5, 2.0], np.float32)
    one, two = (guidance.threshold(believing(c * d), 0.9, c)(jnp.zeros(3), 0.5) for c in (1.0, 2.0))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


@pytest.mark.parametrize("make", [samplers.euler, samplers.heun, samplers.dpmpp_2m, samplers.ancestral])
def test_it_holds_the_samples_of_any_sampler_in_range(make, key):
    process = processes.edm()
    oracle = oracles.gaussian(process, np.zeros(8), np.full(8, 4.0))  # data that leave [-1, 1] more often than not
    ts, last = grids.karras(process, 12), samplers.euler(process)

    @jax.jit
    def run(denoise):
        return jax.vmap(lambda k: samplers.sample(k, make(process), denoise, process.prior(k, (8,)), ts, last=last))(
            jax.random.split(key, 64)
        )

    assert np.mean(abs(run(guidance.clip(oracle.denoise, -9.0, 9.0))) > 1) > 0.3
    assert np.max(abs(run(guidance.threshold(oracle.denoise)))) <= 1 + 1e-5


def test_a_percentage_is_refused():
    for quantile in (99.5, 0.0, -1.0):
        with pytest.raises(InputError, match=r"expected a share in \(0, 1\], such as \.995"):
            guidance.threshold(believing(0.0), quantile)
