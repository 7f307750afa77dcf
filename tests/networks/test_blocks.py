import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import Film, ResBlock, SelfAttention
from jaxdiff.networks.blocks import Join
from jaxdiff.networks.layers import GroupNorm, conv, pool, repeat

SINGLE = {"dtype": jnp.float32, "param_dtype": jnp.float32}


def noisy(net, key):
    """`net` with noise on its parameters, so that what starts at zero acts."""
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key))).standard_normal
    moved = [p + (0.2 * draw(p.shape)).astype(p.dtype) for p in leaves]
    return nnx.merge(graph, tree.unflatten(moved), rest)


def test_group_norm_at_a_large_mean(key):
    # E[x^2] - E[x]^2 at a mean of 3e3 and a spread of 1 has no digit left in float32
    net = GroupNorm(12, 3, **SINGLE, rngs=nnx.Rngs(0))
    net.scale.set_value(jnp.arange(1.0, 13.0))
    x = np.asarray(3e3 + jax.random.normal(key, (2, 5, 4, 12)))
    groups = x.astype(np.float64).reshape(2, 20, 3, 4)
    mean, std = groups.mean((1, 3), keepdims=True), groups.std((1, 3), keepdims=True)
    expected = ((groups - mean) / std).reshape(x.shape) * np.arange(1.0, 13.0)
    np.testing.assert_allclose(net(jnp.asarray(x)), expected, atol=1e-2)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pool_and_repeat_by_slices(key, dims):
    x = jax.random.normal(key, (2, *(4, 6, 2)[:dims], 3))
    corners = [
        x[(slice(None), *(slice(o, None, 2) for o in offset))] for offset in itertools.product((0, 1), repeat=dims)
    ]
    np.testing.assert_allclose(pool(x), sum(corners) / 2**dims, atol=1e-6)
    wide = np.asarray(x)
    for axis in range(1, dims + 1):
        wide = np.repeat(wide, 2, axis)
    np.testing.assert_array_equal(repeat(x), wide)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_periodic_convolution_turns_with_its_input(key, dims):
    x = jax.random.normal(key, (1, *(6,) * dims, 2))
    axes = tuple(range(1, dims + 1))
    shift = lambda x: jnp.roll(x, (1,) * dims, axes)  # noqa: E731
    around = conv(2, 3, dims, periodic=True, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(around(shift(x)), shift(around(x)), atol=1e-5)
    padded = conv(2, 3, dims, rngs=nnx.Rngs(0))
    inner = (slice(None), *(slice(2, -1),) * dims)  # away from the edge and from the seam, zeros aren't seen
    np.testing.assert_allclose(padded(shift(x))[inner], shift(padded(x))[inner], atol=1e-5)
    assert jnp.abs(padded(shift(x)) - shift(padded(x))).max() > 0.1
    np.testing.assert_allclose(padded(x)[inner], around(x)[inner], atol=1e-5)


def test_attention_permutes_with_its_cells(key):
    net = noisy(SelfAttention(8, head=4, groups=2, rngs=nnx.Rngs(0)), key)
    x = jax.random.normal(key, (2, 3, 4, 8))
    order = jax.random.permutation(key, 12)
    cells = lambda x: x.reshape(2, 12, 8)  # noqa: E731
    moved = cells(x)[:, order].reshape(x.shape)
    np.testing.assert_allclose(cells(net(moved)), cells(net(x))[:, order], atol=1e-5)
    far = net(x.at[:, 0, 0].add(1.0)) - net(x)
    assert jnp.abs(far[:, 2, 3]).min() > 1e-5  # every cell reads every other


def test_attention_by_numpy(key):
    net = noisy(SelfAttention(8, head=4, groups=2, rngs=nnx.Rngs(0)), key)
    x = jax.random.normal(key, (1, 5, 8))
    h = np.asarray(net.qkv(net.norm(x)), np.float64)[0]
    out = []
    for head in range(2):
        q, k, v = (h[:, 8 * part + 4 * head : 8 * part + 4 * head + 4] for part in range(3))
        weights = np.exp(q @ k.T / 2)
        out.append(weights / weights.sum(-1, keepdims=True) @ v)
    read = np.concatenate(out, -1) @ np.asarray(net.out.kernel[...], np.float64) + np.asarray(net.out.bias[...])
    np.testing.assert_allclose(net(x)[0], x[0] + read, atol=1e-5)


def test_a_new_block_is_its_skip_and_its_film_the_identity(key):
    x, emb = jax.random.normal(key, (2, 4, 8)), jax.random.normal(key, (2, 6))
    block = ResBlock(8, 8, 6, 1, head=4, groups=2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(block(x, emb), x)
    assert not jnp.array_equal(noisy(block, key)(x, emb), x)
    film = Film(6, 8, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(film(x, emb), x)
    moved = noisy(film, key)
    scale, shift = jnp.split(emb @ moved.read.kernel[...] + moved.read.bias[...], 2, axis=-1)
    np.testing.assert_allclose(moved(x, emb), x * (1 + scale[:, None]) + shift[:, None], atol=1e-5)


def test_join_repeats_the_coarse_and_only_the_coarse(key):
    join = Join(6, 4, 5, rngs=nnx.Rngs(0))
    h, fine = jax.random.normal(key, (2, 2, 3, 6)), jax.random.normal(key, (2, 4, 6, 4))
    np.testing.assert_allclose(join(h, fine), join(repeat(h), fine), atol=1e-5)
    assert jnp.abs(join(h, fine) - join(h, 2 * fine)).max() > 0.1


def test_mistakes():
    with pytest.raises(InputError, match=r"6 channels in 4 groups.*divide"):
        GroupNorm(6, 4, **SINGLE, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match=r"8 channels with heads of 3.*divide"):
        SelfAttention(8, head=3, groups=2, rngs=nnx.Rngs(0))
