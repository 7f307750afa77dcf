"""What holds for every network on tokens: batches, conditioning, one-hots, padding, causality, caches, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from token_networks import BATCH, LENGTH, SMALL, STATES, VOCAB, batch, build, made

from jaxdiff.errors import InputError
from jaxdiff.networks import StateSpace, TokenDiT, functional

CLASSES = {"num_classes": 2}


@pytest.fixture(params=SMALL, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def test_an_example_alone_is_its_row_of_the_batch(kind):
    apply, params = made(kind, **CLASSES)
    x, c, y = batch()
    together = apply(params, x, c, y)
    assert together.shape == (BATCH, LENGTH, VOCAB)
    assert np.all(np.std(together, axis=(1, 2)) > 0.05)
    for i in range(BATCH):
        others = jnp.flip(x, 0).at[i].set(x[i])
        np.testing.assert_allclose(apply(params, others, c, y)[i], together[i], atol=2e-6)


def test_a_new_network_says_zero_and_a_seed_repeats_it(kind):
    make = jax.jit(
        lambda seed: functional(kind(VOCAB, states=STATES, **SMALL[kind], **CLASSES, rngs=nnx.Rngs(seed)))[1]
    )
    first, again, other = (make(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not jnp.array_equal(first["embed"]["table"], other["embed"]["table"])
    apply, _ = made(kind, **CLASSES)
    np.testing.assert_array_equal(apply(first, *batch()), jnp.zeros((BATCH, LENGTH, VOCAB)))


def test_classes_and_times_are_heard_where_the_network_has_them(kind):
    net = build(kind, **CLASSES)
    assert (net.null_class, net.time_conditioned) == (2, True)
    apply, params = made(kind, **CLASSES)
    x, c = jnp.tile(batch()[0][:1], (3, 1)), jnp.ones(3)
    out = apply(params, x, c, jnp.arange(3, dtype=jnp.int32))
    assert min(np.abs(out[i] - out[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    np.testing.assert_allclose(apply(params, x, c, None)[0], out[2], atol=1e-6)
    assert np.all(np.isnan(apply(params, x, c, jnp.array([0, 3, -1], jnp.int32))[1:]))
    levels = apply(params, x, jnp.array([0.1, 0.2, 5.0]), None)
    assert np.abs(np.diff(levels, axis=0)).max(axis=(1, 2)).min() > 1e-3


def test_without_time_and_classes_there_is_no_modulation(kind):
    assert build(kind, causal=True).time_conditioned is False
    apply, params = made(kind, time_conditioned=False)
    assert "modulation" not in params
    assert "modulation" not in params["blocks"]["0"]
    assert "conditioning" not in params
    x, c, _ = batch()
    out = apply(params, x, None)
    np.testing.assert_array_equal(apply(params, x, c), out)
    assert np.std(out) > 0.05


def test_an_id_that_is_no_state_says_nan(kind):
    apply, params = made(kind, **CLASSES)
    x, c, y = batch()
    for wrong in (STATES, -1):
        out = apply(params, x.at[1, 2].set(wrong), c, y)
        assert np.all(np.isnan(out[1]))
        assert np.all(np.isfinite(out[0]))


def test_the_head_reads_the_hidden_state(kind):
    apply, params = made(kind, **CLASSES)
    (hidden, _), (head, _) = made(kind, "hidden", **CLASSES), made(kind, "head", **CLASSES)
    x, c, y = batch()
    h = hidden(params, x, c, y)
    assert h.shape == (BATCH, LENGTH, 8)
    out = apply(params, x, c, y)
    np.testing.assert_allclose(head(params, h, c, y), out, atol=1e-6)
    assert np.abs(head(params, h + 0.1 * jnp.cos(jnp.arange(8.0)), c, y) - out).max() > 1e-3


def test_the_head_by_hand(kind, x64):
    """NumPy's own normalisation, conditioning and one modulation."""
    precision = {"dtype": "float64", "param_dtype": "float64"}
    head, params = made(kind, "head", **CLASSES, **precision)
    _, c, y = batch()
    hidden = np.random.default_rng(2).standard_normal((BATCH, LENGTH, 8))
    got = head(params, jnp.asarray(hidden), jnp.asarray(c, jnp.float64), y)
    p, c, y = jax.tree.map(np.asarray, (params, c, y))

    def silu(a):
        return a / (1 + np.exp(-a))

    def linear(layer, a):
        return a @ layer["kernel"] + layer.get("bias", 0)

    angles = np.float64(c)[:, None] * 1e4 ** (-np.arange(128) / 128)
    waves = np.concatenate([np.cos(angles), np.sin(angles)], -1)
    time = linear(p["conditioning"]["out"], silu(linear(p["conditioning"]["hidden"], waves)))
    told = silu(time) + silu(p["conditioning"]["table"][y])
    shift, scale = np.split(linear(p["modulation"]["read"], told)[:, None], 2, -1)
    x = hidden - hidden.mean(-1, keepdims=True) * (kind is TokenDiT)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
    np.testing.assert_allclose(got, linear(p["out"], x * (1 + scale) + shift), atol=1e-12)


def test_padding_is_not_heard_and_where_it_lies_does_not_matter(kind):
    apply, params = made(kind, **CLASSES)
    x, c, y = batch(length=4)
    results = []
    for before in (0, 3, 2):
        at = slice(before, before + 4)
        padded = batch(seed=before)[0].at[:, at].set(x)
        mask = jnp.zeros(padded.shape, bool).at[:, at].set(True)
        results.append(apply(params, padded, c, y, mask)[:, at])
        assert np.abs(apply(params, padded, c, y)[:, at] - results[-1]).max() > 1e-3
    alone = apply(params, x, c, y)
    for result in results:
        np.testing.assert_allclose(result, alone, atol=5e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_who_hears_whom(kind, causal):
    apply, params = made(kind, **({"causal": True, "depth": 2} if causal else CLASSES))
    x, c, _ = batch()
    other = x.at[:, 4].set((x[:, 4] + 1) % STATES)
    change = np.abs(apply(params, x, c, None) - apply(params, other, c, None)).max(axis=(0, 2))
    heard = jnp.arange(LENGTH) >= 4 if causal else jnp.ones(LENGTH, bool)
    np.testing.assert_array_equal(change > 1e-6, heard)


@pytest.mark.parametrize("options", [{"depth": 2}, CLASSES | {"time_conditioned": True}], ids=["plain", "conditioned"])
def test_step_by_step_is_the_whole_pass(kind, options):
    options = options | ({"positions": LENGTH} if kind is TokenDiT else {})
    apply, params = made(kind, causal=True, **options)
    step, _ = functional(build(kind, causal=True, **options), "step")
    x, c, y = batch()
    told = (c, y) if "num_classes" in options else (None, None)
    empty = build(kind, causal=True, **options).init_cache(BATCH, LENGTH)

    @jax.jit
    def walk(params, x):
        def body(cache, token):
            logits, cache = step(params, token, cache, *told)
            return cache, logits

        return jax.lax.scan(body, empty, x)

    cache, columns = walk(params, x.T)
    whole = apply(params, x, *told)
    assert np.std(whole) > 0.05
    np.testing.assert_allclose(columns.transpose(1, 0, 2), whole, atol=5e-6)
    assert cache.position == LENGTH


def test_dropout_hangs_on_the_key_alone(kind):
    apply, params = made(kind, **CLASSES, dropout=0.5)
    x, c, y = batch()
    a, b = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(apply(params, x, c, y, key=a), apply(params, x, c, y, key=a))
    assert np.abs(apply(params, x, c, y, key=a) - apply(params, x, c, y, key=b)).max() > 1e-3


def test_gradients_with_respect_to_parameters_and_one_hots(kind):
    """Beside differences of the values; by the network that computes its blocks again for the backward pass."""
    (apply, params), (again, _) = made(kind, **CLASSES), made(kind, **CLASSES, remat=True)
    x, c, y = batch()
    rng, hot = np.random.default_rng(1), np.float32(np.arange(STATES) == x[..., None])
    probe, params = np.float32(rng.standard_normal((BATCH, LENGTH, VOCAB))), jax.tree.map(np.asarray, params)
    np.testing.assert_allclose(apply(params, hot, c, y), apply(params, x, c, y), atol=2e-6)
    gradient = jax.grad(lambda at: jnp.sum(probe * again(*at, c, y)))
    slope = jax.tree.map(np.asarray, jax.jit(gradient)((params, hot)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        assert np.all(np.isfinite(leaf)), path
        assert np.abs(leaf).max() > 1e-5, path
    nowhere = jax.tree.map(np.zeros_like, (params, hot))
    away = jax.tree.map(lambda leaf: np.float32(rng.standard_normal(leaf.shape)), params)
    mixed = np.float32(rng.dirichlet(np.ones(STATES), x.shape)) - hot
    for toward in ((away, nowhere[1]), (nowhere[0], mixed)):
        step = np.float32(1e-3)
        up, down = (
            np.sum(probe * apply(*jax.tree.map(lambda a, b, s=s: a + s * b, (params, hot), toward), c, y))
            for s in (step, -step)
        )
        expected = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (slope, toward)), strict=True))
        np.testing.assert_allclose((up - down) / (2 * step), expected, rtol=2e-2)
    assert "remat" in str(jax.make_jaxpr(gradient)((params, hot)))


def test_mixed_precision_answers_in_float32(kind):
    (apply, params), (half, _) = made(kind, **CLASSES), made(kind, **CLASSES, dtype="bfloat16")
    shapes = functional(build(kind, dtype="bfloat16"))[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    x, c, y = batch()
    got, expected = half(params, x, c, y), apply(params, x, c, y)
    assert got.dtype == jnp.float32
    assert 1e-5 < jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected) < 0.1
    step, params = made(kind, "step", causal=True, dtype="bfloat16")
    empty = build(kind, causal=True, dtype="bfloat16").init_cache(BATCH, 2)
    logits, cache = jax.eval_shape(step, params, x[:, 0], empty)
    assert logits.dtype == jnp.float32
    assert jax.tree.map(lambda a: a.dtype, cache) == jax.tree.map(lambda a: a.dtype, empty)


def test_the_network_decides_its_dtype(kind, x64):
    double, wide = made(kind, **CLASSES, dtype="float64", param_dtype="float64")
    single, params = functional(build(kind, **CLASSES))
    x, c, y = batch()
    assert jax.eval_shape(double, wide, x, c, y).dtype == jnp.float64
    assert jax.eval_shape(single, params, x, c.astype(jnp.float64), y).dtype == jnp.float32


def test_two_calls_compile_once(kind):
    traces = []

    @jax.jit
    def f(apply, x):
        traces.append(0)
        return x

    f(functional(build(kind))[0], 0)
    f(functional(build(kind))[0], 1)
    assert len(traces) == 1
    f(functional(build(kind), "hidden")[0], 0)
    assert len(traces) == 2


X, C, Y = np.zeros((3, 7), np.int32), np.ones(3, np.float32), np.zeros(3, np.int32)


@pytest.mark.parametrize(
    ("options", "args", "words"),
    [
        ({}, (np.zeros((3, 7, 1), np.int32), C), r"ids of shape \(3, 7, 1\).*\(batch, length\).*tokens\[None\]"),
        ({}, (np.ones((3, 7, 5), np.float32), C), r"probabilities of shape \(3, 7, 5\).*length, 6\)"),
        ({}, (X, C, Y), "has no classes but got labels"),
        ({}, (X, None), "conditioned on time but got c_noise=None"),
        ({}, (X, C, None, np.ones((3, 6), bool)), r"mask has shape \(3, 6\)"),
    ],
)
def test_mistakes(kind, options, args, words):
    apply, shapes = functional(build(kind, **options))
    with pytest.raises(InputError, match=words):
        jax.eval_shape(apply, shapes, *args)


def test_a_network_of_both_sides_cannot_step(kind):
    net = build(kind)
    with pytest.raises(InputError, match="cannot step: build it with causal=True"):
        net.step(jnp.zeros(3, jnp.int32), net.init_cache(3, 7), jnp.ones(3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"states": 0}, "states=0"),
        ({"depth": 0}, "depth=0"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"cond_dim": 0}, "cond_dim=0"),
    ],
)
def test_construction_errors(kind, options, words):
    with pytest.raises(InputError, match=words):
        build(kind, **options)


def test_a_state_space_network_checks_its_own_sizes():
    with pytest.raises(InputError, match="taps=0"):
        build(StateSpace, taps=0)
