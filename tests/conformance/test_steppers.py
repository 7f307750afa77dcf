"""The laws that every stepper of the roster keeps: it walks from t = 1 to t = 0 of every process on every grid, arrives
near the data law, is a pytree, batches, repeats, and keeps its dtype. And every row of a network survives the walk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import GRIDS, PROCESSES, ROWS, STEPPERS, UNDEFINED, ends

from jaxdiff import denoisers, grids, oracles, samplers

pytestmark = pytest.mark.claim("every stepper from t = 1 to t = 0 on every process")


MEAN, STD = np.array([0.3, -0.8], np.float32), np.array([0.5, 1.0], np.float32)
STEPS, BATCH = 128, 512


@functools.cache
def setting(process):
    """The process, a denoiser for `draw`, and all grids on it, made once for all steppers."""
    p = PROCESSES[process]()
    oracle = oracles.gaussian(p, MEAN, STD**2)
    return p, lambda cond: oracle.denoise, {name: grid(p, STEPS) for name, grid in GRIDS.items()}


@pytest.mark.parametrize(
    ("name", "process"), [(name, process) for name, row in STEPPERS.items() for process in row.walks]
)
def test_a_stepper_walks_every_grid_and_arrives_at_the_data(name, process, key):
    row, (p, make_denoise, times) = STEPPERS[name], setting(process)
    stepper, walkers = row.make(p), ends(row, process, p)
    found = {
        grid: samplers.draw(key, BATCH, make_denoise, samplers.Sampler(p, stepper, ts, **walkers), (2,), chunk=BATCH)
        for grid, ts in times.items()
    }
    assert all(np.isfinite(x).all() for x in found.values())
    # Karras' grid is fine at the data end: a few parts in a hundred of bias, and the noise of the batch.
    x, noise = found["karras"], 5 / np.sqrt(BATCH)
    np.testing.assert_array_less(abs(x.mean(0) - MEAN) / STD, 0.05 + noise)
    np.testing.assert_array_less(abs(x.std(0) / STD - 1), 0.1 + noise / np.sqrt(2))


def network(params, x, c_noise, cond):
    """A smooth function of its input and of the noise level, as a network is."""
    return jnp.tanh(x @ params["w"] + c_noise[:, None])


@pytest.mark.parametrize("process", PROCESSES)
def test_every_row_of_a_network_survives_the_walk(process, key):
    """All rows side by side; one that is undefined where there is no signal starts a little below, as its users do."""
    p, params = PROCESSES[process](), {"w": jax.random.normal(key, (2, 2))}

    def walk(rows, ts):
        def denoise(x, t):
            return {row: denoisers.from_network(network, ROWS[row], p)(params)(x[row], t) for row in rows}

        x = {row: p.prior(key, (2,), ts[0]) for row in rows}
        stepper = samplers.product({row: samplers.euler(p) for row in rows})
        states = samplers.sample(key, stepper, denoise, x, ts, denoise_last=True, trajectory=True)
        for row, path in states.items():
            # All of the walk, and the belief at its end where the row has one.
            assert jnp.isfinite(path[: len(path) - ((row, process, 0.0) in UNDEFINED)]).all(), row

    late = [row for row in ROWS if (row, process, 1.0) in UNDEFINED]
    walk([row for row in ROWS if row not in late], grids.karras(p, 16))
    if late:
        walk(late, grids.karras(p, 16, sigma_max=80.0))


TS = np.array([0.9, 0.6, 0.5, 0.2], np.float32)


@jax.jit
def walk(key, stepper, oracle, x):
    """A batch, one key an example."""
    return jax.vmap(lambda k, x: samplers.sample(k, stepper, oracle.denoise, x, TS))(jax.random.split(key, len(x)), x)


def settings(name, dtype=jnp.float32):
    p = PROCESSES["vp"]()
    return STEPPERS[name].make(p), oracles.gaussian(p, jnp.asarray(MEAN, dtype), jnp.asarray(STD**2, dtype))


@pytest.mark.parametrize("name", STEPPERS)
def test_a_stepper_is_a_pytree_batches_and_repeats(name, key):
    stepper, oracle = settings(name)
    leaves, form = jax.tree.flatten(stepper)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree.unflatten(form, leaves)
    assert jax.tree.structure(again) == form

    x = jax.random.normal(key, (3, 2))
    together = walk(key, stepper, oracle, x)
    np.testing.assert_array_equal(walk(key, again, oracle, x), together)  # and the same bits
    keys = jax.random.split(key, 3)
    for k, one, expected in zip(keys, x, together, strict=True):
        np.testing.assert_allclose(samplers.sample(k, stepper, oracle.denoise, one, TS), expected, atol=1e-5)
    other = walk(jax.random.fold_in(key, 1), stepper, oracle, x)
    assert bool((other != together).any()) == STEPPERS[name].stochastic


@pytest.mark.parametrize("name", STEPPERS)
def test_a_stepper_keeps_the_dtype_of_its_state(name, key):
    """A process of float32 carries a float64 state, and the other way round; times of either do."""
    stepper, _ = settings(name)  # float32 leaves
    with jax.enable_x64(True):
        double, _ = settings(name)  # float64 leaves
        for dtype in (jnp.float32, jnp.float64):
            for made, ts in ((stepper, np.asarray(TS, np.float64)), (double, np.asarray(TS, np.float32))):
                out = jax.eval_shape(
                    lambda x, made=made, ts=ts: samplers.sample(key, made, lambda x, t: 0.5 * x, x, ts),
                    jax.ShapeDtypeStruct((2,), dtype),
                )
                assert out.dtype == dtype
