import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import UNet, count, functional


def make(channels=1, seed=0, **options):
    small = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "head": 8, "groups": 4, "features": 16}
    apply, params = functional(UNet(channels, **(small | options), rngs=nnx.Rngs(seed)))
    return jax.jit(apply), params


def batch(key, shape=(8, 8, 1), n=4, classes=3):
    x = jax.random.normal(key, (n, *shape))
    return x, jnp.linspace(-1.0, 1.0, n), jnp.arange(n, dtype=jnp.int32) % (classes + 1)


@pytest.mark.parametrize("shape", [(16, 2), (8, 4, 1), (4, 4, 8, 3)])
def test_one_example_with_a_batch_axis_is_its_row_of_the_batch(key, perturb, shape):
    apply, params = make(shape[-1], dims=len(shape) - 1, num_classes=3)
    params, (x, c, y) = perturb(params), batch(key, shape)
    together = jax.jit(apply)(params, x, c, y)
    assert together.shape == x.shape
    assert jnp.all(jnp.std(together.reshape(4, -1), axis=1) > 0.01)
    alone = jax.jit(jax.vmap(lambda x, c, y: apply(params, x[None], c[None], y[None])[0]))(x, c, y)
    np.testing.assert_allclose(alone, together, atol=2e-4, rtol=2e-4)


def test_new_network_says_zero_and_a_seed_repeats_it(key):
    apply, params = make(num_classes=3, out_channels=2)
    x, c, y = batch(key)
    np.testing.assert_array_equal(apply(params, x, c, y), jnp.zeros((4, 8, 8, 2)))
    jax.tree.map(np.testing.assert_array_equal, make(num_classes=3, out_channels=2)[1], params)
    _, from_key = make(seed=jax.random.key(0), num_classes=3, out_channels=2)
    jax.tree.map(np.testing.assert_array_equal, from_key, params)
    _, other = make(seed=1, num_classes=3, out_channels=2)
    assert not jnp.array_equal(other["stem"]["kernel"], params["stem"]["kernel"])


def test_parameter_count_by_hand():
    _, params = make(num_classes=3, attention=())

    def res(i, o):
        norms, convs, film = 2 * i + 2 * o, 9 * i * o + o + 9 * o * o + o, 16 * 2 * o + 2 * o
        return norms + convs + film + (i * o + o if i != o else 0)

    def join(i, kept, o):
        return i * o + o + kept * o

    conditioning = (64 * 16 + 16) + (16 * 16 + 16) + 4 * 16
    down = res(8, 8) + res(8, 16)
    middle = 2 * res(16, 16)
    up = join(16, 16, 16) + res(16, 16) + join(16, 8, 8) + res(8, 8)
    ends = (9 * 1 * 8 + 8) + 2 * 8 + (9 * 8 * 1 + 1)
    assert count(params) == conditioning + down + middle + up + ends
    attention = 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16)
    assert count(make(num_classes=3)[1]) == count(params) + 3 * attention  # down, middle, up at level 1


def test_gradient_reaches_every_parameter(key, perturb):
    apply, params = make(num_classes=3)
    params, (x, c, y) = perturb(params), batch(key)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(apply(p, x, c, y) ** 2)))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.all(jnp.isfinite(leaf)), path
        assert jnp.abs(leaf).max() > 1e-4, path
    assert jnp.all(jnp.abs(gradient["conditioning"]["table"]).max(axis=1) > 1e-4)


def test_null_class_noise_level_and_labels_matter(key, perturb):
    net = UNet(1, width=8, multipliers=(1,), blocks=1, groups=4, num_classes=3, rngs=nnx.Rngs(0))
    assert net.null_class == 3
    apply, params = functional(net)
    params, x = perturb(params), jax.random.normal(key, (1, 4, 4, 1)).repeat(4, 0)
    out = apply(params, x, jnp.zeros(4), jnp.arange(4, dtype=jnp.int32)).reshape(4, -1)
    gap = jnp.abs(out[:, None] - out[None]).max(-1)
    assert jnp.all(gap[~np.eye(4, dtype=bool)] > 1e-3)
    np.testing.assert_allclose(apply(params, x, jnp.zeros(4), None)[0].ravel(), out[3], atol=1e-5)
    levels = apply(params, x, jnp.array([-1.0, -0.9, 0.0, 1.0]), None).reshape(4, -1)
    assert jnp.abs(jnp.diff(levels, axis=0)).max(-1).min() > 1e-3


def test_dropout_hangs_on_the_key_alone(key, perturb):
    apply, params = make(dropout=0.5, multipliers=(1,), attention=())
    plain, _ = make(multipliers=(1,), attention=())
    params, (x, c, _) = perturb(params), batch(key)
    a, b = jax.random.split(key)
    f = jax.jit(lambda k: apply(params, x, c, None, key=k))
    np.testing.assert_array_equal(f(a), f(a))
    assert jnp.abs(f(a) - f(b)).max() > 1e-3
    np.testing.assert_array_equal(apply(params, x, c, None), plain(params, x, c, None))
    np.testing.assert_array_equal(plain(params, x, c, None, key=a), plain(params, x, c, None))


def test_periodic_network_commutes_with_shifts_of_a_coarse_cell(key, perturb):
    apply, params = make(periodic=True)
    padded, _ = make()
    params, (x, c, _) = perturb(params, 0.3), batch(key)

    def miss(apply, by):
        f = jax.jit(lambda x: apply(params, x, c, None))
        return jnp.abs(f(jnp.roll(x, (by, by), (1, 2))) - jnp.roll(f(x), (by, by), (1, 2))).max() / jnp.std(f(x))

    assert miss(apply, 2) < 1e-3
    assert miss(apply, 1) > 0.05  # means of two cells: odd shifts are not seen alike
    assert miss(padded, 2) > 0.05  # zeros at the edge tell positions


def test_remat_changes_memory_not_numbers(key, perturb):
    one = {"dropout": 0.5, "multipliers": (1,), "attention": ()}
    apply, params = make(**one)
    again, _ = make(**one, remat=True)
    params, (x, c, _) = perturb(params), batch(key)

    def gradient(apply):
        return jax.grad(lambda p: jnp.mean(apply(p, x, c, None, key=key) ** 2))

    assert "remat" in str(jax.make_jaxpr(gradient(again))(params))
    assert "remat" not in str(jax.make_jaxpr(gradient(apply))(params))
    a, b = jax.jit(gradient(apply))(params), jax.jit(gradient(again))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), a, b)


def test_mixed_precision_computes_in_bfloat16_and_answers_in_float32(key, perturb):
    apply, params = make(num_classes=3)
    half, same = make(num_classes=3, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(same)} == {jnp.dtype("float32")}
    params, (x, c, y) = perturb(params), batch(key)
    got, expected = half(params, x, c, y), apply(params, x, c, y)
    assert got.dtype == jnp.float32
    error = jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected)
    assert 1e-5 < error < 0.1
    assert "bf16[3,3,8,8]" in str(jax.make_jaxpr(half)(params, x, c, y))


def test_the_network_decides_its_dtype(key, perturb, x64):
    one = {"num_classes": 3, "multipliers": (1,), "attention": (0,)}
    apply, params = make(**one)
    x, c, y = batch(key)
    assert x.dtype == jnp.float64
    assert apply(params, x, c, y).dtype == jnp.float32
    double, params = make(**one, dtype="float64", param_dtype="float64")
    params = perturb(params)
    got = double(params, x.astype(jnp.float32), c, y)
    assert got.dtype == jnp.float64
    single = apply(jax.tree.map(jnp.float32, params), x, c, y).astype(jnp.float64)
    assert 1e-9 < jnp.abs(got - single).max() < 1e-3  # it computed in float64, not in float32


def test_two_calls_compile_once(key):
    build = lambda seed: functional(UNet(1, width=8, multipliers=(1,), num_classes=3, rngs=nnx.Rngs(seed)))  # noqa: E731
    (apply, params), (x, c, y) = build(0), batch(key)
    f = jax.jit(lambda apply, *args: apply(*args))
    f(apply, params, x, c, y)
    f(build(1)[0], params, x + 1, c, y)
    assert f._cache_size() == 1


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 6, 7, 1), r"spatial sizes \(6, 7\).*multiples of 2.*pad"),
        ((8, 8, 1), r"shape \(8, 8, 1\).*batch axis with x\[None\]"),
        ((2, 8, 8, 3), r"1 channels"),
    ],
)
def test_mistakes(shape, words):
    apply, params = make()
    with pytest.raises(InputError, match=words):
        apply(params, jnp.zeros(shape), jnp.zeros(shape[0]), None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 4}, "dims=4"),
        ({"multipliers": ()}, "0 multipliers"),
        ({"attention": (2,)}, r"levels \[2\].*0 \(finest\) to 1"),
        ({"groups": 3}, "8 channels in 3 groups"),
        ({"head": 3}, "heads of 3"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_construction_errors(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)
