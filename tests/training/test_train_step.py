"""One update: against gradient descent done by hand on linear regression, and against itself cut in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_run import BATCH, batches, objective, parameters, same_bits, stratified

from jaxdiff import training
from jaxdiff.errors import InputError

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = X @ np.float32([1, -2, 3])
LINE = {"index": np.arange(8), "x": X, "y": Y}


def squared(params, key, batch):
    return (batch["x"] @ params - batch["y"]) ** 2


def test_gradient_and_step_by_hand(key):
    optimizer = optax.sgd(0.1)
    state = training.init(key, jnp.zeros(3), optimizer)
    loss, grads = training.make_gradients(squared)(state, LINE)
    exact = 2 * X.T @ (-Y) / 8
    np.testing.assert_allclose(grads, exact, rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(Y**2), rtol=1e-6)
    new, metrics = training.make_train_step(squared, optimizer)(state, LINE)
    np.testing.assert_allclose(new.params, -0.1 * exact, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(exact), rtol=1e-5)
    assert (int(new.step), int(new.position), bool(metrics["finite"])) == (1, 8, True)


def test_regression_is_solved(key):
    optimizer = optax.adam(0.1)
    state = training.init(key, jnp.zeros(3), optimizer, ema=training.ema.decay(0.9))
    step = jax.jit(training.make_train_step(squared, optimizer, ema=training.ema.decay(0.9)))
    for _ in range(400):
        state, _ = step(state, LINE)
    np.testing.assert_allclose(state.params, [1, -2, 3], atol=1e-3)
    np.testing.assert_allclose(state.ema, [1, -2, 3], atol=1e-3)


@pytest.mark.parametrize(("loss", "k"), [(objective, 8), (stratified, 2)], ids=["per_example", "stratified"])
def test_accumulation_changes_nothing(key, loss, k):
    state = training.init(key, parameters(key), optax.sgd(0.1))
    whole = jax.jit(training.make_gradients(loss))(state, batches(0))
    cut = jax.jit(training.make_gradients(loss, accumulate=k))(state, batches(0))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * float(jnp.max(jnp.abs(a))), rtol=1e-6)


def test_an_example_has_its_own_noise(key):
    """The loss of an example does not depend on its neighbours, and changes with the step and with its place."""
    batch = batches(0)
    losses = objective(parameters(key), key, batch)
    back = objective(parameters(key), key, jax.tree.map(lambda leaf: leaf[::-1], batch))
    np.testing.assert_allclose(losses, back[::-1], rtol=1e-5)
    same = {"index": np.arange(4), "x": np.repeat(batch["x"][:1], 4, 0)}
    assert len(np.unique(objective(parameters(key), key, same))) == 4


def test_strata_are_even(key):
    levels = []

    def spy(params, key, batch):
        levels.append((jax.random.uniform(key) + (batch["index"] % BATCH).astype(jnp.float32) / BATCH) % 1.0)
        return levels[-1] * params

    state = training.init(key, jnp.float32(1), optax.sgd(0.1))
    training.make_gradients(lambda p, k, b: jax.lax.stop_gradient(spy(jnp.float32(1), k, b)) * p)(state, batches(32))
    np.testing.assert_allclose(np.diff(np.sort(levels[0])), 1 / BATCH, atol=1e-6)


def test_clipping_bounds_the_step(key):
    optimizer = training.clipped(optax.sgd(1.0), 0.5)
    state = training.init(key, jnp.zeros(3), optimizer)
    new, metrics = training.make_train_step(squared, optimizer)(state, LINE)
    np.testing.assert_allclose(np.linalg.norm(new.params), 0.5, rtol=1e-5)
    assert metrics["grad_norm"] > 0.5


def test_ramp(key):
    """EDM's first step learns nothing, ours does; both reach the peak after `examples` and stay there."""
    ours, edm = training.ramp(2.0, 80, 8), training.ramp(2.0, 80, 8, from_zero=True)
    np.testing.assert_allclose([edm(i) for i in (0, 5, 10, 11)], [0, 1, 2, 2])
    np.testing.assert_allclose([ours(i) for i in (0, 4, 9, 10)], [0.2, 1, 2, 2], rtol=1e-6)
    optimizer = optax.sgd(edm)
    state = training.init(key, jnp.ones(3), optimizer)
    new, _ = training.make_train_step(squared, optimizer)(state, LINE)
    np.testing.assert_array_equal(new.params, state.params)
    assert training.ramp(2.0, 0, 8)(0) == 2.0
    with pytest.raises(InputError, match="expected"):
        training.ramp(1.0, 10, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_step_freezes_the_state(key, bad):
    optimizer, average = optax.adam(0.1), training.ema.half_life(100)
    state = training.init(key, jnp.zeros(3), optimizer, ema=average)
    step = jax.jit(training.make_train_step(squared, optimizer, ema=average))
    good, _ = step(state, LINE)
    frozen, metrics = step(good, {**LINE, "y": np.full(8, bad, np.float32)})
    assert not metrics["finite"]
    assert not np.isfinite(metrics["loss"])
    later, metrics = step(frozen, LINE)
    assert not metrics["finite"]
    assert np.isfinite(metrics["loss"])
    for state in (frozen, later):
        assert not state.finite
        assert same_bits(
            [state.params, state.opt_state, state.ema, state.step, state.position],
            [good.params, good.opt_state, good.ema, good.step, good.position],
        )


def test_an_overflowing_update_is_caught(key):
    optimizer = optax.sgd(1e38)
    state = training.init(key, jnp.zeros(3), optimizer)
    new, metrics = training.make_train_step(squared, optimizer)(state, LINE)
    assert np.isfinite(metrics["loss"])
    assert not metrics["finite"]
    np.testing.assert_array_equal(new.params, 0)


def test_one_trace_for_many_steps(key):
    traces = []

    def counted(params, key, batch):
        traces.append(1)
        return squared(params, key, batch)

    state = training.init(key, jnp.zeros(3), optax.adam(0.1))
    step = training.data_parallel(training.make_train_step(counted, optax.adam(0.1)))
    for _ in range(3):
        state, _ = step(state, LINE)
    assert len(traces) == 1


def test_state_owns_its_arrays(key):
    """Donating the state leaves the caller's parameters and key alive."""
    params = jnp.zeros(3)
    state = training.init(key, params, optax.sgd(0.1), ema=training.ema.decay(0.9))
    training.data_parallel(training.make_train_step(squared, optax.sgd(0.1), ema=training.ema.decay(0.9)))(state, LINE)
    assert not params.is_deleted()
    jax.random.normal(key)


@pytest.mark.parametrize(
    ("loss", "batch", "message"),
    [
        (squared, {"x": X, "y": Y}, "index"),
        (squared, {**LINE, "y": Y[:4]}, "batch leaf y"),
        (lambda p, k, b: jnp.mean(squared(p, k, b)), LINE, "per_example"),
    ],
)
def test_mistakes(key, loss, batch, message):
    state = training.init(key, jnp.zeros(3), optax.sgd(0.1))
    with pytest.raises(InputError, match=message):
        training.make_gradients(loss)(state, batch)


def test_accumulate_must_divide(key):
    state = training.init(key, jnp.zeros(3), optax.sgd(0.1))
    with pytest.raises(InputError, match="accumulate=3"):
        training.make_gradients(squared, accumulate=3)(state, LINE)
    with pytest.raises(InputError, match="accumulate is 0"):
        training.make_gradients(squared, accumulate=0)
