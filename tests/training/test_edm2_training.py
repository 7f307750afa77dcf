"""What EDM2 adds to a train step: weights projected before it, its learning rate, EDM's treatment of bad gradients; and
all of EDM2 in one small run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_run import IMAGES, same_bits
from flax import nnx

from jaxdiff import denoisers, losses, networks, parameterizations, processes, training
from jaxdiff.errors import InputError
from jaxdiff.networks.edm.edm2 import LEARNING_RATES
from jaxdiff.networks.edm.magnitude import normalize

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.stack([X @ np.float32([1, -2, 3]), X @ np.float32([2, 1, 0])], 1)
LINE = {"index": np.arange(8), "x": X, "y": Y}


def squared(params, key, batch):
    """Regression by the weight's direction and a gain."""
    y = batch["x"] @ normalize(params["weight"], 0) * params["gain"]
    return jnp.sum((y - batch["y"]) ** 2, axis=1)


def parameters(key, scale=1.25):
    """Two columns of magnitude 1.25, as after some steps."""
    drawn = jax.random.normal(key, (3, 2))
    return {"weight": scale * drawn / jnp.sqrt(jnp.mean(drawn**2, 0)), "gain": jnp.float32(2.0)}


def magnitudes(params):
    return np.sqrt(np.mean(np.asarray(params["weight"]) ** 2, axis=0))


def test_gradient_and_update_are_taken_at_the_projected_weights(key):
    optimizer, average = optax.sgd(0.1), training.ema.decay(0.9)
    params = parameters(key)
    state = training.init(key, params, optimizer, ema=average)
    here = {"weight": params["weight"] / 1.25, "gain": params["gain"]}
    exact = jax.grad(lambda p: jnp.mean(squared(p, None, LINE)))(here)
    step = training.make_train_step(squared, optimizer, ema=average, project=networks.project)
    new, metrics = step(state, LINE)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, here, exact)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new.params, moved)
    jax.tree.map(np.testing.assert_array_equal, new.ema, new.params)  # the first average: what the update made
    assert np.all(magnitudes(new.params) > 1.001)  # not projected again: the update is orthogonal, and lengthens
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(exact), rtol=1e-5)
    # Left out, the gradient of a weight 1.25 times too long is 1.25 times too small.
    _, plain = training.make_gradients(squared)(state, LINE)
    np.testing.assert_allclose(1.25 * plain["weight"], exact["weight"], atol=1e-4 * np.abs(exact["weight"]).max())
    np.testing.assert_allclose(plain["gain"], exact["gain"], rtol=2e-4)


def test_projected_weights_keep_their_length_and_others_grow(key):
    """A step of Adam changes no entry by more than about the learning rate, so no magnitude either."""
    rate, ends = 0.01, {}
    for name, project in {"with": networks.project, "without": None}.items():
        state = training.init(key, parameters(key, 1.0), optax.adam(rate))
        step = jax.jit(training.make_train_step(squared, optax.adam(rate), project=project))
        rows = []
        for i in range(150):
            noisy = LINE | {"y": Y + np.random.default_rng(i).normal(size=Y.shape).astype(np.float32)}
            state, _ = step(state, noisy)
            rows.append(magnitudes(state.params))
        ends[name] = np.array(rows)
    assert np.abs(ends["with"] - 1).max() < 2 * rate
    assert ends["without"][-1].max() - 1 > 4 * np.abs(ends["with"] - 1).max()


def test_projection_in_parts_on_devices_and_in_a_frozen_state(key):
    optimizer = optax.adam(0.1)
    state = training.init(key, parameters(key), optimizer)
    make = lambda **options: training.make_train_step(squared, optimizer, project=networks.project, **options)  # noqa: E731
    whole = jax.jit(make())(state, LINE)[0]
    parts = jax.jit(make(accumulate=4))(state, LINE)[0]
    spread = training.data_parallel(make(), donate=False)(state, LINE)[0]
    for other in (parts, spread):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other.params, whole.params)
    frozen, metrics = make()(state, LINE | {"y": np.full((8, 2), np.nan, np.float32)})
    assert not metrics["finite"]
    assert same_bits(frozen.params, state.params)


@pytest.mark.parametrize("preset", LEARNING_RATES)
@pytest.mark.parametrize("flat", [70_000, 35_000])
def test_learning_rate_of_the_published_presets(preset, flat):
    """lr(n) = lr_ref / sqrt(max(n / (t_ref batch), 1)) min(n / 10e6, 1), n images before the step."""
    peak, batch = LEARNING_RATES[preset], 2048
    schedule = training.inverse_sqrt(peak, batch, flat=flat, from_zero=True)
    counts = np.array([0, 1, 2441, 4882, 4883, 20_000, flat, 2 * flat, 4 * flat, 1_000_000])
    n = counts * batch
    exact = peak / np.sqrt(np.maximum(n / (flat * batch), 1)) * np.minimum(n / 10e6, 1)
    np.testing.assert_allclose([schedule(int(count)) for count in counts], exact, rtol=1e-6)
    np.testing.assert_allclose([schedule(0), schedule(4 * flat)], [0, peak / 2], rtol=1e-6)
    ours = training.inverse_sqrt(peak, batch, flat=flat)
    np.testing.assert_allclose([ours(int(count) - 1) for count in counts[1:]], exact[1:], rtol=1e-6)


def test_mistakes_in_schedules():
    with pytest.raises(InputError, match="inverse_sqrt got flat = 0"):
        training.inverse_sqrt(0.1, 16, flat=0)
    with pytest.raises(InputError, match="batch = 0"):
        training.inverse_sqrt(0.1, 0)
    assert training.inverse_sqrt(0.1, 16, flat=10, examples=0)(0) == pytest.approx(0.1)


def test_gradients_are_mended_when_asked(key):
    """NaN becomes 0 and an infinity +-1e5 (EDM's training loop); a step made without `mends` stops instead."""

    def bad(params, key, batch):
        return jnp.sum(params * jnp.float32([jnp.nan, jnp.inf, -jnp.inf, 2.0])) + 0 * batch["x"][:, 0]

    optimizer = training.mended(optax.sgd(1.0))
    state = training.init(key, jnp.ones(4), optimizer)
    new, metrics = training.make_train_step(bad, optimizer, mends=True)(state, LINE)
    np.testing.assert_array_equal(new.params, jnp.float32([1, 1 - 1e5, 1 + 1e5, -1]))
    assert (bool(metrics["finite"]), int(new.step)) == (True, 1)
    assert not np.isfinite(metrics["loss"])
    stopped, metrics = training.make_train_step(bad, optimizer)(state, LINE)
    assert not metrics["finite"]
    assert same_bits(stopped.params, state.params)
    huge = training.mended(optax.sgd(1e38), 1e5)
    state = training.init(key, jnp.ones(4), huge)
    assert not training.make_train_step(bad, huge, mends=True)(state, LINE)[1]["finite"]
    with pytest.raises(InputError, match="mended got limit = 0"):
        training.mended(optimizer, 0)


def test_all_of_edm2_in_one_run(key, tmp_path):
    """Digits at 8 x 8: network and learned uncertainty, projected steps, two averages with snapshots, a third made
    afterwards; the loss falls, and every average is a network."""
    batch_size, process = 16, processes.edm()
    apply, net = networks.functional(
        networks.edm2(1, 8, width=16, multipliers=(1,), blocks=1, attention=(), head=16, rngs=nnx.Rngs(0))
    )
    apply_u, uncertainty = networks.functional(networks.LogVariance(32, rngs=nnx.Rngs(1)))
    network = denoisers.from_network(apply, parameterizations.edm(0.5), process)
    inner = losses.matching(process, parameterizations.edm(0.5))

    def one(params, key, example):
        noise_key, level_key = jax.random.split(key)
        t = jnp.exp(1.2 * jax.random.normal(level_key) - 1.2) / 80
        loss = losses.uncertain(inner, losses.log_variance(apply_u, params["u"], process))
        return loss(noise_key, network(params["net"]), example["x"], t) / example["x"].size

    def batches(position):
        index = position + np.arange(batch_size)
        return {"index": index, "x": IMAGES[index % len(IMAGES)].reshape(-1, 8, 8, 1) - 0.5}

    kinds = training.ema.widths(0.05, 0.08, 0.1)
    optimizer = optax.adam(training.inverse_sqrt(0.02, batch_size, flat=50, examples=160))
    state = training.init(key, {"net": net, "u": uncertainty}, optimizer, ema=kinds)
    objective = training.per_example(one)
    step = training.make_train_step(objective, optimizer, ema=kinds, project=networks.project)
    batch = batches(10_000)
    measure = jax.jit(lambda params: jnp.mean(objective(params, key, batch)))
    before = measure(state.params)
    snapshots = training.Snapshots(tmp_path, (0.05, 0.1), every=10 * batch_size, dtype="float32")
    state = training.fit(state, jax.jit(step), batches, steps=60, snapshots=snapshots).state
    made = training.post_hoc.reconstruct(tmp_path, 0.08, like=state.params)
    after = {"made": measure(made), "tracked": measure(state.ema["0.08"]), "last": measure(state.params)}
    assert all(value < before - 0.3 for value in after.values()), (before, after)
    np.testing.assert_allclose(after["made"], after["tracked"], atol=5e-3)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        if leaf.ndim:
            size = jnp.sqrt(jnp.mean(leaf**2, axis=tuple(range(leaf.ndim - 1))))
            assert jnp.abs(size - 1).max() < 0.05, path
