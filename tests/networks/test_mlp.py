import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import MLP, count, functional


def make(shape=(2,), seed=0, **options):
    apply, params = functional(MLP(shape, 16, 2, **options, rngs=nnx.Rngs(seed)))
    return jax.jit(apply), params


@pytest.mark.parametrize("shape", [(), (3,), (4, 2), (5, 3, 3)])
def test_one_example_with_a_batch_axis_is_its_row_of_the_batch(key, perturb, shape):
    apply, params = make(shape, num_classes=3)
    params = perturb(params)
    x, c, y = jax.random.normal(key, (4, *shape)), jnp.linspace(-1.0, 1.0, 4), jnp.arange(4, dtype=jnp.int32)
    together = apply(params, x, c, y)
    assert together.shape == x.shape
    assert jnp.abs(together).min() > 0
    alone = jax.vmap(lambda x, c, y: apply(params, x[None], c[None], y[None])[0])(x, c, y)
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_new_network_says_zero_and_a_seed_repeats_it(key):
    apply, params = make()
    np.testing.assert_array_equal(apply(params, jax.random.normal(key, (3, 2)), jnp.zeros(3), None), jnp.zeros((3, 2)))
    jax.tree.map(np.testing.assert_array_equal, make()[1], params)
    assert not jnp.array_equal(make(seed=1)[1]["stem"]["kernel"], params["stem"]["kernel"])


def test_parameter_count_by_hand():
    conditioning = (64 * 16 + 16) + (16 * 16 + 16) + 4 * 16
    block = 2 * 16 + (16 * 32 + 32) + (16 * 16 + 16)
    assert count(make(num_classes=3)[1]) == conditioning + (2 * 16 + 16) + 2 * block + 2 * 16 + (16 * 2 + 2)


def test_gradient_reaches_every_parameter(key, perturb):
    apply, params = make(num_classes=3)
    params, x, y = perturb(params), jax.random.normal(key, (4, 2)), jnp.arange(4, dtype=jnp.int32)
    gradient = jax.grad(lambda p: jnp.sum(apply(p, x, jnp.linspace(-1.0, 1.0, 4), y) ** 2))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.all(jnp.isfinite(leaf)), path
        assert jnp.abs(leaf).max() > 1e-4, path


def test_dropout_and_classes(key, perturb):
    apply, params = make(num_classes=3, dropout=0.5)
    params, x, c = perturb(params), jax.random.normal(key, (4, 2)), jnp.zeros(4)
    a, b = jax.random.split(key)
    np.testing.assert_array_equal(apply(params, x, c, None, key=a), apply(params, x, c, None, key=a))
    assert not jnp.array_equal(apply(params, x, c, None, key=a), apply(params, x, c, None, key=b))
    null = jnp.full(4, 3, jnp.int32)
    np.testing.assert_array_equal(apply(params, x, c, None), apply(params, x, c, null))
    assert jnp.abs(apply(params, x, c, null) - apply(params, x, c, null - 1)).min() > 0
    assert MLP((2,), num_classes=3, rngs=nnx.Rngs(0)).null_class == 3


def test_the_network_decides_its_dtype(x64):
    apply, params = make()
    assert apply(params, jnp.ones((3, 2)), jnp.ones(3), None).dtype == jnp.float32
    half, params = make(dtype="bfloat16")
    assert half(params, jnp.ones((3, 2)), jnp.ones(3), None).dtype == jnp.float32
    double, params = make(dtype="float64", param_dtype="float64")
    assert double(params, jnp.ones((3, 2), jnp.float32), jnp.ones(3), None).dtype == jnp.float64


def test_mistakes():
    apply, params = make()
    with pytest.raises(InputError, match=r"shape \(2,\).*x\[None\]"):
        apply(params, jnp.zeros(2), jnp.zeros(2), None)
    with pytest.raises(InputError, match="no classes"):
        apply(params, jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(3, jnp.int32))
    with pytest.raises(InputError, match="depth=0"):
        MLP((2,), 8, 0, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="dropout"):
        make(dropout=-0.1)
