"""EDM2's network: the paper's formulas in NumPy on every path, its parameter counts, and what its layers promise."""

import functools
import math

import edm2_mirror
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import count, functional
from jaxdiff.networks.edm.edm2 import LEARNING_RATES, PRESETS, Balance, Block, edm2
from jaxdiff.networks.edm.magnitude import LogVariance, MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize, project
from jaxdiff.networks.layers import repeat

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head": 4, "num_classes": 3}
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}


SHALLOW = {"multipliers": (1,), "attention": (8,)}


@functools.cache
def make(channels=2, size=8, **options):
    """(network, apply, parameters with random gains, so that every path acts)."""
    net = edm2(channels, size, **(TINY | options), rngs=nnx.Rngs(0))
    apply, params = functional(net)
    draw = np.random.default_rng(7).normal
    params = jax.tree.map(lambda p: jnp.asarray(draw(), p.dtype) if p.ndim == 0 else p, params)
    return net, jax.jit(apply), params


def batch(key, size=8, channels=2, n=4, dtype=jnp.float32):
    x = jax.random.normal(key, (n, size, size, channels), dtype)
    return x, jnp.linspace(-1.5, 1.1, n, dtype=dtype), jnp.arange(n, dtype=jnp.int32) % 4


def one_hot(labels, classes=3):
    return np.eye(classes + 1)[np.asarray(labels)][:, :classes]


def named(net, params, size):
    """Our tree of parameters under the figure's names, weights (out, in, k, k)."""
    out = {"emb_fourier/freqs": net.fourier.frequencies, "emb_fourier/phases": net.fourier.phases}
    out = {name: np.asarray(buffer[...], np.float64) for name, buffer in out.items()}

    def weight(layer):
        w = np.asarray(layer["weight"], np.float64)
        return w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T

    def block(name, layers):
        names = {"conv1": "conv_res0", "conv2": "conv_res1", "skip": "conv_skip", "read": "emb_linear"}
        wide = lambda w, name: w if name == "emb_linear" else w.reshape(*w.shape[:2], *(w.shape[2:] or (1, 1)))  # noqa: E731
        out.update({f"{name}/{to}": wide(weight(layers[ours]), to) for ours, to in names.items() if ours in layers})
        out[f"{name}/emb_gain"] = np.asarray(layers["gain"], np.float64)
        for ours, to in {"qkv": "attn_qkv", "out": "attn_proj"}.items():
            if "attend" in layers:
                out[f"{name}/{to}"] = weight(layers["attend"][ours])[:, :, None, None]

    out |= {"emb_noise": weight(params["noise"]), "out_conv": weight(params["out"]), "out_gain": params["gain"]}
    if "label" in params:
        out["emb_label"] = weight(params["label"])
    out[f"enc/{size}x{size}_conv"] = weight(params["stem"])
    levels = len(params["down"])
    for level in range(levels):
        res = f"{size >> level}x{size >> level}"
        row = list(params["down"][str(level)].values())
        for i, layers in enumerate(row):
            below = level > 0
            block(f"enc/{res}_down" if below and i == 0 else f"enc/{res}_block{i - below}", layers)
        enter, row = (list(part.values()) for part in params["up"][str(levels - 1 - level)].values())
        for layers, name in zip(enter, ("in0", "in1") if level == levels - 1 else ("up",), strict=True):
            block(f"dec/{res}_{name}", layers)
        for i, layers in enumerate(row):
            block(f"dec/{res}_block{i}", layers)
    return out


PATHS = {
    "as published": {},
    "clipped, one level": {"clip": 0.7, **SHALLOW},
    "no classes, other balances": {
        "num_classes": None, "concat_balance": 0.4, "res_balance": 0.45, "attn_balance": 0.2,
    },
    "three levels, two blocks, labels count .7": {
        "multipliers": (1, 2, 1), "blocks": 2, "attention": (8, 2), "label_balance": 0.7,
    },
}  # fmt: skip


def by_the_paper(net, params, x, c, labels, options):
    """The mirror's answer, channels last again."""
    config = TINY | options
    return edm2_mirror.network(
        named(net, params, x.shape[1]),
        np.asarray(x, np.float64).transpose(0, 3, 1, 2),
        np.asarray(c, np.float64),
        None if labels is None else one_hot(labels),
        mult=config["multipliers"],
        num_blocks=config["blocks"],
        attn_resolutions=config["attention"],
        head=config["head"],
        **{name: value for name, value in options.items() if name == "clip" or name.endswith("balance")},
    ).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("path", PATHS)
def test_the_paper_in_numpy_says_the_same(path, key, x64):
    options = PATHS[path]
    (net, apply, params), (x, c, y) = make(**options, **DOUBLE), batch(key, dtype=jnp.float64)
    labels = None if "num_classes" in options else y
    exact = by_the_paper(net, params, x, c, labels, options)
    assert exact.std() > 0.1
    np.testing.assert_allclose(apply(params, x, c, labels), exact, atol=1e-10)


def test_the_paper_in_numpy_says_the_same_in_float32(key):
    (net, apply, params), (x, c, y) = make(**SHALLOW), batch(key)
    got, exact = apply(params, x, c, y), by_the_paper(net, params, x, c, y, SHALLOW)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact, atol=1e-5 * max(1, np.abs(exact).max()))


def test_log_variance_in_numpy(key, x64):
    net = LogVariance(param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    apply, params = functional(net)
    c = jnp.linspace(-1.5, 1.1, 9)
    weights = {
        "freqs": np.asarray(net.fourier.frequencies[...]),
        "phases": np.asarray(net.fourier.phases[...]),
        "linear": np.asarray(params["read"]["weight"]).T,
    }
    np.testing.assert_allclose(apply(params, None, c), edm2_mirror.log_variance(weights, np.asarray(c)), atol=1e-12)
    assert count(params) == 128


# Latents of 4 channels, and 64 x 64 pixels of 3; the head of learned uncertainty is counted.
COUNTS = {
    "xxs": (31_309_029, 31_307_877),
    "xs": (124_713_253, 124_710_949),
    "s": (280_212_837, 280_209_381),
    "m": (497_807_781, 497_803_173),
    "l": (777_498_085, 777_492_325),
    "xl": (1_119_283_749, 1_119_276_837),
    "xxl": (1_523_164_773, 1_523_156_709),
}


@pytest.mark.claim("every published parameter count, EDM2's too, is exact")
@pytest.mark.parametrize("preset", PRESETS)
def test_published_parameter_counts_by_shape_alone(preset):
    def shapes(channels):
        def make():
            rngs = nnx.Rngs(0)
            net = edm2(channels, 64, num_classes=1000, **PRESETS[preset], rngs=rngs)
            return functional(net)[1], functional(LogVariance(rngs=rngs))[1]

        return jax.eval_shape(make)

    assert tuple(count(shapes(channels)) for channels in (4, 3)) == COUNTS[preset]
    assert PRESETS.keys() == LEARNING_RATES.keys() == COUNTS.keys()


def test_silu_has_magnitude_one_by_quadrature(x64):
    z, w = np.polynomial.hermite_e.hermegauss(101)
    power = np.sum(w * np.asarray(mp_silu(jnp.asarray(z))) ** 2) / math.sqrt(2 * math.pi)
    assert round(0.596 * math.sqrt(power), 3) == 0.596
    np.testing.assert_allclose(mp_silu(jnp.float64(1.0)), 1 / (1 + math.exp(-1)) / 0.596, rtol=1e-12)


@pytest.mark.parametrize("t", [0.3, 0.5, 0.8])
def test_sums_and_joins_keep_the_power_and_share_it(t, x64):
    """Exactly: on orthogonal vectors of magnitude 1, as independent ones are on average."""
    n, m = 6, 10
    a, b = np.zeros((1, n)), np.zeros((1, m))
    a[0, 0], b[0, 1] = math.sqrt(n), math.sqrt(m)
    whole = np.asarray(mp_cat(jnp.asarray(a), jnp.asarray(b), t))
    np.testing.assert_allclose(np.mean(whole**2), 1, rtol=1e-12)
    share = np.sum(whole[:, n:] ** 2) / np.sum(whole**2)
    np.testing.assert_allclose(share, t**2 / ((1 - t) ** 2 + t**2), rtol=1e-12)
    one, two = jnp.sqrt(2.0) * jnp.eye(2)
    np.testing.assert_allclose(np.mean(np.asarray(mp_sum(one, two, t)) ** 2), 1, rtol=1e-12)
    np.testing.assert_allclose(mp_sum(one, two, t)[1] / mp_sum(one, two, t)[0], t / (1 - t), rtol=1e-12)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_layer_keeps_the_variance_of_white_noise(kernel, key, x64):
    """Each output is a unit vector times white noise: variance 1 for every weight (away from the padded edge)."""
    n, size, inputs, outputs = 400, 6, 5, 7
    x = jax.random.normal(key, (n, *(size, size)[: len(kernel)], inputs))
    layer = MPConv(inputs, outputs, kernel, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
    y = np.asarray(layer(x))
    y = y[:, 1:-1, 1:-1] if kernel else y
    power = (y**2).reshape(n, -1).mean(1)
    assert abs(power.mean() - 1) < 5 * power.std() / math.sqrt(n)
    assert layer.weight[...].shape == (*kernel, inputs, outputs)
    if not kernel:  # exactly, to EPSILON: a matrix's columns have length 1
        np.testing.assert_allclose(np.linalg.norm(layer(jnp.eye(inputs)), axis=0), 1, atol=3e-4)


def test_fourier_features_have_magnitude_one_and_are_frozen(key, x64):
    features = 4096
    net = MPFourier(features, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    power = np.asarray(net(jnp.linspace(-1.5, 1.1, 5))) ** 2
    assert np.all(np.abs(power.mean(1) - 1) < 5 * power.std(1) / math.sqrt(features))
    assert functional(net)[1] == {}
    frequencies = np.asarray(net.frequencies[...])
    assert abs(frequencies.std() / (2 * math.pi) - 1) < 5 / math.sqrt(2 * features)


def test_the_blocks_hear_magnitude_one(key):
    """From white noise every block makes magnitude near 1: the zeros around the edge cost some of it, and nothing
    else. (Attention on white noise costs more, as it averages values that have nothing in common.)"""
    kind = {"dropout": 0.0, "clip": None, "balance": Balance(), "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    blocks = [
        Block(64, 64, 32, decoder=False, **kind),
        Block(64, 64, 32, decoder=True, **kind),
        Block(64, 64, 32, decoder=True, resample=repeat, **kind),
    ]
    x, emb = jax.random.normal(key, (2, 16, 16, 64)), jax.random.normal(jax.random.fold_in(key, 1), (2, 32))

    @jax.jit
    def magnitudes(h):
        seen = []
        for block in blocks:
            seen.append(h := block(h, emb))
        return jnp.stack([jnp.sqrt(jnp.mean(h**2)) for h in seen])

    np.testing.assert_allclose(magnitudes(x), 1, atol=0.05)


def test_only_directions_of_weights_count(key, x64):
    """Rescaling any weight, output channel by output channel, changes nothing that EPSILON would not."""
    _, apply, params = make(**SHALLOW, **DOUBLE)
    (x, c, y), draw = batch(key, dtype=jnp.float64), np.random.default_rng(3)
    expected = apply(params, x, c, y)
    scaled = jax.tree.map(lambda p: p * draw.uniform(2, 9, p.shape[-1:]) if p.ndim else p, params)
    assert 1e-9 < jnp.abs(apply(scaled, x, c, y) - expected).max() < 2e-3 * jnp.abs(expected).max()


def test_projection_changes_the_magnitude_of_weights_alone(key, x64):
    _, apply, params = make(**SHALLOW, **DOUBLE)
    x, c, y = batch(key, dtype=jnp.float64)
    once = project(params)
    for path, w in jax.tree_util.tree_leaves_with_path(once):
        if w.ndim:
            magnitude = np.sqrt(np.mean(np.asarray(w) ** 2, axis=tuple(range(w.ndim - 1))))
            np.testing.assert_allclose(magnitude, 1, rtol=1e-12, err_msg=str(path))
    gains = lambda tree: [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 0]  # noqa: E731
    assert gains(once) == gains(params)
    assert len(gains(once)) == 1 + 5  # the output's, and one a block
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), project(once), once)
    single = project(jax.tree.map(jnp.float32, params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), project(single), single)
    # A weight of magnitude r acts as one of r / (r + EPSILON): the same to EPSILON |1 / r - 1|, here 3e-5 at most.
    expected = apply(params, x, c, y)
    np.testing.assert_allclose(apply(once, x, c, y), expected, atol=1e-3 * jnp.abs(expected).max())
    zero = {"weight": jnp.zeros((3, 2)), "kernel": 5 * jnp.ones((3, 2))}
    jax.tree.map(np.testing.assert_array_equal, project(zero), zero)


def gradient_of(apply):
    return jax.jit(jax.grad(lambda p, x, c, y: jnp.sum(jnp.sin(apply(p, x, c, y)))))


def test_gradients_are_orthogonal_to_weights_with_remat_as_without(key, x64):
    """So a step can only lengthen a weight; without the projection learning fades as 1 / |w|."""
    _, apply, params = make(**SHALLOW, **DOUBLE)
    given, f = batch(key, dtype=jnp.float64), gradient_of(apply)
    gradient = lambda p: f(p, *given)  # noqa: E731
    here = gradient(project(params))
    for (path, w), g in zip(jax.tree_util.tree_leaves_with_path(project(params)), jax.tree.leaves(here), strict=True):
        if w.ndim:
            axes = tuple(range(w.ndim - 1))
            along = np.abs(np.sum(np.asarray(w * g), axis=axes))
            lengths = np.sqrt(np.sum(np.asarray(w) ** 2, axes) * np.sum(np.asarray(g) ** 2, axes))
            assert np.all(along <= 1e-3 * lengths + 1e-15), path
            assert lengths.max() > 1e-6, path
    doubled = gradient(jax.tree.map(lambda p: 2 * p if p.ndim else p, project(params)))
    for one, half in zip(jax.tree.leaves(here), jax.tree.leaves(doubled), strict=True):
        if one.ndim:
            np.testing.assert_allclose(half, one / 2, atol=1e-3 * np.abs(one).max())
    again = gradient_of(make(**SHALLOW, **DOUBLE, remat=True)[1])
    assert "remat" in str(jax.make_jaxpr(again)(params, *given))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), again(project(params), *given), here)


def test_a_vector_of_zeros_has_a_direction_to_learn():
    np.testing.assert_array_equal(normalize(jnp.zeros(3), 0), jnp.zeros(3))
    slope = jax.jacfwd(lambda x: normalize(x, 0))(jnp.zeros(3))
    np.testing.assert_allclose(slope, 1e4 * np.eye(3), rtol=1e-6)
    back = jax.grad(lambda x: jnp.sum(normalize(x, 0)))(jnp.zeros(3))
    np.testing.assert_allclose(back, 1e4 * np.ones(3), rtol=1e-6)


def test_a_new_network_says_zero_and_hears_no_level(key):
    (net, apply, _), (x, c, y) = make(**SHALLOW), batch(key)
    params = functional(net)[1]
    np.testing.assert_array_equal(apply(params, x, c, y), jnp.zeros_like(x))
    heard = {**params, "gain": jnp.float32(1.0)}
    out = apply(heard, x, c, y)
    np.testing.assert_array_equal(apply(heard, x, c[::-1], y[::-1]), out)
    assert 0.3 < float(jnp.std(out)) < 3


def test_labels_by_number_and_by_row_and_their_absence(key):
    net, apply, params = make(**SHALLOW)
    x, c, y = batch(key)
    x, c = x[:1].repeat(4, 0), jnp.zeros(4)
    out = apply(params, x, c, y)  # one image under the three classes and the null class
    gap = jnp.abs(out[:, None] - out[None]).reshape(4, 4, -1).max(-1)
    assert jnp.all(gap[~np.eye(4, dtype=bool)] > 1e-3)
    np.testing.assert_allclose(apply(params, x, c, jnp.float32(one_hot(y))), out, atol=1e-6)
    np.testing.assert_allclose(apply(params, x, c)[0], out[3], atol=1e-6)
    assert net.null_class == 3
    assert jnp.isnan(apply(params, x, c, jnp.array([-1, 4, 0, 0]))).all((1, 2, 3)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(InputError, match=r"labels have shape \(4, 2\), expected \(4, 3\)"):
        apply(params, x, c, jnp.zeros((4, 2)))
    with pytest.raises(InputError, match="no classes but got labels"):
        make(num_classes=None)[0](x, c, y)


def test_one_example_is_its_row_of_the_batch_and_dropout_hangs_on_the_key(key):
    _, apply, params = make(**SHALLOW, dropout=0.5)
    x, c, y = batch(key)
    together = apply(params, x, c, y)
    alone = jax.jit(jax.vmap(lambda x, c, y: apply(params, x[None], c[None], y[None])[0]))(x, c, y)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    a, b = jax.random.split(key)
    np.testing.assert_array_equal(apply(params, x, c, y, key=a), apply(params, x, c, y, key=a))
    assert jnp.abs(apply(params, x, c, y, key=a) - apply(params, x, c, y, key=b)).max() > 1e-3
    np.testing.assert_allclose(make(**SHALLOW)[1](params, x, c, y), together, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_dtypes_compute_the_blocks_and_answer_in_float32(key, dtype):
    _, apply, params = make(**SHALLOW)
    _, half, same = make(**SHALLOW, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(same)} == {jnp.dtype("float32")}
    x, c, y = batch(key)
    got, expected = half(params, x, c, y), apply(params, x, c, y)
    assert got.dtype == jnp.float32
    error = jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected)
    assert 1e-5 < error < 0.1
    assert f"{'bf16' if dtype == 'bfloat16' else 'f16'}[3,3,8,8]" in str(jax.make_jaxpr(half)(params, x, c, y))


def test_two_calls_compile_once(key):
    build = lambda seed: functional(edm2(2, 8, **TINY | SHALLOW, rngs=nnx.Rngs(seed)))  # noqa: E731
    (apply, params), (x, c, y) = build(0), batch(key)
    f = jax.jit(lambda apply, *args: apply(*args))
    f(apply, params, x, c, y)
    f(build(1)[0], params, x + 1, c, y)
    assert f._cache_size() == 1


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 6, 7, 2), r"spatial sizes \(6, 7\).*multiples of 2.*pad"),
        ((8, 8, 2), r"shape \(8, 8, 2\).*batch axis with x\[None\]"),
        ((2, 8, 8, 3), "2 channels"),
    ],
)
def test_mistakes(shape, words):
    net, _, _ = make()
    with pytest.raises(InputError, match=words):
        net(jnp.zeros(shape), jnp.zeros(shape[0]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multipliers": ()}, "0 multipliers"),
        ({"blocks": 0}, "blocks=0"),
        ({"size": 9}, "size=9.*multiple of 2"),
        ({"head": 3}, "16 channels with heads of 3"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"res_balance": 1.5}, r"res=1\.5"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_construction_errors(options, words):
    with pytest.raises(InputError, match=words):
        make(**options)
