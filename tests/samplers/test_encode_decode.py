"""Data to latents and back without loss: `decode` undoes `encode` to rounding, whatever the denoiser and however few
the steps, and both follow the flow at the order of the stepper that they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.samplers import Twins

pytestmark = pytest.mark.claim("encode and decode return to rounding, at the stepper's order")


LOW, HIGH = 0.02, 40.0
COV = np.array([[0.5, 0.2], [0.2, 0.3]])


def times(p, n):
    return p.time_of(jnp.geomspace(HIGH, LOW, n + 1))


@jax.jit
def round_trip(p, stepper, denoise, x, ts):
    up = jax.vmap(lambda x: samplers.encode(p, stepper, denoise, x, ts))(x)
    return up, jax.vmap(lambda twins: samplers.decode(p, stepper, denoise, twins, ts))(up)


@pytest.mark.parametrize(("process", "make"), [("edm", samplers.euler), ("flow", samplers.heun)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_way_back_is_exact(key, process, make, dtype):
    """Eight steps through a belief that is all but a jump: far from the flow, and back at the data."""
    with jax.enable_x64(dtype == "float64"):
        p = getattr(processes, process)()
        oracle = oracles.mixture(p, [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [1e-3, 1e-3])
        ts = times(p, 8)
        x = jax.vmap(lambda x0, key: p.perturb(key, x0, ts[-1]))(oracle.sample(key, 16), jax.random.split(key, 16))
        up, back = round_trip(p, make(p), oracle.denoise, x, ts)
        assert {up.x.dtype, back.x.dtype, back.twin.dtype} == {np.dtype(dtype)}
        assert jnp.std(up.x) > 0.3 * p.scales(ts[0])[1]  # noise
        bound = 1e-10 if dtype == "float64" else 2e-3
        np.testing.assert_allclose(back.x, x, atol=bound)
        np.testing.assert_allclose(back.twin, x, atol=bound)
        # The steps alone, up and down, do not come back.
        plain = jax.vmap(lambda x: samplers.invert(p, make(p), oracle.denoise, x, ts))(x)
        again = jax.vmap(lambda z: samplers.sample(key, make(p), oracle.denoise, z, ts))(plain)
        assert jnp.max(abs(again - x)) > 20 * bound


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("make", "order"), [(samplers.euler, 1), (samplers.heun, 2), (samplers.dpm_3s, 3)], ids=["euler", "heun", "dpm_3s"]
)
def test_both_ways_have_the_order_of_the_stepper(make, order):
    p = processes.vp()
    oracle = oracles.gaussian(p, [0.3, -0.8], COV)
    x = jnp.array([0.5, 0.2])

    @jax.jit
    def errors(ts):
        latent = oracle.flow(x, ts[-1], ts[0])
        up = samplers.encode(p, make(p), oracle.denoise, x, ts)
        down = samplers.decode(p, make(p), oracle.denoise, Twins(latent, latent), ts)
        gaps = [up.x - latent, up.twin - latent, down.x - x, down.twin - x]
        return jnp.array([jnp.linalg.norm(gap) for gap in gaps])

    found = [errors(times(p, n)) for n in (64, 128)]
    np.testing.assert_allclose(np.log2(found[0] / found[1]), order, atol=0.3)


def test_mistakes():
    p, x, denoise = processes.vp(), jnp.ones(2), lambda x, t: 0.5 * x
    ts = jnp.array([0.9, 0.5, 0.1])
    with pytest.raises(InputError, match=r"sigma is 0 at the last time; end the grid above: ts\[:-1\]"):
        samplers.encode(p, samplers.euler(p), denoise, x, jnp.array([0.9, 0.5, 0.0]))
    with pytest.raises(InputError, match="must fall"):
        samplers.decode(p, samplers.euler(p), denoise, Twins(x, x), ts[::-1])
    with pytest.raises(InputError, match="a stepper that draws noise"):
        samplers.encode(p, samplers.ancestral(p), denoise, x, ts)
    with pytest.raises(InputError, match="a multistep stepper"):
        samplers.encode(p, samplers.dpmpp_2m(p), denoise, x, ts)
    for mix in (0.0, 1.5):
        with pytest.raises(InputError, match=f"mix={mix}, expected 0 < mix <= 1"):
            samplers.encode(p, samplers.euler(p), denoise, x, ts, mix=mix)
