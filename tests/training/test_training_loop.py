"""A run that is stopped, killed or broken carries on to the bits of one that was not; and the loop does not wait."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from digits_run import BATCH, CONFIG, IMAGES, batches, leaves, objective, parts, same_bits, train

from jaxdiff import training
from jaxdiff.errors import InputError
from jaxdiff.training.sinks import Sink

SCRIPT = Path(__file__).with_name("digits_run.py")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), 40).state


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_learns(uninterrupted):
    state, _ = parts(jax.random.key(1))
    batch = {"index": np.arange(200), "x": IMAGES[:200]}
    before, after = (jnp.mean(objective(p, jax.random.key(9), batch)) for p in (state.params, uninterrupted.params))
    assert after < 0.6 * before
    assert (int(uninterrupted.step), int(uninterrupted.position)) == (40, 40 * BATCH)


@pytest.mark.claim("a killed run continues to the same bits")
def test_killed_and_run_again(tmp_path, uninterrupted):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "40"]
    first = subprocess.Popen([*command, "0.05"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.time() + 60
    while not (tmp_path / "checkpoints" / "15").exists():
        assert first.poll() is None, first.communicate()
        assert time.time() < until
        time.sleep(0.005)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "final.npz").exists()
    done = subprocess.run([*command, "0"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "finished\n"), done.stderr
    with np.load(tmp_path / "final.npz") as final:
        for name, array in leaves(uninterrupted).items():
            assert final[name].tobytes() == array.tobytes(), name
    steps = [row["step"] for row in rows(tmp_path / "log.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[0] == 1
    assert steps[-1] == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_run_carries_on(tmp_path, uninterrupted, number):
    def interrupting(position):
        if position == 12 * BATCH:
            os.kill(os.getpid(), number)
        return batches(position)

    before = signal.getsignal(number)
    run = train(tmp_path, 40, batches=interrupting)
    assert run.status == "interrupted"
    assert int(run.state.step) == 13
    assert signal.getsignal(number) is before
    with training.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps()[-1] == 13
    again = train(tmp_path, 40)
    assert again.status == "finished"
    assert same_bits(again.state, uninterrupted)
    assert train(tmp_path, 40).status == "finished"  # nothing left to do


def test_second_interrupt_stops_at_once():
    def insisting(position):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return batches(position)

    state, step = parts(jax.random.key(1))
    with pytest.raises(KeyboardInterrupt):
        training.fit(state, step, insisting, steps=2)


def test_it_runs_in_a_thread(uninterrupted):
    found = []
    state, step = parts(jax.random.key(1))
    run = threading.Thread(
        target=lambda: found.append(training.fit(state, training.data_parallel(step), batches, steps=40))
    )
    run.start()
    run.join()
    assert same_bits(found[0].state, uninterrupted)


# TensorStore's threads answer to an event loop that Orbax has closed, once one array cannot be read.
@pytest.mark.filterwarnings(r"ignore:(?s).*Event loop is closed:pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoint_does_not_change_the_run(tmp_path, uninterrupted):
    train(tmp_path, 25)
    # All data files: some are drafts that the finished save no longer reads, and which those are is chance.
    for path in (tmp_path / "checkpoints" / "25").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:50])
    said = []
    state, step = parts(jax.random.key(1))
    with training.Checkpoints(tmp_path, CONFIG, say=said.append) as checkpoints:
        run = training.fit(
            state, training.data_parallel(step), batches, steps=40, checkpoints=checkpoints, save_every=5
        )
    assert len(said) == 1
    assert same_bits(run.state, uninterrupted)


def test_non_finite_loss_names_the_step(tmp_path, uninterrupted):
    def poisoned(position):
        batch = batches(position)
        return {**batch, "x": batch["x"] * np.float32(np.nan)} if position == 17 * BATCH else batch

    with pytest.raises(training.NonFiniteLoss, match=rf"step 18 is not finite.*position {17 * BATCH}") as caught:
        train(tmp_path, 40, batches=poisoned)
    assert (caught.value.step, caught.value.position) == (18, 17 * BATCH)
    with training.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps()[-1] == 15
    assert same_bits(train(tmp_path, 40).state, uninterrupted)  # with the batch mended, from the last good state


def test_an_iterator_must_stand_at_the_position(tmp_path, uninterrupted):
    train(tmp_path, 20)
    with pytest.raises(InputError, match="starts at data position 0, but the state has seen 320"):
        fit_stream(tmp_path, map(batches, range(0, 10**6, BATCH)), 40)
    run = fit_stream(tmp_path, map(batches, range(320, 10**6, BATCH)), 40)
    assert same_bits(run.state, uninterrupted)


def test_a_finite_stream_ends_the_run(tmp_path):
    run = fit_stream(tmp_path, [batches(0), batches(16), batches(32)], 40)
    assert run.status == "exhausted"
    with training.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]


def fit_stream(directory, stream, steps):
    state, step = parts(jax.random.key(1))
    with training.Checkpoints(directory, CONFIG) as checkpoints:
        return training.fit(
            state, training.data_parallel(step), stream, steps=steps, checkpoints=checkpoints, save_every=5
        )


def test_evaluation_chooses_the_best(tmp_path):
    scores = {5: 2.0, 10: 1.0, 15: 3.0, 20: 4.0, 25: 5.0}
    seen = []
    sink = Sink(lambda step: None, seen.append, lambda: None)
    state, step = parts(jax.random.key(1))
    with training.Checkpoints(tmp_path, CONFIG, metric="score") as checkpoints:
        training.fit(
            state,
            jax.jit(step),
            batches,
            steps=25,
            checkpoints=checkpoints,
            save_every=5,
            log=[sink],
            evaluate=lambda state: {"score": scores[int(state.step)]},
        )
        assert checkpoints.best_step() == 10
        assert checkpoints.steps() == [10, 20, 25]
    assert {r["step"]: r["score"] for r in seen if "score" in r} == scores
    assert seen[-1]["examples_per_second"] > 0


def test_records_are_means():
    seen = []
    state, step = parts(jax.random.key(1))
    step = jax.jit(step)
    training.fit(state, step, batches, steps=10, log=[Sink(lambda s: None, seen.append, lambda: None)], log_every=5)
    losses = []
    for i in range(10):
        state, metrics = step(state, batches(16 * i))
        losses.append(float(metrics["loss"]))
    assert [r["step"] for r in seen] == [1, 5, 10]
    assert [r["position"] for r in seen] == [16, 80, 160]
    means = [losses[0], np.mean(losses[1:5]), np.mean(losses[5:])]
    np.testing.assert_allclose([r["loss"] for r in seen], means, rtol=1e-6)


def test_it_does_not_wait_for_the_device():
    """Metrics are turned into numbers only where the loop logs: what each read sees is how far the loop had got."""
    made, read = [], []

    class Metric:
        def __array__(self, dtype=None, copy=None):
            read.append(len(made))
            return np.asarray(1.0, np.float32)

    def step(state, batch):
        made.append(batch)
        return state, {"loss": Metric(), "grad_norm": Metric(), "finite": True}

    state, _ = parts(jax.random.key(1))
    training.fit(state, step, batches, steps=20, log_every=10)
    assert set(read) == {1, 10, 20}


def test_sinks_are_closed_on_the_way_out():
    closed = []
    state, step = parts(jax.random.key(1))

    def broken(position):
        raise OSError("no such image")

    with pytest.raises(OSError, match="no such image"):
        training.fit(state, step, broken, steps=2, log=[Sink(lambda s: None, print, lambda: closed.append(1))])
    assert closed == [1]
    with pytest.raises(InputError, match="log_every = 0"):
        training.fit(state, step, batches, steps=2, log_every=0)
