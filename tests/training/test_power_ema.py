"""Power-function averages: EDM2's published numbers, several widths in one run, and a run that keeps snapshots."""

import dataclasses
import errno
import functools
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_run import BATCH, CONFIG, batches, objective, parameters, same_bits

from jaxdiff import training
from jaxdiff.errors import InputError
from jaxdiff.training import ema
from jaxdiff.training.snapshots import stored

GAMMAS = {0.05: 16.972198602303447, 0.10: 6.937203937601809, 0.15: 3.5578687748994646, 0.25: 0.71982395800071}
WIDTHS = (0.05, 0.10)
EVERY = 96  # examples: 6 steps


@pytest.mark.parametrize("width", GAMMAS)
def test_published_exponents(width):
    np.testing.assert_allclose(ema.exponent(width), GAMMAS[width], rtol=0, atol=1e-8)
    np.testing.assert_allclose(ema.sigma_rel(GAMMAS[width]), width, rtol=1e-12)


@pytest.mark.parametrize("width", [0.001, 0.01, 0.2, 0.28, 0.2886])
def test_the_relative_width_is_the_standard_deviation_of_the_weights(width):
    """p(s) = (g + 1) s^g on [0, 1], by Gauss-Laguerre quadrature in x = -(g + 1) ln s, which has the density e^-x."""
    x, w = np.polynomial.laguerre.laggauss(100)
    s = np.exp(-x / (ema.exponent(width) + 1))
    np.testing.assert_allclose(np.sqrt(np.sum(w * (s - np.sum(w * s)) ** 2)), width, rtol=1e-9)


@pytest.mark.parametrize(("width", "beta"), [(0.05, 0.9956213349299015), (0.10, 0.9980638462528358)])
def test_published_decay(width, beta, x64):
    """At 8 Mi images, batch 2048."""
    seen = jnp.float64(8 * 2**20 - 2048)
    w = ema.widths(width)[str(width)](jnp.int32(0), seen, jnp.float64(2048))
    np.testing.assert_allclose(1 - w, beta, rtol=0, atol=1e-12)


def test_mistakes_in_widths():
    for width in (0.0, -1.0, 0.3, math.nan):
        with pytest.raises(InputError, match=r"relative width is .* between 0 and 0\.2887"):
            ema.exponent(width)


def parts(key, average, **options):
    optimizer = optax.adam(1e-3)
    state = training.init(key, parameters(jax.random.key(0)), optimizer, ema=average)
    return state, jax.jit(training.make_train_step(objective, optimizer, ema=average, **options))


@functools.cache
def step_of_both():
    return parts(jax.random.key(1), ema.widths(*WIDTHS))[1]


def tracked(steps):
    """The state after so many steps that average over both widths."""
    state, step = parts(jax.random.key(1), ema.widths(*WIDTHS))[0], step_of_both()
    for i in range(steps):
        state, _ = step(state, batches(BATCH * i))
    return state


def run(steps, average):
    state, step = parts(jax.random.key(1), average)
    for i in range(steps):
        state, _ = step(state, batches(BATCH * i))
    return state


def test_several_averages_are_those_of_several_runs(tmp_path):
    """A tree of kinds gives the tree of what each gives alone, also through a checkpoint; one alone stays as it was."""
    both = run(4, {"long": ema.half_life(200), **ema.widths(*WIDTHS)})
    assert list(both.ema) == ["0.05", "0.1", "long"]
    for name, kind in (("long", ema.half_life(200)), ("0.1", ema.power(ema.exponent(0.1)))):
        alone = run(4, kind)
        assert same_bits(both.ema[name], alone.ema)
        assert same_bits(both.params, alone.params)
    assert run(1, None).ema is None
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(both, {"loss": 1.0})
        assert same_bits(checkpoints.restore(jax.eval_shape(lambda: both)), both)


@pytest.mark.parametrize(
    ("made", "given"),
    [(ema.widths(*WIDTHS), None), (ema.widths(*WIDTHS), ema.widths(0.2)), (ema.half_life(10), None)],
)
def test_averages_of_another_kind_are_refused(made, given):
    state, _ = parts(jax.random.key(1), given)
    _, step = parts(jax.random.key(1), made)
    with pytest.raises(InputError, match="give init the same ema as make_train_step"):
        step(state, batches(0))


def fit(directory, steps=30, *, every=EVERY, stop=None, save_every=4, **options):
    """A run of 30 steps with snapshots; at the batch at position `stop` a SIGTERM arrives."""

    def interrupting(position):
        if position == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return batches(position)

    state, step = parts(jax.random.key(1), ema.widths(*WIDTHS))[0], step_of_both()
    snapshots = training.Snapshots(directory / "snapshots", WIDTHS, every=every, **options)
    with training.Checkpoints(directory, CONFIG) as checkpoints:
        return training.fit(
            state, step, interrupting, steps=steps, checkpoints=checkpoints, save_every=save_every, snapshots=snapshots
        )


def contents(directory):
    found = {}
    for snapshot in stored(directory / "snapshots"):
        with np.load(snapshot.path) as arrays:
            found[snapshot[:2]] = {name: arrays[name].tobytes() for name in arrays.files}
    return found


def test_snapshots_are_the_averages_at_their_positions(tmp_path):
    final = fit(tmp_path, dtype="float32").state
    found = stored(tmp_path / "snapshots")
    positions = [n for n in range(EVERY, 30 * BATCH + 1, EVERY) for _ in WIDTHS]
    assert [(s.position, s.sigma_rel) for s in found] == list(zip(positions, WIDTHS * 5, strict=True))
    assert final.position == 30 * BATCH == positions[-1]
    for snapshot in (found[2], found[3], found[-1]):
        state = tracked(snapshot.position // BATCH)
        with np.load(snapshot.path) as arrays:
            assert {f"params/{name}" for name in ("encode", "bias", "decode")} == set(arrays.files)
            for name, leaf in state.ema[str(snapshot.sigma_rel)].items():
                np.testing.assert_array_equal(arrays[f"params/{name}"], leaf)


def test_a_stopped_run_neither_loses_nor_doubles_a_snapshot(tmp_path):
    """Ended at a snapshot, stopped by a signal, and killed after a snapshot, before its checkpoint."""
    fit(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert len(whole) == 10
    assert fit(tmp_path / "at", steps=EVERY // BATCH).status == "finished"
    assert fit(tmp_path / "signal", stop=7 * BATCH).status == "interrupted"
    for name in ("at", "signal"):
        assert fit(tmp_path / name).status == "finished"
        assert contents(tmp_path / name) == whole
    killed = tmp_path / "killed"
    fit(killed, steps=8)  # the newest checkpoint, and a snapshot at step 6
    late = killed / "snapshots" / f"{12 * BATCH + 5:012d}-0.05.npz"  # as it was written with other batches
    np.savez(late, junk=np.zeros(3))
    late.with_name("x.npz.tmp").write_bytes(b"half of a file")
    (killed / "snapshots" / "notes-of-mine.npz").write_bytes(b"")
    fit(killed)
    assert contents(killed) == whole
    assert (killed / "snapshots" / "notes-of-mine.npz").exists()
    assert not list((killed / "snapshots").glob("*.tmp"))


def test_a_period_that_no_batch_divides(tmp_path):
    """Every 40 examples in steps of 16: a snapshot at the first step that has passed a multiple."""
    fit(tmp_path, steps=10, every=40)
    assert [s.position for s in stored(tmp_path / "snapshots")[::2]] == [48, 80, 128, 160]


def state_of(average):
    state = training.init(jax.random.key(0), jnp.zeros(3), optax.sgd(1.0))
    return dataclasses.replace(state, ema=average, position=jnp.uint32(64))


def test_float16_files_and_what_does_not_fit_them(tmp_path):
    average = {"0.05": {"w": jnp.float32([1.0, 1 / 3, -2.5]), "deep": [jnp.arange(3), jnp.bfloat16(1.0)]}}
    training.Snapshots(tmp_path, [0.05], every=1).save(state_of(average))
    with np.load(stored(tmp_path)[0].path) as arrays:
        np.testing.assert_array_equal(arrays["params/w"], np.float16([1.0, 1 / 3, -2.5]))
        assert {name: str(arrays[name].dtype) for name in arrays.files} == {
            "params/w": "float16",
            "params/deep/0": "int32",
            "params/deep/1": "float16",
        }
    large = state_of({"0.05": {"w": jnp.float32([1.0, 1e5])}})
    with pytest.raises(InputError, match=r"the average of w reaches 1e\+05.*float16.*dtype=\"float32\""):
        training.Snapshots(tmp_path, [0.05], every=1).save(large)
    training.Snapshots(tmp_path / "wide", [0.05], every=1, dtype="float32").start(0)
    training.Snapshots(tmp_path / "wide", [0.05], every=1, dtype="float32").save(large)
    frozen = dataclasses.replace(state_of({"0.05": {"w": jnp.ones(2)}}), finite=jnp.bool_(False))
    training.Snapshots(tmp_path / "none", [0.05], every=1).save(frozen)
    assert stored(tmp_path / "none") == []


def test_mistakes(tmp_path, monkeypatch):
    for options in ({"widths": ()}, {"every": 0}, {"dtype": "bfloat16"}):
        with pytest.raises(InputError, match="Snapshots got"):
            training.Snapshots(tmp_path, **{"widths": [0.05], "every": 1} | options)
    with pytest.raises(InputError, match=r"relative width is 0\.5"):
        training.Snapshots(tmp_path, [0.5], every=1)
    snapshots = training.Snapshots(tmp_path, [0.07], every=1)
    with pytest.raises(InputError, match=r"width 0\.07 need that average, but the state holds 0\.05, 0\.1"):
        snapshots.save(state_of({"0.05": jnp.ones(2), "0.1": jnp.ones(2)}))
    with pytest.raises(InputError, match="one average or none"):
        snapshots.save(state_of(None))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(training.DiskFull, match="no space left to write"):
        snapshots.save(state_of({"0.07": jnp.ones(2)}))
    assert list(tmp_path.iterdir()) == []
