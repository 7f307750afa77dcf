"""A module becomes a pure function that retraces nothing, and plain parameters that other tools take."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from jaxdiff.networks import MLP, UNet, count, functional


def small(seed=0, **options):
    return MLP((3,), 8, 2, num_classes=2, dropout=0.5, rngs=nnx.Rngs(seed), **options)


class Foreign(nnx.Module):
    """A module of the ordinary kind: its own random stream, batch statistics, no `key` in its call."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(3, 16, rngs=rngs)
        self.bn = nnx.BatchNorm(16, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)])

    def __call__(self, x, c_noise, cond):
        h = self.bn(self.linear(x)) + c_noise[:, None]
        return jnp.concatenate([drop(h) for drop in self.drops], axis=-1)


def test_apply_is_the_module(key, perturb):
    net = small()
    apply, params = functional(net)
    x, c = jax.random.normal(key, (4, 3)), jnp.linspace(-1.0, 1.0, 4)
    params = perturb(params)
    net.stem.bias.set_value(params["stem"]["bias"])
    _, again = functional(net)
    assert jnp.array_equal(again["stem"]["bias"], params["stem"]["bias"])
    got = apply(again, x, c, None)
    assert jnp.array_equal(got, net(x, c))
    assert not jnp.array_equal(apply(params, x, c, None), got)


def test_params_are_nested_dicts_of_arrays_with_string_keys():
    def check(tree):
        for name, child in tree.items():
            assert isinstance(name, str)
            check(child) if isinstance(child, dict) else isinstance(child, jax.Array) or pytest.fail(str(type(child)))

    net = small()
    _, params = functional(net)
    check(params)
    assert type(params) is dict
    assert count(params) == sum(np.size(leaf[...]) for _, leaf in nnx.to_flat_state(nnx.state(net, nnx.Param)))


def test_a_second_functional_of_an_equal_module_compiles_nothing(key):
    traces = []

    @jax.jit
    def caller(apply, params, x):
        traces.append(x.shape)
        return apply(params, x, jnp.zeros(x.shape[0]), None)

    x = jax.random.normal(key, (4, 3))
    for seed in range(3):  # other weights, the same graph
        caller(*functional(small(seed)), x)
    assert len(traces) == 1
    caller(*functional(small(features=4)), x)
    assert len(traces) == 2


def test_functional_inside_a_jitted_caller_shares_the_inner_cache(key):
    traces = []

    @jax.jit
    def inner(apply, params, x):
        traces.append(0)
        return apply(params, x, jnp.zeros(x.shape[0]), None)

    net = small()

    @jax.jit
    def outer(params, x):
        return inner(functional(net)[0], params, inner(functional(small(1))[0], params, x))

    outer(functional(net)[1], jax.random.normal(key, (4, 3)))
    assert len(traces) == 1


def test_foreign_module_takes_its_dropout_from_the_key(key):
    apply, params = functional(Foreign(rngs=nnx.Rngs(0)))
    x, c = jax.random.normal(key, (5, 3)), jnp.zeros(5)
    assert jnp.array_equal(apply(params, x, c, None), apply(params, x, c, None))
    a, b = jax.random.split(key)
    once, again, other = (apply(params, x, c, None, key=k) for k in (a, a, b))
    assert jnp.array_equal(once, again)
    assert not jnp.array_equal(once, other)
    left, right = jnp.split(once == 0, 2, axis=-1)
    assert not jnp.array_equal(left, right)  # each stream has its own mask
    assert not jnp.any(apply(params, x, c, None) == 0)


def test_foreign_batch_statistics_are_frozen_so_examples_stay_apart(key):
    apply, params = functional(Foreign(rngs=nnx.Rngs(0)))
    x, c = jax.random.normal(key, (5, 3)), jnp.zeros(5)
    alone = jax.vmap(lambda x, c: apply(params, x[None], c[None], None)[0])(x, c)
    np.testing.assert_allclose(alone, apply(params, x, c, None), atol=1e-6)


def test_vmap_of_grad_over_examples_and_keys(key, perturb):
    apply, params = functional(small())
    params = perturb(params)
    x, y = jax.random.normal(key, (6, 3)), jnp.arange(6, dtype=jnp.int32) % 3

    def loss(params, x, y, key):
        return jnp.sum(apply(params, x[None], jnp.zeros(1), y[None], key=key) ** 2)

    keys = jax.random.split(key, 6)
    together = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0, 0)))(params, x, y, keys)
    alone = jax.jit(jax.grad(loss))
    for i in (0, 5):
        one = alone(params, x[i], y[i], keys[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-4, rtol=1e-4), together, one)


def test_optax_trains_and_orbax_restores(key, tmp_path):
    apply, params = functional(small())
    x, c = jax.random.normal(key, (32, 3)), jnp.linspace(-1.0, 1.0, 32)
    optimiser = optax.adam(1e-2)

    def loss(params):
        return jnp.mean((apply(params, x, c, None) - x) ** 2)

    @jax.jit
    @jax.numpy_dtype_promotion("standard")  # Adam's decay**count mixes float and int32
    def step(params, state):
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    before, state = loss(params), optimiser.init(params)
    for _ in range(50):
        params, state = step(params, state)
    assert loss(params) < 0.5 * before
    with ocp.StandardCheckpointer() as store:
        store.save(tmp_path / "net", params)
        store.wait_until_finished()
        _, shapes = functional(nnx.eval_shape(lambda: small()))
        restored = store.restore(tmp_path / "net", shapes)
    jax.tree.map(np.testing.assert_array_equal, restored, params)


def test_abstract_module_counts_without_allocating():
    net = nnx.eval_shape(lambda: UNet(3, width=1024, rngs=nnx.Rngs(0)))
    assert count(functional(net)[1]) > 1e9
