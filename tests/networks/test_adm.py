import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import adm, count, functional
from jaxdiff.networks.streams import counted

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head": 8}


def make(**options):
    """(jitted apply, params) with every number drawn: a new network is zero."""
    net = nnx.eval_shape(lambda: adm(2, 8, **(TINY | options), rngs=counted(0)))
    draw = np.random.default_rng(0).standard_normal
    apply, params = jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw(leaf.shape), leaf.dtype), functional(net))
    return jax.jit(apply), params


@pytest.mark.claim("every published parameter count, EDM2's too, is exact")
@pytest.mark.parametrize(
    ("size", "options", "number"),
    [
        (64, {"num_classes": 1000}, 295_899_267),
        (64, {}, 295_131_267),
        (
            16,
            {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "augment": 9, "num_classes": 10},
            829_059,
        ),
    ],
)
def test_parameter_counts_are_those_of_the_published_program(size, options, number):
    net = nnx.eval_shape(lambda: adm(3, size, **options, rngs=counted(0)))
    assert count(functional(net)[1]) == number


def test_the_published_network_attends_in_heads_of_64_channels():
    net = nnx.eval_shape(lambda: adm(3, 64, rngs=counted(0)))
    assert net.enc["64x64_block0"].heads == 0
    assert [net.enc[f"{at}x{at}_block0"].heads for at in (32, 16, 8)] == [6, 9, 12]
    assert {net.dec[f"16x16_block{i}"].heads for i in range(4)} == {9}
    assert (net.dec["8x8_in0"].heads, net.dec["8x8_in1"].heads) == (12, 0)


def test_a_new_network_says_zero_and_its_weights_have_the_stated_spread(key):
    options = {"multipliers": (1,), "attention": (8,), "features": 64, "num_classes": 8, "augment": 2}
    apply, params = functional(adm(2, 8, **(TINY | options | {"width": 32}), rngs=nnx.Rngs(0)))
    x = jax.random.normal(key, (2, 8, 8, 2))
    np.testing.assert_array_equal(jax.jit(apply)(params, x, jnp.zeros(2), None), jnp.zeros_like(x))
    block = params["dec"]["8x8_block0"]
    for name, fan_in in (("conv0", 9 * 64), ("affine", 64), ("qkv", 32), ("skip", 64)):
        bound = 1 / np.sqrt(fan_in)
        assert 0.97 * bound < np.abs(block[name]["kernel"]).max() <= bound * (1 + 1e-6)
        assert 0.7 * bound < np.abs(block[name]["bias"]).max() <= bound * (1 + 1e-6)
    for layer in (block["conv1"], block["proj"], params["out_conv"], params["map_augment"]):
        assert all(not np.any(value) for value in layer.values())
    assert abs(np.std(params["map_label"]["kernel"]) - 1) < 5 / np.sqrt(2 * 8 * 64)  # five standard errors


def test_examples_stay_apart_and_gradients_reach_every_weight(key):
    apply, params = make(num_classes=3, augment=2, out_channels=4)
    x, c = jax.random.normal(key, (3, 4, 6, 2)), jnp.linspace(-1.0, 1.0, 3)
    cond = {"label": jnp.array([0, 3, 1], jnp.int32), "augment": jnp.ones((3, 2))}

    @jax.jit
    def run(x):
        def loss(params):
            out = apply(params, x, c, cond)
            return jnp.sum(out**2), out

        return jax.grad(loss, has_aux=True)(params)

    gradient, out = run(x)
    assert out.shape == (3, 4, 6, 4)
    moved = run(x.at[0].add(1.0))[1]
    np.testing.assert_array_equal(moved[1:], out[1:])
    assert jnp.abs(moved[0] - out[0]).max() > 1e-3
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.all(jnp.isfinite(leaf)), path
        assert jnp.abs(leaf).max() > 1e-6, path


def test_mixed_precision_and_remat(key):
    one = {"multipliers": (1,), "attention": (8,), "num_classes": 3}
    apply, params = make(**one)
    half, _ = make(**one, dtype="bfloat16", remat=True)
    x, c, labels = jax.random.normal(key, (3, 8, 8, 2)), jnp.linspace(-1.0, 1.0, 3), jnp.arange(3, dtype=jnp.int32)
    got, expected = half(params, x, c, labels), apply(params, x, c, labels)
    assert got.dtype == jnp.float32
    assert 1e-5 < jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected) < 0.1
    assert "remat" in str(jax.make_jaxpr(jax.grad(lambda p: half(p, x, c, labels).sum()))(params))


def test_mistakes():
    with pytest.raises(InputError, match=r"16 channels with heads of 64"):
        make(head=64)
    apply, params = make()
    with pytest.raises(InputError, match="no classes"):
        apply(params, jnp.zeros((1, 8, 8, 2)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
