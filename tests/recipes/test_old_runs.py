"""Folders that an earlier program wrote (tests/golden/runs): today's reads them, draws the same samples
and trains on to the same state. They are used as their owners would, by the command line alone."""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxdiff import cli

GOLDEN = Path(__file__).parents[1] / "golden" / "runs"
RUNS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
CONFIG = """import json, pathlib
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(json.loads(pathlib.Path({path!r}).read_text()))
"""


@pytest.fixture(params=RUNS)
def old(request, tmp_path):
    """(a copy of the folder, what the program that wrote it made of it)."""
    with np.load(GOLDEN / f"{request.param}.npz") as file:
        return shutil.copytree(GOLDEN / request.param, tmp_path / "run"), dict(file)


def agree(found, known, made, name):
    """Equal bits on the compiler and flags that made them; elsewhere sums are taken in another order, which a few steps
    of Adam make no more than 1e-4 of (a token's draw or a grey level changes only where it lay on the edge)."""
    same = (version("jaxlib"), os.environ.get("XLA_FLAGS"), os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS"))
    assert (found.dtype, found.shape) == (known.dtype, known.shape), name
    if same == tuple(made):
        np.testing.assert_array_equal(found, known, err_msg=name)
    elif found.dtype.kind == "f":
        np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4, err_msg=name)
    else:
        assert np.mean(found != known) < 0.01, name


def test_the_folders_are_there():
    assert {"images", "tokens"} <= set(RUNS)


def test_an_old_run_draws_what_it_drew(old, tmp_path):
    run, golden = old
    out = tmp_path / "x.npz"
    assert cli.main(["sample", f"--workdir={run}", "--n=6", "--seed=3", f"--out={out}"]) == 0
    with np.load(out) as found:
        known = {name.removeprefix("drawn/"): array for name, array in golden.items() if name.startswith("drawn/")}
        assert set(found) == set(known)
        for name, array in known.items():
            agree(found[name], array, golden["made"], name)


def test_an_old_run_trains_on_to_the_same_state(old, tmp_path):
    run, golden = old
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(path=str(run / "config.json")))
    fingerprint = (run / "run.json").read_bytes()
    assert cli.main(["train", f"--config={config}", f"--workdir={run}", "--config.train.steps=8"]) == 0
    assert (run / "run.json").read_bytes() == fingerprint
    found = leaves(run, 8)
    known = {name.removeprefix("leaves/"): array for name, array in golden.items() if name.startswith("leaves/")}
    assert set(found) == set(known)
    for name, array in known.items():
        agree(found[name], array, golden["made"], name)


def leaves(run, step):
    """The leaves of a checkpoint by name, as Orbax reads them."""
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(run / "checkpoints", options=options) as manager:
        found = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return {name: np.asarray(leaf) for name, leaf in found["state"].items()}
