import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import count, ddpmpp, functional, ncsnpp
from jaxdiff.networks.edm.layers import Positional, RandomFourier
from jaxdiff.networks.resampling import Down, Up, taps_of
from jaxdiff.networks.streams import counted

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
SHALLOW = {"multipliers": (1,), "attention": ()}


def make(factory=ddpmpp, channels=2, **options):
    """(jitted apply, params) with every number drawn: a new network hardly uses its blocks."""
    net = nnx.eval_shape(lambda: factory(channels, 8, **(TINY | options), rngs=counted(0)))
    draw = np.random.default_rng(0).standard_normal
    apply, params = jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw(leaf.shape), leaf.dtype), functional(net))
    return jax.jit(apply), params


def batch(key, shape=(8, 8, 2), n=3):
    return jax.random.normal(key, (n, *shape)), jnp.linspace(-1.0, 1.0, n)


SMALL = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "augment": 9, "num_classes": 10}
WIDE = {"multipliers": (1, 2, 2, 2), "augment": 9}


@pytest.mark.claim("every published parameter count, EDM2's too, is exact")
@pytest.mark.parametrize(
    ("factory", "size", "options", "number"),
    [
        (ddpmpp, 32, {"augment": 9}, 55_733_891),
        (ddpmpp, 32, {"augment": 9, "num_classes": 10}, 55_735_299),
        (ddpmpp, 32, {}, 55_732_739),
        (ncsnpp, 32, {"augment": 9}, 56_397_827),
        (ncsnpp, 32, {"augment": 9, "num_classes": 10}, 56_400_643),
        (ncsnpp, 32, {}, 56_395_523),
        (ddpmpp, 64, WIDE, 61_805_571),
        (ncsnpp, 64, WIDE, 62_761_091),
        (ddpmpp, 16, SMALL, 189_667),
        (ncsnpp, 16, SMALL, 191_459),
        (ddpmpp, 16, SMALL | {"input_skip": True, "output_skip": True}, 190_662),
        (ddpmpp, 32, {"width": 32, "blocks": 2}, 2_207_235),
    ],
)
def test_parameter_counts_are_those_of_the_published_program(factory, size, options, number):
    net = nnx.eval_shape(lambda: factory(3, size, **options, rngs=counted(0)))
    assert count(functional(net)[1]) == number


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 5, 4, 3, 7)])
def test_resampling_is_its_matrix(key, taps):
    f = taps_of(taps)
    assert sum(f) == pytest.approx(1)
    p = len(f) // 2 - 1

    def matrix(n):  # y[j] = sum_k f[k] x[2j + k - p]
        return np.array(
            [[f[i - 2 * j + p] if 0 <= i - 2 * j + p < len(f) else 0.0 for i in range(n)] for j in range(n // 2)]
        )

    x = np.asarray(jax.random.normal(key, (2, 6, 8, 3)), np.float64)
    apply = lambda a, b, x: np.einsum("ah,bw,nhwc->nabc", a, b, x)  # noqa: E731
    np.testing.assert_allclose(Down(f)(jnp.float32(x)), apply(matrix(6), matrix(8), x), atol=1e-6)
    np.testing.assert_allclose(Up(f)(jnp.float32(x)), apply(2 * matrix(12).T, 2 * matrix(16).T, x), atol=1e-6)
    inner = jnp.float32(np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)]))
    np.testing.assert_allclose(Down(f, pad=False)(inner), Down(f)(jnp.float32(x)), atol=1e-6)


def test_embeddings_by_numpy(x64):
    c = np.array([-1.5, 0.0, 0.3, 700.0])
    for endpoint, last in ((True, 1e-4), (False, 1e-4 ** (7 / 8))):
        f = np.geomspace(1.0, last, 8)
        expected = np.concatenate([np.cos(c[:, None] * f), np.sin(c[:, None] * f)], 1)
        np.testing.assert_allclose(Positional(16, endpoint=endpoint)(jnp.asarray(c)), expected, atol=1e-10)
    net = RandomFourier(1000, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    f = np.asarray(net.freqs[...])
    assert abs(f.std() / 16 - 1) < 5 / np.sqrt(2 * 500)  # five standard errors of a standard deviation
    angles = 2 * np.pi * c[:3, None] * f
    np.testing.assert_allclose(net(jnp.asarray(c[:3])), np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-10)


def test_initial_weights_have_the_stated_spread():
    net = ddpmpp(2, 8, width=32, multipliers=(2,), blocks=1, attention=(8,), features=64, rngs=nnx.Rngs(0))
    params = functional(net)[1]
    block = params["enc"]["8x8_block0"]

    def bound(kernel, gain):  # U(-b, b), b = gain sqrt(6 / (fan_in + fan_out))
        *window, inputs, outputs = kernel.shape
        b = gain * np.sqrt(6 / (int(np.prod(window)) * (inputs + outputs)))
        assert 0.97 * b < np.abs(kernel).max() <= b * (1 + 1e-6)

    bound(block["conv0"]["kernel"], 1.0)
    bound(block["affine"]["kernel"], 1.0)
    bound(params["map_layer0"]["kernel"], 1.0)
    bound(block["qkv"]["kernel"], np.sqrt(0.2))
    bound(block["conv1"]["kernel"], 1e-5)
    bound(block["proj"]["kernel"], 1e-5)
    bound(params["dec"]["8x8_aux_conv"]["kernel"], 1e-5)
    assert all(not np.any(layer["bias"]) for layer in block.values())


@pytest.mark.parametrize("options", [{}, {"input_skip": True, "output_skip": True}])
def test_examples_stay_apart_on_any_size_and_gradients_reach_every_weight(key, options):
    apply, params = make(ncsnpp, num_classes=3, augment=2, out_channels=1, **options)
    (x, c), cond = batch(key, (4, 6, 2)), {"label": jnp.array([0, 3, 1], jnp.int32), "augment": jnp.ones((3, 2))}

    @jax.jit
    def run(x):
        def loss(params):
            out = apply(params, x, c, cond)
            return jnp.sum(out**2), out

        return jax.grad(loss, has_aux=True)(params)

    gradient, out = run(x)
    assert out.shape == (3, 4, 6, 1)
    moved = run(x.at[0].add(1.0))[1]
    np.testing.assert_array_equal(moved[1:], out[1:])
    assert jnp.abs(moved[0] - out[0]).max() > 1e-3
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.all(jnp.isfinite(leaf)), path
        assert jnp.abs(leaf).max() > 1e-6, path


def test_labels_rows_null_class_and_augmentation(key):
    apply, params = make(**SHALLOW, num_classes=3, augment=2)
    x = jnp.broadcast_to(jax.random.normal(key, (1, 8, 8, 2)), (4, 8, 8, 2))
    c = jnp.zeros(4)
    out = apply(params, x, c, jnp.arange(4, dtype=jnp.int32))
    assert jnp.abs(out[:, None] - out[None]).max((2, 3, 4))[~np.eye(4, dtype=bool)].min() > 1e-4
    np.testing.assert_allclose(apply(params, x, c, jnp.eye(4, 3)), out, atol=1e-6)
    np.testing.assert_allclose(apply(params, x, c, None)[0], out[3], atol=1e-6)
    np.testing.assert_allclose(apply(params, x, c, {"augment": jnp.zeros((4, 2))})[0], out[3], atol=1e-6)
    assert jnp.abs(apply(params, x, c, {"augment": jnp.ones((4, 2))})[0] - out[3]).max() > 1e-4
    strange = apply(params, x, c, jnp.array([0, 4, -1, 3], jnp.int32))
    assert jnp.array_equal(jnp.isnan(strange).any((1, 2, 3)), jnp.array([False, True, True, False]))


def test_dropout_and_label_dropout_hang_on_the_key(key):
    shallow = SHALLOW | {"num_classes": 3}
    apply, params = make(**shallow, dropout=0.5)
    labels, _ = make(**shallow, dropout=0.0, label_dropout=0.5)
    (x, c), y = batch(key, n=32), jnp.ones(32, jnp.int32)
    a, b = jax.random.split(key)
    once = apply(params, x, c, y, key=a)
    np.testing.assert_array_equal(apply(params, x, c, y, key=a), once)
    assert jnp.abs(apply(params, x, c, y, key=b) - once).max() > 1e-3
    expected = apply(params, x, c, y)
    np.testing.assert_array_equal(labels(params, x, c, y), expected)
    got = labels(params, x, c, y, key=a)
    dropped = jnp.abs(got - expected).max((1, 2, 3)) > 1e-4
    assert 1 < dropped.sum() < 31  # 16, with a standard error of 2.8
    np.testing.assert_allclose(got[dropped], apply(params, x, c, None)[dropped], atol=1e-5)
    np.testing.assert_allclose(got[~dropped], expected[~dropped], atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_keeps_parameters_embedding_and_output_in_float32(key, dtype):
    one = {"multipliers": (1,), "attention": (8,), "num_classes": 3, "features": 20}
    apply, params = make(ncsnpp, **one)
    half, same = make(ncsnpp, **one, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(same)} == {jnp.dtype("float32")}
    x, c = batch(key)
    got, expected = half(params, x, c, None), apply(params, x, c, None)
    assert got.dtype == jnp.float32
    assert 1e-5 < jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected) < 0.1
    text, short = str(jax.make_jaxpr(half)(params, x, c, None)), {"bfloat16": "bf16", "float16": "f16"}[dtype]
    assert f" {short}[3,3,8,8]" in text or f":{short}[3,3,8,8]" in text  # a convolution's kernel
    assert f"{short}[20,20]" not in text  # the second layer of the embedding


def test_float64_under_x64(key, x64):
    one = {"multipliers": (1,), "attention": (8,)}
    apply, single = make(**one)
    double, params = make(**one, dtype="float64", param_dtype="float64")
    x, c = batch(key)
    assert x.dtype == jnp.float64
    got, rough = double(params, x, c, None), apply(single, x, c, None)
    assert (got.dtype, rough.dtype) == (jnp.float64, jnp.float32)
    assert 1e-9 < jnp.abs(got - rough.astype(jnp.float64)).max() < 1e-3  # it computed in float64, not in float32


def test_remat_changes_memory_not_numbers(key):
    apply, params = make(**SHALLOW, dropout=0.5)
    again, _ = make(**SHALLOW, dropout=0.5, remat=True)
    x, c = batch(key)

    def gradient(apply):
        return jax.grad(lambda p: jnp.mean(apply(p, x, c, None, key=key) ** 2))

    assert "remat" in str(jax.make_jaxpr(gradient(again))(params))
    assert "remat" not in str(jax.make_jaxpr(gradient(apply))(params))
    a, b = jax.jit(gradient(apply))(params), jax.jit(gradient(again))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), a, b)


def test_two_calls_compile_once(key):
    x, c = batch(key)
    f = jax.jit(lambda apply, *args: apply(*args))
    for _ in range(2):
        apply, params = make(ncsnpp, **SHALLOW)
        f(apply.__wrapped__, params, x, c, None)
        x = x + 1
    assert f._cache_size() == 1


def test_the_null_class_is_the_number_of_classes():
    build = lambda n: nnx.eval_shape(lambda: ddpmpp(2, 8, **(TINY | SHALLOW), num_classes=n, rngs=counted(0)))  # noqa: E731
    assert (build(3).null_class, build(None).null_class) == (3, None)


@pytest.mark.parametrize(
    ("shape", "cond", "words"),
    [
        ((2, 8, 7, 2), None, r"spatial sizes \(8, 7\).*multiples of 2.*pad"),
        ((8, 8, 2), None, r"shape \(8, 8, 2\).*batch axis with x\[None\]"),
        ((2, 8, 8, 3), None, r"2 channels"),
        ((2, 8, 8, 2), np.zeros(2, np.int32), "no classes"),
        ((2, 8, 8, 2), {"augment": np.zeros((2, 9), np.float32)}, "no augmentation labels"),
        ((2, 8, 8, 2), {"lable": None}, r"entries \['lable'\]"),
    ],
)
def test_mistakes(shape, cond, words):
    apply, params = make()
    with pytest.raises(InputError, match=words):
        apply(params, jnp.zeros(shape), jnp.zeros(shape[0]), cond)


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        (np.zeros((2, 4), np.float32), r"labels of shape \(2, 4\).*\(2, 3\)"),
        (np.zeros(3, np.int32), r"labels of shape \(3,\).*\(2,\)"),
        ({"augment": np.zeros((2, 9), np.float32)}, r"augmentation labels of shape \(2, 9\): expected \(2, 2\)"),
    ],
)
def test_labels_of_another_width_are_refused(cond, words):
    apply, params = make(num_classes=3, augment=2)
    with pytest.raises(InputError, match=words):
        apply(params, jnp.zeros((2, 8, 8, 2)), jnp.zeros(2), cond)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multipliers": ()}, "0 multipliers"),
        ({"multipliers": (1,) * 5}, r"size=8.*multiple of 16"),
        ({"attention": (5,)}, r"sizes \[5\].*\[8, 4\]"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"augment": -1}, "augment=-1"),
        ({"taps": (1, 2, 1)}, r"filter \(1, 2, 1\).*even number"),
        ({"width": 7}, "features=7"),
    ],
)
def test_construction_errors(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)


def test_block_and_embedding_by_numpy(key, x64):
    """In float64 with weights of order 1, since the golden files' are too small to show these: the shift, epsilon,
    attention in one head, sqrt(1/2) twice; sines before cosines, the last frequency 1 / 10000, sqrt(classes)."""
    kind = {"dtype": "float64", "param_dtype": "float64", "rngs": nnx.Rngs(0)}
    net = ddpmpp(2, 4, **(TINY | {"multipliers": (1,)}), num_classes=3, augment=2, **kind)
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    draw = np.random.default_rng(0).standard_normal
    net = nnx.merge(graph, jax.tree.map(lambda p: jnp.asarray(0.5 * draw(p.shape)), params), rest)
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    dense = lambda layer, x: x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])  # noqa: E731

    def norm(layer, x):  # 8 channels in groups of 4
        groups = x.reshape(2, 16, 2, 4)
        groups = groups - groups.mean((1, 3), keepdims=True)
        groups = groups / np.sqrt((groups**2).mean((1, 3), keepdims=True) + 1e-6)
        return groups.reshape(x.shape) * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])

    def conv(layer, x):
        x, kernel = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), np.asarray(layer.kernel[...])
        parts = [x[:, i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3)]
        return sum(parts) + np.asarray(layer.bias[...])

    block, x, emb = net.enc["4x4_block0"], 1e-3 * draw((2, 4, 4, 8)), draw((2, 32))
    h = conv(block.conv0, silu(norm(block.norm0, x)))
    h = conv(block.conv1, silu(norm(block.norm1, h + dense(block.affine, emb)[:, None, None])))
    y = (x + h) * np.sqrt(0.5)
    q, k, v = np.split(dense(block.qkv, norm(block.norm2, y)).reshape(2, 16, 24), 3, axis=-1)
    weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(8))
    read = (weights / weights.sum(-1, keepdims=True) @ v).reshape(y.shape)
    expected = (y + dense(block.proj, read)) * np.sqrt(0.5)
    np.testing.assert_allclose(block(jnp.asarray(x), jnp.asarray(emb)), expected, rtol=1e-9, atol=1e-9)

    c, rows, augment = np.array([-1.5, 0.7]), np.eye(3)[[2, 0]], draw((2, 2))
    angles = c[:, None] * np.array([1.0, 1e-4 ** (1 / 3), 1e-4 ** (2 / 3), 1e-4])
    e = np.concatenate([np.sin(angles), np.cos(angles)], 1) + dense(net.map_label, np.sqrt(3) * rows)
    e = e + augment @ np.asarray(net.map_augment.kernel[...])
    e = silu(dense(net.map_layer1, silu(dense(net.map_layer0, e))))
    np.testing.assert_allclose(net._embed(*map(jnp.asarray, (c, rows, augment))), e, rtol=1e-9, atol=1e-9)
