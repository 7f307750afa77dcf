"""An average is a set of weights on the parameters of each step; unit vectors as parameters read them off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.errors import InputError
from jaxdiff.training import ema


def weights(rate, n, batch, *, start=None):
    """Row i: the weights in the average after step i of the initial parameters (column 0) and of each step's."""
    average = ema.start(jnp.zeros(n + 1).at[0].set(1.0))
    rows = []
    for i in range(n):
        w = rate(jnp.int32(i), jnp.float32(i * batch), jnp.float32(batch))
        average = ema.update(average, jnp.zeros(n + 1).at[i + 1].set(1.0), w)
        rows.append(np.asarray(average))
    return np.array(rows)


@pytest.mark.parametrize("rate", [ema.half_life(1000), ema.decay(0.9), ema.power(6.94)], ids=["half", "decay", "power"])
def test_debiased_from_the_first_step(rate):
    rows = weights(rate, 12, 64)
    np.testing.assert_array_equal(rows[0], np.eye(13)[1])
    assert not rows[:, 0].any()
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert (rows >= 0).all()


def test_half_life_is_one():
    """Without ramp, `examples` later every older weight is half; also across a change of batch size."""
    rows = weights(ema.half_life(1024, ramp=None), 64, 64)
    for i in range(48):
        np.testing.assert_allclose(rows[i + 16, : i + 2], 0.5 * rows[i, : i + 2], rtol=1e-5)
    np.testing.assert_allclose(rows[15, 0], 0.5, rtol=1e-5)
    np.testing.assert_allclose(weights(ema.half_life(1024, ramp=None), 2, 512)[1, 0], 0.5, rtol=1e-6)


def test_ramp_shortens_the_half_life():
    """From seen = n to n + ramp n, with steps much smaller than that, an old weight halves once."""
    batch, n = 1, 2000
    rate = ema.half_life(1e9, ramp=0.05)
    steps = jnp.arange(n, n + 100)
    w = jax.vmap(lambda i: rate(i, i.astype(jnp.float32), jnp.float32(batch)))(steps)
    exact = np.prod([0.5 ** (1 / (0.05 * i)) for i in range(n, n + 100)])
    np.testing.assert_allclose(np.prod(1 - np.asarray(w)), exact, rtol=1e-5)
    assert abs(exact - 0.5) < 0.02
    capped = ema.half_life(50, ramp=0.05)(jnp.int32(9), jnp.float32(5000.0), jnp.float32(50.0))
    np.testing.assert_allclose(capped, 0.5, rtol=1e-6)


def test_constant_decay_closed_form():
    beta, n = 0.8, 9
    exact = (1 - beta) * beta ** np.arange(n - 1, -1, -1.0) / (1 - beta**n)
    np.testing.assert_allclose(weights(ema.decay(beta), n, 7)[-1, 1:], exact, rtol=1e-5)


def test_power_matches_the_published_value():
    """EDM2's program at 8 Mi images (after the step), batch 2048: beta = .9956213349299015 for sigma_rel = 5 %."""
    seen = 8 * 2**20 - 2048
    w = ema.power(16.972198602303447)(jnp.int32(0), jnp.float32(seen), jnp.float32(2048))
    np.testing.assert_allclose(w, 1 - 0.9956213349299015, rtol=1e-5)
    np.testing.assert_allclose(weights(ema.power(0.0), 10, 3)[-1, 1:], 0.1, rtol=1e-5)


def test_long_average_keeps_its_precision():
    """50 million images at batch 512: 1 - 0.5^x formed in float32 would be off by a percent."""
    w = ema.half_life(5e7, ramp=None)(jnp.int32(0), jnp.float32(0), jnp.float32(512))
    np.testing.assert_allclose(w, -np.expm1(-np.log(2) * 512 / 5e7), rtol=1e-6)


def test_short_dtypes_are_averaged_in_float32():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    average = ema.start(jax.tree.map(jnp.zeros_like, params))
    for _ in range(100):
        average = ema.update(average, params, jnp.float32(1e-4))
    assert average["w"].dtype == jnp.float32
    np.testing.assert_allclose(average["w"], 1 - (1 - 1e-4) ** 100, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda: ema.half_life(0), lambda: ema.half_life(1, ramp=0.0), lambda: ema.decay(1.0), lambda: ema.power(-1)],
)
def test_mistakes_in_a_range(make):
    with pytest.raises(InputError, match="expected"):
        make()
