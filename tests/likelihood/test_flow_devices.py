"""The same likelihoods on one device and on four: a batch in lock step on a mesh, whose examples share every step, and
each example alone under shard_map and pmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import words
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxdiff import likelihood, processes

pytestmark = pytest.mark.claim("one device, sharded, shard_map and pmap give the same likelihoods")


P = processes.vp()
OPTIONS = {"divergence": "hutchinson", "probes": 2, "t0": 0.01, "rtol": 1e-9, "atol": 1e-9}


def believe(x, t):
    alpha, sigma = P.scales(t)
    return alpha * jnp.tanh(x + 0.5 * x[::-1]) / (alpha**2 + sigma**2)


def one(key, x):
    return likelihood.flow_log_prob(key, P, believe, x, **words(**OPTIONS))


def together(key, x):
    return likelihood.flow_log_prob(key, P, believe, x, **words(lockstep=True, **OPTIONS))


@pytest.fixture
def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.usefixtures("x64")
def test_one_device_and_four_agree(key, mesh):
    x = jax.random.normal(key, (8, 3), jnp.float64)
    cut = NamedSharding(mesh, PartitionSpec("data"))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(8, dtype=jnp.uint32))
    alone = jax.jit(jax.vmap(one))(keys, x)
    assert len(set(alone.calls.tolist())) > 1

    compiled = jax.jit(together)
    single, sharded = compiled(key, x), compiled(key, jax.device_put(x, cut))
    assert sharded.log_prob.sharding.is_equivalent_to(cut, 1)  # each device keeps its own
    assert sharded.calls.shape == () == single.calls.shape
    assert sharded.result._value.shape == (8,)

    spec = PartitionSpec("data")
    local = jax.jit(jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(keys, x)
    mapped = jax.pmap(jax.vmap(one))(keys.reshape(4, 2), x.reshape(4, 2, 3))
    np.testing.assert_array_equal(local.calls, alone.calls)
    for name in ("log_prob", "stderr", "latent"):
        wanted = getattr(alone, name)
        for found in (single, sharded, local, mapped):
            np.testing.assert_allclose(getattr(found, name).reshape(wanted.shape), wanted, atol=1e-6)


def test_one_bad_example_leaves_the_others(key, mesh):
    """Without a compiled check, which would stop one device and leave the others waiting."""
    x = jax.random.normal(key, (4, 3)).at[2, 0].set(jnp.nan)
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    options = OPTIONS | {"rtol": 1e-3, "atol": 1e-3}
    find = jax.jit(lambda x: likelihood.flow_log_prob(key, P, believe, x, **words(lockstep=True, **options)))
    np.testing.assert_array_equal(np.isfinite(find(x).log_prob), [True, True, False, True])
