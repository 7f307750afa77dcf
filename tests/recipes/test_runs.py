"""Through the command line: a run that is stopped, killed or broken goes on to the bits of one that was not, and one
that cannot go on says why in a sentence and loses nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager

from jaxdiff import cli, training
from jaxdiff.recipes.images import build
from jaxdiff.runs.folder import recall
from jaxdiff.runs.training import Stream

# TensorStore's threads answer to an event loop that Orbax has closed, once one array cannot be read.
pytestmark = pytest.mark.filterwarnings(r"ignore:(?s).*Event loop is closed:pytest.PytestUnraisableExceptionWarning")

BATCH = 16


def leaves(workdir):
    """The bits of the newest checkpoint: parameters, optimiser, averages."""
    like = jax.eval_shape(build(recall(workdir)).initial)
    with training.Checkpoints(workdir) as checkpoints:
        state = checkpoints.restore(like)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((state.params, state.opt_state, state.ema))]


def steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "log.jsonl").read_text().splitlines()]


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def at(monkeypatch, step, action):
    """`action(batch)` in place of the batch of that step, from 1."""
    read = Stream.__call__

    def call(self, position):
        batch = read(self, position)
        return action(batch) if position == (step - 1) * BATCH else batch

    monkeypatch.setattr(Stream, "__call__", call)


def test_sigterm_saves_and_the_same_command_goes_on(words, trained, tmp_path, monkeypatch, capsys):
    def interrupt(batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return batch

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at(patch, 13, interrupt)
        assert cli.main(words(run)) == 0
    said = capsys.readouterr()
    assert said.out == f"interrupted at step 13 in {run}; the same command goes on from here\n"
    assert saved(run)[-1] == 13
    assert cli.main(words(run)) == 0
    assert capsys.readouterr().out == f"finished at step 20 in {run}; now: jaxdiff evaluate --workdir={run}\n"
    assert leaves(run) == leaves(trained)
    assert steps(run) == sorted({*steps(run)})


@pytest.mark.claim("a killed run continues to the same bits")
def test_killed_and_run_again(words, tmp_path):
    """The killed process compiles to the same bits as this one, because its environment says all that ours does."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    changes = ("train.steps=60", "train.save_every=4", "train.log_every=3")
    command = [sys.executable, "-m", "jaxdiff.cli", *words(run, *changes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.time() + 120
    while not (run / "checkpoints" / "8").exists():
        assert process.poll() is None, process.communicate()
        assert time.time() < until
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert saved(run)[-1] < 60
    assert cli.main(words(run, *changes)) == 0
    assert cli.main(words(whole, "train.steps=60", "train.save_every=60")) == 0
    assert leaves(run) == leaves(whole)
    assert steps(run) == [1, *sorted({*steps(run)} - {1})]
    assert {*range(12, 61, 12)} <= {*steps(run)}


def test_more_steps_go_on_and_another_config_is_refused(words, spoiled, capsys):
    assert cli.main(words(spoiled, "train.steps=25", "sample.guidance=2.0")) == 0
    assert capsys.readouterr().out.startswith("finished at step 25 in")
    assert saved(spoiled)[-1] == 25
    before = leaves(spoiled)
    assert cli.main(words(spoiled, "process.sigma_max=20.0")) == 2
    said = capsys.readouterr().err
    assert "holds the run of another config (process.sigma_max is only here): give the same config" in said
    assert leaves(spoiled) == before
    assert recall(spoiled)["process"] == {"name": "edm"}


def test_truncated_newest_checkpoint(words, spoiled, trained, capsys):
    # All data files: some are drafts that the finished save no longer reads, and which those are is chance.
    for path in (spoiled / "checkpoints" / "20").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert cli.main(["sample", f"--workdir={spoiled}", "--n=2"]) == 0
    said = capsys.readouterr()
    assert "checkpoint 20 in" in said.out
    assert "is damaged, trying the one before" in said.out
    assert "edm from step 10: 2/2" in said.err
    assert cli.main(words(spoiled)) == 0
    assert "checkpoint 20 in" in capsys.readouterr().out
    assert leaves(spoiled) == leaves(trained)
    assert steps(spoiled) == sorted({*steps(spoiled)})


def test_non_finite_loss_keeps_the_last_good_checkpoint(words, trained, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at(patch, 13, lambda batch: {**batch, "x0": batch["x0"] * np.float32(np.nan)})
        assert cli.main(words(run)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("jaxdiff: step 13 is not finite (loss nan")
    assert "lower the learning rate" in said
    assert saved(run) == [10]
    assert cli.main(words(run)) == 0
    assert leaves(run) == leaves(trained)


def test_absurd_learning_rate(words, tmp_path, capsys):
    assert cli.main(words(tmp_path, "train.learning_rate=1e30")) == 2
    assert "jaxdiff: step 1 is not finite" in capsys.readouterr().err


def test_full_disk(words, tmp_path, monkeypatch, capsys):
    """A file system that is really full is in tests/training; here is what the command line makes of it."""
    save = CheckpointManager.save

    def full(self, step, *args, **options):
        if step == 20:
            self.wait_until_finished()
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, step, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "save", full)
        assert cli.main(words(tmp_path)) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"jaxdiff: no space left to write in {tmp_path}; the checkpoints [10] are complete: free some"
    )
    assert saved(tmp_path) == [10]


def test_a_bug_keeps_its_traceback(words, tmp_path, monkeypatch):
    def bug(batch):
        raise KeyError("a bug")

    at(monkeypatch, 3, bug)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(words(tmp_path))
