"""Classifiers of tokens: pooling by hand, padding, prefixes, caches, one-hots, hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from token_networks import BATCH, LENGTH, SMALL, STATES, batch, draw

from jaxdiff.errors import InputError
from jaxdiff.networks import HiddenClassifier, StateSpace, TokenClassifier, TokenDiT, functional

CLASSES = 4
KINDS = pytest.mark.parametrize("trunk", [TokenDiT, StateSpace])


def made(trunk=TokenDiT, method="__call__", attention=False, **options):
    def build():
        rngs, options_ = nnx.Rngs(0), {"time_conditioned": False} | options
        return TokenClassifier(
            trunk(CLASSES, states=STATES, **SMALL[trunk], **options_, rngs=rngs), attention=attention, rngs=rngs
        )

    net = nnx.eval_shape(build)
    apply, shapes = functional(net, method)
    return jax.jit(apply), draw(shapes), net


def on_hidden(method="__call__", **options):
    net = nnx.eval_shape(lambda: HiddenClassifier(CLASSES, 6, **options, rngs=nnx.Rngs(0)))
    apply, shapes = functional(net, method)
    return jax.jit(apply), draw(shapes)


@pytest.mark.parametrize("attention", [False, True])
def test_pooling_by_hand(attention):
    (whole, params), (prefixes, same) = (on_hidden(attention=attention, prefix=prefix) for prefix in (False, True))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    rng = np.random.default_rng(0)
    h = np.float32(3 * rng.standard_normal((BATCH, LENGTH, 6)))
    mask = np.arange(LENGTH) < np.array([[7], [4], [1]])
    p = jax.tree.map(np.float64, params)
    weight = np.exp((h @ p["pool"]["score"]["kernel"])[..., 0]) if attention else np.ones(h.shape[:2])

    def read(weight):
        mean = (weight[..., None] * h).sum(1) / weight.sum(1)[:, None]
        return mean @ p["out"]["kernel"] + p["out"]["bias"]

    np.testing.assert_allclose(whole(params, h, None, mask), read(weight * mask), atol=1e-5)
    np.testing.assert_allclose(whole(params, h), read(weight), atol=1e-5)
    columns = prefixes(params, h, None, mask)
    for end in range(1, LENGTH + 1):
        np.testing.assert_allclose(columns[:, end - 1], read(weight * mask * (np.arange(LENGTH) < end)), atol=1e-5)
    nothing = np.zeros_like(mask)
    for apply in (whole, prefixes):
        out = apply(params, h, None, nothing)
        np.testing.assert_allclose(out, np.broadcast_to(params["out"]["bias"], out.shape))
        slope = jax.grad(lambda h, apply=apply: jnp.sum(apply(params, h, None, nothing)))(h)
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("attention", [False, True])
def test_hidden_states_are_judged_one_by_one(attention):
    prefixes, params = on_hidden(attention=attention, prefix=True)
    step, _ = on_hidden("step", attention=attention, prefix=True)
    net = nnx.eval_shape(lambda: HiddenClassifier(CLASSES, 6, attention=attention, prefix=True, rngs=nnx.Rngs(0)))
    h = np.float32(np.random.default_rng(0).standard_normal((BATCH, LENGTH, 6)))
    columns, before = prefixes(params, h), net.nothing(BATCH)
    for place in range(LENGTH):
        logits, before = step(params, h[:, place], before)
        np.testing.assert_allclose(logits, columns[:, place], atol=1e-5)


def test_attention_does_not_overflow():
    apply, params = on_hidden(attention=True, prefix=True)
    h = jnp.zeros((1, 3, 6)).at[0, 1].set(jnp.sign(params["pool"]["score"]["kernel"][:, 0]) * 1e4)
    out = apply(params, h)
    assert np.all(np.isfinite(out))
    np.testing.assert_allclose(out[0, 2], out[0, 1], rtol=1e-6)  # the great score wins, before it and after it
    low = jnp.tile(-h[:, 1:2], (1, 3, 1))  # padding has no score that these would be small beside
    np.testing.assert_allclose(apply(params, low, None, np.array([[True, False, True]])), apply(params, low), rtol=1e-5)


@KINDS
def test_padding_changes_nothing(trunk):
    apply, params, _ = made(trunk, attention=True)
    x, _, _ = batch(length=4)
    alone = apply(params, x)
    assert alone.shape == (BATCH, CLASSES)
    assert np.std(alone) > 0.01
    for before in (0, 2):
        at = slice(before, before + 4)
        padded = batch(seed=before)[0].at[:, at].set(x)
        mask = np.zeros((BATCH, LENGTH), bool)
        mask[:, at] = True
        np.testing.assert_allclose(apply(params, padded, None, mask), alone, atol=5e-6)
        assert np.abs(apply(params, padded) - alone).max() > 1e-3


@KINDS
def test_prefixes_hear_no_token_after_them_and_come_one_by_one(trunk):
    apply, params, net = made(trunk, causal=True, attention=True, time_conditioned=True)
    step, _, _ = made(trunk, "step", causal=True, attention=True, time_conditioned=True)
    x, c, _ = batch()
    out = np.asarray(apply(params, x, c))
    assert out.shape == (BATCH, LENGTH, CLASSES)
    change = np.abs(apply(params, x.at[:, 4].set((x[:, 4] + 1) % STATES), c) - out).max((0, 2))
    np.testing.assert_array_equal(change > 1e-6, np.arange(LENGTH) >= 4)
    cache = net.init_cache(BATCH, LENGTH)
    for place in range(LENGTH):
        logits, cache = step(params, x[:, place], cache, c)
        np.testing.assert_allclose(logits, out[:, place], atol=5e-6)
    assert step._cache_size() == 1


@KINDS
def test_one_hots_are_ids_and_time_is_heard_on_request(trunk):
    apply, params, net = made(trunk, time_conditioned=True)
    assert (net.num_classes, net.prefix) == (CLASSES, False)
    x, c, _ = batch()
    hot = np.float32(np.arange(STATES) == x[..., None])
    out = apply(params, x, c)
    np.testing.assert_allclose(apply(params, hot, c), out, atol=2e-6)
    assert np.abs(apply(params, x, 2 * c) - out).max() > 1e-3
    slope = jax.jit(jax.grad(lambda hot: jnp.sum(jax.nn.log_softmax(apply(params, hot, c))[:, 1])))(hot)
    assert np.abs(slope).max(axis=(0, 2)).min() > 1e-6
    without, params, _ = made(trunk)
    np.testing.assert_array_equal(without(params, x, c), without(params, x, 2 * c))


def test_the_two_halves():
    apply, params, _ = made(attention=True)
    (hidden, _, _), (head, _, _) = made(method="hidden", attention=True), made(method="head", attention=True)
    x, _, _ = batch()
    np.testing.assert_allclose(head(params, hidden(params, x)), apply(params, x), atol=1e-6)


def test_dropout_hangs_on_the_key_alone():
    apply, params, _ = made(dropout=0.5)
    x, a, b = batch()[0], jax.random.key(0), jax.random.key(1)
    np.testing.assert_array_equal(apply(params, x, key=a), apply(params, x, key=a))
    assert np.abs(apply(params, x, key=a) - apply(params, x, key=b)).max() > 1e-3


def test_mistakes():
    apply, params = on_hidden()
    with pytest.raises(InputError, match=r"shape \(2, 3, 5\).*\(batch, length, 6\)"):
        apply(params, jnp.ones((2, 3, 5)))
    with pytest.raises(InputError, match="width=0"):
        HiddenClassifier(2, 0, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="told the answer"):
        made(num_classes=3)
    step, params, net = made(method="step")
    with pytest.raises(InputError, match="cannot step: build it with"):
        step(params, jnp.zeros(BATCH, jnp.int32), net.init_cache(BATCH, 3))
    apply, params, _ = made(time_conditioned=True)
    with pytest.raises(InputError, match="conditioned on time but got c_noise=None"):
        apply(params, batch()[0])
