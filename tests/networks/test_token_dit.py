"""The transformer for tokens: published sizes, rotary positions, attention, normalised queries, the end of a cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from token_networks import BATCH, LENGTH, STATES, batch, build, made

from jaxdiff.errors import InputError
from jaxdiff.networks import TokenDiT, count, functional
from jaxdiff.networks.tokens.rotary import rotary

pytestmark = pytest.mark.claim("the published DiT's logits to 2e-5; parameter counts")


@pytest.mark.claim("every published parameter count, EDM2's too, is exact")
@pytest.mark.parametrize(
    ("vocab", "options", "millions"),
    [
        (30522, {}, 139.29),
        (35, {}, 92.43),  # both published as 92.4
        (40, {}, 92.44),
    ],
)
def test_published_parameter_counts(vocab, options, millions):
    net = nnx.eval_shape(lambda: TokenDiT(vocab, width=768, depth=12, heads=12, **options, rngs=nnx.Rngs(0)))
    assert round(count(functional(net)[1]) / 1e6, 2) == millions


def test_rotary_positions_are_complex_rotations_and_products_hear_differences_alone(x64):
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 1, 9, 1, 6))
    places = np.arange(9)
    turned = (q[..., :3] + 1j * q[..., 3:]) * np.exp(1j * places[:, None, None] * 1e4 ** (-np.arange(3) / 3))
    ours = rotary(jnp.asarray(q), jnp.asarray(places))
    np.testing.assert_allclose(ours, np.concatenate([turned.real, turned.imag], -1), atol=1e-13)

    def products(shift):
        a, b = (rotary(jnp.asarray(z), jnp.asarray(places + shift)) for z in (q, k))
        return jnp.einsum("blhd,bmhd->blm", a, b)

    np.testing.assert_allclose(products(1000), products(0), atol=1e-11)
    assert np.abs(products(0) - jnp.einsum("blhd,bmhd->blm", q, k)).max() > 0.1


def test_angles_keep_their_digits_in_bfloat16():
    x = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    got = rotary(x, jnp.array([1001], jnp.int32))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.float32(got).ravel(), [np.cos(1001) - np.sin(1001), np.cos(1001) + np.sin(1001)], atol=1e-2
    )


def test_normalised_queries_and_keys_have_no_size():
    (apply, params), (plain, _) = made(TokenDiT, qk_norm=True), made(TokenDiT)
    x, c, _ = batch()

    def scaled(tree, by):
        by = np.where(np.arange(24) < 16, np.float32(by), 1)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: np.float32(leaf * by) if "'qkv'" in str(path) else leaf, jax.tree.map(np.asarray, tree)
        )

    base = apply(params, x, c)
    np.testing.assert_allclose(apply(scaled(params, 4.0), x, c), base, atol=1e-4)
    assert np.abs(plain(scaled(made(TokenDiT)[1], 4.0), x, c) - plain(made(TokenDiT)[1], x, c)).max() > 1e-3
    by_head = params["blocks"]["0"]["query_norm"]["scale"]
    assert by_head.shape == (4,)


def test_dropout_has_a_mask_of_its_own_on_each_branch():
    hidden, params = made(TokenDiT, "hidden", dropout=0.5)
    params, (x, c, _), masks = jax.tree.map(np.asarray, params), batch(), []
    for silent in ("'out'", "'down'"):
        quiet = jax.tree_util.tree_map_with_path(
            lambda path, leaf, silent=silent: leaf * 0 if "'blocks'" in str(path) and silent in str(path) else leaf,
            params,
        )
        added = np.asarray(hidden(quiet, x, c, key=jax.random.key(0))) - params["embed"]["table"][np.asarray(x)]
        masks.append(added == 0)
        assert 0.3 < masks[-1].mean() < 0.7  # 168 numbers, each dropped or not
    assert 0.3 < (masks[0] == masks[1]).mean() < 0.7


def test_a_step_beyond_the_cache_says_nan():
    step, params = made(TokenDiT, "step", causal=True)
    cache = build(TokenDiT, causal=True).init_cache(BATCH, 2)
    for expected in (False, False, True):
        logits, cache = step(params, jnp.zeros(BATCH, jnp.int32), cache)
        assert np.all(np.isnan(logits)) == expected


def test_one_program_reads_every_token():
    step, params = made(TokenDiT, "step", causal=True, depth=2)
    cache = build(TokenDiT, causal=True, depth=2).init_cache(BATCH, 5)
    for token in range(5):
        _, cache = step(params, jnp.full(BATCH, token, jnp.int32), cache)
    assert step._cache_size() == 1


def test_places_are_told_apart_where_all_tokens_are_alike():
    """By rotary positions alone a sequence of masks looks the same everywhere; learned places end that, also token by
    token."""
    x, c = jnp.full((2, LENGTH), STATES - 1, jnp.int32), jnp.ones(2)
    plain, params = made(TokenDiT)
    out = plain(params, x, c)
    np.testing.assert_allclose(out - out[:, :1], 0, atol=1e-5)
    placed, params = made(TokenDiT, positions=LENGTH)
    out = placed(params, x, c)
    assert np.std(out, axis=1).max() > 0.1
    with pytest.raises(InputError, match=f"has 8 tokens and this network learned {LENGTH} places"):
        placed(params, jnp.zeros((2, LENGTH + 1), jnp.int32), c)
    with pytest.raises(InputError, match="positions=-1"):
        build(TokenDiT, positions=-1)


def test_heads_divide_the_width():
    with pytest.raises(InputError, match=r"width=8, depth=1, heads=3.*multiple of 2 heads"):
        build(TokenDiT, heads=3)
