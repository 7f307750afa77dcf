"""The discretised logistic beside Python's decimals, with 60 digits; and what the U-Net around it sees."""

import decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from token_networks import draw

from jaxdiff.errors import InputError
from jaxdiff.networks import TruncatedLogistic, functional
from jaxdiff.networks.tokens import truncated_logistic

SMALL = {"width": 8, "multipliers": (1,), "blocks": 1, "groups": 4, "features": 8}


def by_hand(mean, sharpness, bins):
    """log P(bin | [-1, 1]) from differences of the logistic function, of its upper tail above the mean."""
    with decimal.localcontext(prec=60):
        mean, sharpness = decimal.Decimal(float(mean)), decimal.Decimal(float(sharpness))
        at = [(decimal.Decimal(2 * v) / bins - 1 - mean) * sharpness for v in range(bins + 1)]
        below, above = ([1 / (1 + (sign * y).exp()) for y in at] for sign in (-1, 1))
        each = [above[v] - above[v + 1] if at[v] > 0 else below[v + 1] - below[v] for v in range(bins)]
        return [float((p / sum(each)).ln()) for p in each]


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("sharpness", [1e-3, 1.0, 7.4, 90.0, 2000.0])
def test_bins_are_differences_of_the_logistic_function(x64, bins, sharpness):
    means = np.array([-0.99, 0.1, 1.0])
    expected = np.array([by_hand(mean, sharpness, bins) for mean in means])
    log_bins = jax.jit(truncated_logistic.log_bins, static_argnums=2)
    got = np.asarray(log_bins(means, np.full(3, sharpness), bins))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.exp(got).sum(-1), 1, rtol=1e-12)
    single = log_bins(np.float32(means), np.full(3, sharpness, np.float32), bins)
    assert single.dtype == jnp.float32
    exact = np.array([by_hand(mean, np.float32(sharpness), bins) for mean in np.float32(means)])
    np.testing.assert_allclose(single, exact, rtol=2e-6, atol=2e-6 * max(1, sharpness / 7))  # edges are rounded


def test_the_gradient_is_finite_far_from_the_mean():
    loss = lambda mean, sharpness: jnp.sum(truncated_logistic.log_bins(mean, sharpness, 256))  # noqa: E731
    at = np.float32(np.meshgrid([-1, 0, 1], [1e-3, 7.4, 2000])).reshape(2, 9)
    for slope in jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1))))(*at):
        assert np.all(np.isfinite(slope))


def made(vocab=17, channels=1, **options):
    net = nnx.eval_shape(lambda: TruncatedLogistic(vocab, channels, **(SMALL | options), rngs=nnx.Rngs(0)))
    apply, shapes = functional(net)
    return jax.jit(apply), draw(shapes)


def images(states, channels=1):
    tokens = np.random.default_rng(0).integers(0, states, (2, 4, 4, channels))
    return jnp.asarray(tokens, jnp.int32), jnp.float32([0.2, 0.8])


@pytest.mark.parametrize(("channels", "states"), [(1, 18), (3, 17)])
def test_probabilities_of_every_pixel_sum_to_one(channels, states):
    apply, params = made(17, channels, states=states)
    x, c = images(states, channels)
    out = np.asarray(apply(params, x, c))
    assert out.shape == (*x.shape, 17)
    np.testing.assert_allclose(np.exp(out).sum(-1), 1, atol=1e-5)
    assert np.std(out, axis=(0, 1, 2)).min() > 0.01


def test_one_hots_are_ids():
    apply, params = made(states=18, num_classes=3)
    (x, c), y = images(18), jnp.array([0, 3], jnp.int32)
    hot = np.float32(np.arange(18) == x[..., None])
    np.testing.assert_allclose(apply(params, hot, c, y), apply(params, x, c, y), atol=1e-4)
    np.testing.assert_allclose(apply(params, x, c)[1], apply(params, x, c, y)[1], atol=1e-4)
    assert np.abs(apply(params, x, c)[0] - apply(params, x, c, y)[0]).max() > 1e-3
    slope = jax.jit(jax.grad(lambda hot: jnp.sum(apply(params, hot, c, y)[..., 3])))(hot)
    heard = np.abs(slope).max(axis=(0, 1, 2, 3)) > 1e-4
    np.testing.assert_array_equal(heard, np.arange(18) != 8)  # grey is the value 0, as no level at all


def test_a_new_network_expects_the_level_that_it_sees_and_a_mask_says_nothing():
    apply, shapes = made(states=18)
    params = jax.tree.map(lambda leaf: leaf * 0, shapes)  # the U-Net says 0
    levels = jnp.arange(18, dtype=jnp.int32)[:, None, None, None]
    out = np.asarray(apply(params, jnp.tile(levels, (1, 2, 2, 1)), jnp.ones(18)))[:, 0, 0, 0]
    np.testing.assert_array_equal(out[:17].argmax(-1)[4:13], np.arange(4, 13))
    np.testing.assert_allclose(out[17], out[17, ::-1], atol=1e-5)
    np.testing.assert_allclose(out[17], out[8], atol=1e-5)  # grey in its mean, and a channel of its own says mask
    np.testing.assert_allclose(out[0], by_hand(np.tanh(np.float32(-1)), np.exp(np.float32(2)), 17), atol=1e-5)
    apply, params = made(states=18)
    grey, masked = (apply(params, jnp.full((1, 2, 2, 1), v, jnp.int32), jnp.ones(1)) for v in (8, 17))
    assert np.abs(grey - masked).max() > 1e-2


def test_an_id_that_is_no_state_says_nan():
    apply, params = made()
    x, c = images(17)
    for wrong in (17, -1):
        assert np.all(np.isnan(apply(params, x.at[0, 1, 2, 0].set(wrong), c)[0, 1, 2, 0]))


def test_mistakes():
    apply, params = made(states=18)
    with pytest.raises(InputError, match=r"ids of shape \(2, 4, 4, 3\): expected \(batch, \*sizes, 1\)"):
        apply(params, images(18, 3)[0], jnp.ones(2))
    with pytest.raises(InputError, match=r"probabilities of shape \(2, 4, 4, 1, 17\): expected .*, 1, 18\)"):
        apply(params, jnp.ones((2, 4, 4, 1, 17)), jnp.ones(2))
    for options in ({"vocab": 1}, {"channels": 0}, {"states": 19}):
        with pytest.raises(InputError, match=next(iter(options))):
            made(**options)


def test_rows_are_images():
    (apply, params), (flat, same) = made(states=18), made(states=18, rows=(4, 4, 1))
    jax.tree.map(np.testing.assert_array_equal, params, same)
    x, c = images(18)
    out = apply(params, x, c)
    np.testing.assert_array_equal(flat(params, x.reshape(2, 16), c), out.reshape(2, 16, 17))
    hot = np.float32(np.arange(18) == x[..., None])
    np.testing.assert_array_equal(flat(params, hot.reshape(2, 16, 18), c), apply(params, hot, c).reshape(2, 16, 17))
    with pytest.raises(InputError, match=r"shape \(2, 15\): this network reads rows of 16 tokens"):
        flat(params, x.reshape(2, 16)[:, 1:], c)
    with pytest.raises(InputError, match=r"rows=\(4, 4, 2\), channels=1"):
        made(rows=(4, 4, 2))
