"""One device, four by jit, four by pmap: the same losses, gradients and parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_run import batches, objective, parameters, stratified

from jaxdiff import training
from jaxdiff.errors import InputError

pytestmark = pytest.mark.claim("one device, sharded and pmap train alike")


def close(one, two, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=atol * max(1.0, float(np.max(np.abs(a)))), rtol=0)


def spread(function, mesh):
    return lambda state, batch: jax.jit(function)(training.replicate(state, mesh), training.split(batch, mesh))


@pytest.mark.parametrize(
    ("loss", "k"), [(objective, 1), (stratified, 1), (stratified, 2)], ids=["per_example", "stratified", "accumulated"]
)
def test_the_same_gradient(key, loss, k):
    assert jax.device_count() == 4
    state = training.init(key, parameters(key), optax.sgd(0.1))
    single = jax.jit(training.make_gradients(loss))(state, batches(0))
    sharded = spread(training.make_gradients(loss, accumulate=k), training.data_mesh())(state, batches(0))
    mapped = training.pmapped(training.make_gradients(loss, accumulate=k, axis_name="data"))(state, batches(0))
    close(single, sharded, 1e-5)
    close(single, mapped, 1e-5)


def test_the_same_step(key):
    optimizer, average = optax.sgd(1e-2), training.ema.half_life(100)
    state = training.init(key, parameters(key), optimizer, ema=average)
    step = training.make_train_step(objective, optimizer, ema=average)
    inner = training.make_train_step(objective, optimizer, ema=average, axis_name="data")
    one = training.data_parallel(step, training.data_mesh(jax.devices()[:1]), donate=False)
    four = training.data_parallel(step, donate=False)
    states = [run(state, batches(0))[0] for run in (one, four, training.pmapped(inner))]
    for other in states[1:]:
        close(states[0].params, other.params, 1e-6)
        assert int(other.position) == 16
        assert int(other.step) == 1
    states = [run(s, batches(16))[0] for run, s in zip((one, four, training.pmapped(inner)), states, strict=True)]
    for other in states[1:]:  # the second step: its key, and the average's weight, agree too
        close(states[0].params, other.params, 1e-5)
        close(states[0].ema, other.ema, 1e-5)


def test_work_is_spread(key):
    mesh = training.data_mesh()
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)
    x = training.split(batches(0), mesh)["x"]
    assert {shard.data.shape for shard in x.addressable_shards} == {(4, 64)}
    state = training.replicate(training.init(key, parameters(key), optax.sgd(0.1)), mesh)
    assert state.params["encode"].sharding.is_fully_replicated
    assert len(state.params["encode"].sharding.device_set) == 4


def test_batch_must_divide(key):
    state = training.init(key, jnp.zeros(()), optax.sgd(0.1))
    odd = {"index": np.arange(6)}
    step = training.make_train_step(lambda p, k, b: p * jnp.ones(6), optax.sgd(0.1))
    for run in (training.data_parallel(step), training.pmapped(step)):
        with pytest.raises(InputError, match="6 examples does not split over 4"):
            run(state, odd)
