"""Averages made afterwards: the published solution, exact where the wanted one is stored, and beside the averages that
a run of its own would have kept."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff import training
from jaxdiff.errors import InputError
from jaxdiff.training import ema, post_hoc
from jaxdiff.training.snapshots import PREFIX, Snapshot, stored

pytestmark = pytest.mark.claim("post-hoc EMA solves the published example, and its error falls with the snapshots")


STEPS, BATCH = 512, 64
STORED = (0.05, 0.10)
LIKE = {"net": {"weight": jax.ShapeDtypeStruct((3, 4), jnp.float32)}, "gain": jax.ShapeDtypeStruct((), jnp.float32)}


def parameters():
    """A run of 512 steps as an optimiser makes one: an approach to somewhere, and a random walk around it."""
    rng = np.random.default_rng(5)
    steps = np.arange(1, STEPS + 1)[:, None]
    weight = np.exp(-steps / 120) * rng.normal(size=12) + np.cumsum(rng.normal(size=(STEPS, 12)), 0) * 0.02
    gain = 1 + 0.5 * np.sqrt(steps / STEPS)
    return np.concatenate([weight, gain], 1)


PARAMS = parameters()


def averages(width):
    """The running average of this width after each step, (512, 13) in float64, by the weights that training uses."""
    kind, average, rows = ema.widths(width)[str(width)], np.zeros(13), []
    with jax.enable_x64(True):
        seen = jnp.arange(STEPS, dtype=jnp.float64) * BATCH
        shares = np.asarray(jax.vmap(lambda s: kind(jnp.int32(0), s, jnp.float64(BATCH)))(seen))
    for share, now in zip(shares, PARAMS, strict=True):
        average = (1 - share) * average + share * now
        rows.append(average)
    return np.array(rows)


AVERAGES = {width: averages(width) for width in (0.03, 0.05, 0.07, 0.10, 0.15, 0.20)}


def write(directory, count, dtype=np.float32, widths=STORED):
    """`count` evenly spaced snapshots of each width."""
    directory.mkdir()
    for step in np.arange(1, count + 1) * (STEPS // count):
        for width in widths:
            row = AVERAGES[width][step - 1]
            arrays = {"net/weight": row[:12].reshape(3, 4), "gain": row[12]}
            np.savez(
                directory / f"{step * BATCH:012d}-{width}.npz",
                **{PREFIX + name: np.asarray(array, dtype) for name, array in arrays.items()},
            )
    return directory


def flat(tree):
    return np.append(np.asarray(tree["net"]["weight"]).ravel(), tree["gain"])


def test_the_published_solution():
    """EDM2's program for times 1 to 4 at widths .05 and .10, target .075 at time 4; it prints nine digits."""
    pairs = [(t, width) for width in (0.05, 0.10) for t in (1, 2, 3, 4)]
    published = [
        5.54645634e-08, 1.30897832e-04, 1.15816960e-02, 3.36424158e-01,
        -9.91480678e-07, -7.87984174e-04, -4.46650486e-02, 6.97317217e-01,
    ]  # fmt: skip
    found = post_hoc.weights(pairs, 4, 0.075)
    np.testing.assert_allclose(found, published, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-14)


def test_units_of_time_and_the_order_of_snapshots_do_not_matter():
    pairs = [(t, width) for width in (0.05, 0.10) for t in (1.0, 2.5, 4.0)]
    here = post_hoc.weights(pairs, 3.0, 0.12)
    np.testing.assert_allclose(post_hoc.weights([(8e6 * t, w) for t, w in pairs], 3 * 8e6, 0.12), here, rtol=1e-7)
    np.testing.assert_allclose(post_hoc.weights(pairs[::-1], 3.0, 0.12)[::-1], here, rtol=1e-7)


def test_inner_products_by_quadrature():
    """The shares are those of the least-squares fit of the profiles (g + 1) s^g / t^(g + 1) on [0, t] themselves,
    divided by their sum."""
    pairs, t, width = [(1.0, 0.05), (2.0, 0.05), (1.0, 0.1), (2.0, 0.1)], 2.0, 0.08
    x = post_hoc.weights(pairs, t, width)
    s = np.linspace(0, 2, 400_001)

    def profile(t, width):
        g = ema.exponent(width)
        return np.where(s <= t, (g + 1) * (s / t) ** g / t, 0)

    wanted, profiles = profile(t, width), np.array([profile(*pair) for pair in pairs])
    free = np.linalg.solve(profiles @ profiles.T, profiles @ wanted)  # the integrals' common step cancels
    np.testing.assert_allclose(x, free / free.sum(), atol=2e-4)


@pytest.mark.parametrize("width", STORED)
@pytest.mark.parametrize("index", [0, 3, 7])
def test_a_stored_average_is_returned_as_it_is(tmp_path, width, index):
    directory = write(tmp_path / "run", 8)
    at = (index + 1) * (STEPS // 8)
    back = post_hoc.reconstruct(directory, width, LIKE, t=at * BATCH)
    np.testing.assert_allclose(flat(back), AVERAGES[width][at - 1], rtol=1e-6, atol=1e-6)
    assert jax.tree.structure(back) == jax.tree.structure(LIKE)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("width", [0.07, 0.15, 0.20])
def test_other_widths_approach_what_a_run_of_their_own_keeps(tmp_path, width):
    """Twice the snapshots, a fraction of the error, down to what the finite steps of the run allow."""
    errors = []
    for count in (2, 4, 8, 16, 32):
        directory = write(tmp_path / str(count), count)
        back = post_hoc.reconstruct(directory, width, LIKE)
        errors.append(np.linalg.norm(flat(back) - AVERAGES[width][-1]))
    spread = np.linalg.norm(AVERAGES[0.05][-1] - AVERAGES[width][-1])  # what taking a stored one instead would cost
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(errors[:4])), errors
    assert errors[-1] < 0.01 * spread


def test_what_came_later_is_left_out(tmp_path):
    late, early = write(tmp_path / "late", 8), write(tmp_path / "early", 8)
    for snapshot in stored(early):
        if snapshot.position > 256 * BATCH:
            snapshot.path.unlink()
    one, two = (flat(post_hoc.reconstruct(where, 0.07, LIKE, t=256 * BATCH)) for where in (late, early))
    np.testing.assert_array_equal(one, two)
    assert np.linalg.norm(one - AVERAGES[0.07][255]) < 0.1 * np.linalg.norm(one - AVERAGES[0.07][-1])


def test_float16_files_cost_their_rounding(tmp_path):
    long, short = (write(tmp_path / str(dtype), 16, dtype) for dtype in ("float32", "float16"))
    exact, rounded = (flat(post_hoc.reconstruct(directory, 0.07, LIKE)) for directory in (long, short))
    pairs = [(s.position, s.sigma_rel) for s in stored(long)]
    shares = post_hoc.weights(pairs, pairs[-1][0], 0.07)
    bound = np.abs(shares).sum() * 2.0**-11 * np.abs(PARAMS).max()
    assert 1e-6 < np.abs(rounded - exact).max() < bound


def test_snapshots_may_be_chosen(tmp_path):
    directory = write(tmp_path / "run", 8)
    few = [snapshot for snapshot in stored(directory) if snapshot.position > 4 * STEPS // 8 * BATCH]
    near, all_of_them = (flat(post_hoc.reconstruct(which, 0.05, LIKE)) for which in (few, directory))
    np.testing.assert_allclose(near, all_of_them, atol=1e-5)


def test_a_run_and_its_snapshots_end_to_end(tmp_path):
    """The averages that `fit` keeps, reconstructed at a third width that the same run has tracked beside them."""
    targets = jnp.asarray(PARAMS[:, :4], jnp.float32)

    def objective(params, key, batch):
        return jnp.sum((params["w"] - targets[batch["index"] // 4]) ** 2, axis=-1)

    optimizer, kinds = optax.sgd(0.4), ema.widths(0.05, 0.08, 0.10)
    state = training.init(jax.random.key(0), {"w": jnp.zeros(4)}, optimizer, ema=kinds)
    step = jax.jit(training.make_train_step(objective, optimizer, ema=kinds))
    snapshots = training.Snapshots(tmp_path, STORED, every=64, dtype="float32")
    batches = lambda position: {"index": np.arange(position, position + 4)}  # noqa: E731
    state = training.fit(state, step, batches, steps=256, snapshots=snapshots).state
    back = post_hoc.reconstruct(tmp_path, 0.08, like=state.params)
    error, spread = (jnp.linalg.norm(v - state.ema["0.08"]["w"]) for v in (back["w"], state.ema["0.05"]["w"]))
    assert error < 0.02 * spread
    np.testing.assert_allclose(post_hoc.reconstruct(tmp_path, 0.1, state.params)["w"], state.ema["0.1"]["w"], atol=1e-5)


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match="twice"):
        post_hoc.weights([(1, 0.05), (1, 0.05)], 1, 0.05)
    for pairs, t in (([], 1), ([(0, 0.05)], 1), ([(1, 0.05)], -1)):
        with pytest.raises(InputError, match="at least one, and all positive"):
            post_hoc.weights(pairs, t, 0.05)
    with pytest.raises(InputError, match=r"relative width is 0\.4"):
        post_hoc.weights([(1, 0.05)], 1, 0.4)
    with pytest.raises(InputError, match="no snapshot up to t = 0"):
        post_hoc.reconstruct(tmp_path, 0.05, LIKE)
    directory = write(tmp_path / "run", 2)
    with pytest.raises(InputError, match="no snapshot up to t = 3"):
        post_hoc.reconstruct(directory, 0.05, LIKE, t=3)
    with pytest.raises(InputError, match=r"bias is missing in it"):
        post_hoc.reconstruct(directory, 0.05, LIKE | {"bias": LIKE["gain"]})
    with pytest.raises(InputError, match=r"gain is only in the file"):
        post_hoc.reconstruct(directory, 0.05, {"net": LIKE["net"]})
    with pytest.raises(InputError, match=r"gain has shape \(\) there and \(2,\)"):
        post_hoc.reconstruct(directory, 0.05, LIKE | {"gain": jnp.zeros(2)})
    path = stored(directory)[1].path
    for damage in (lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:90] + b"\xff" + b[91:]):
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        with pytest.raises(InputError, match=r"0\.1\.npz is damaged.*remove it"):
            post_hoc.reconstruct(directory, 0.05, LIKE)
        path.write_bytes(whole)
    with pytest.raises(InputError, match="is damaged"):
        post_hoc.reconstruct([Snapshot(64, 0.05, tmp_path / "gone.npz")], 0.05, LIKE)
