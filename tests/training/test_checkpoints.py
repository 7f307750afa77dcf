"""What was saved comes back bit for bit; what is damaged, foreign or unfit is said; a full disk loses nothing."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from digits_run import CONFIG, batches, parameters, parts, same_bits

from jaxdiff import training
from jaxdiff.errors import InputError

# When one array of a damaged checkpoint cannot be read, TensorStore's threads still answer for the others, to an event
# loop that Orbax has closed by then.
pytestmark = pytest.mark.filterwarnings(r"ignore:(?s).*Event loop is closed:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def states():
    """The states after 0, 1, 2, ... steps."""
    state, step = parts(jax.random.key(1))
    step, found = jax.jit(step), [state]
    for i in range(6):
        found.append(step(found[-1], batches(16 * i))[0])
    return found


def saved(directory, states, losses, **options):
    with training.Checkpoints(directory, CONFIG, **options) as checkpoints:
        for state, loss in zip(states, losses, strict=True):
            checkpoints.save(state, {"loss": loss})
    return directory


def files(directory, step):
    found = [p for p in (directory / "checkpoints" / str(step)).rglob("*") if p.is_file()]
    return sorted(found, key=lambda path: path.stat().st_size)


def test_bits_come_back(tmp_path, states):
    """Keys of any kind, bfloat16, empty leaves, None, tuples: the state of a run is not always plain float32."""
    odd = training.init(
        jax.random.key(3, impl="rbg"),
        {"a": jnp.arange(3, dtype=jnp.bfloat16), "none": jnp.zeros((0, 2)), "deep": [{"b": jnp.float32(1)}]},
        optax.adam(1.0),
    )
    for name, state in {"plain": states[3], "odd": odd}.items():
        saved(tmp_path / name, [state], [1.0])
        with training.Checkpoints(tmp_path / name, CONFIG) as checkpoints:
            back = checkpoints.restore(state)
            abstract = checkpoints.restore(jax.eval_shape(lambda x: x, state))
        assert same_bits(state, back)
        assert same_bits(state, abstract)
        assert jax.random.key_impl(back.key) == jax.random.key_impl(state.key)
        assert jax.tree.structure(back) == jax.tree.structure(state)


def test_devices_come_back(tmp_path, states):
    saved(tmp_path, [states[2]], [1.0])
    spread = training.replicate(states[0], training.data_mesh())
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        back = checkpoints.restore(spread)
    assert same_bits(back, states[2])
    assert len(back.params["encode"].sharding.device_set) == 4


def test_saved_while_its_memory_is_reused(tmp_path):
    """The step after a save writes over the state that is still on its way to the disk."""
    state, step = parts(jax.random.key(1))
    step = training.data_parallel(step)
    state, _ = step(state, batches(0))
    copy = jax.tree.map(lambda x: jnp.array(x, copy=True), state)
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state, {"loss": 1.0})
        for i in range(1, 9):
            state, _ = step(state, batches(16 * i))
        assert same_bits(checkpoints.restore(copy), copy)


def test_newest_and_best_are_kept(tmp_path, states):
    saved(tmp_path, states[:6], [5.0, 1.0, 4.0, 3.0, 2.0, np.nan])
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.steps() == [1, 4, 5]
        assert checkpoints.best_step() == 1
        assert same_bits(checkpoints.restore(states[0]), states[5])
        assert same_bits(checkpoints.restore(states[0], step=1), states[1])
        with pytest.raises(InputError, match=r"no checkpoint of step 3, only of \[1, 4, 5\]"):
            checkpoints.restore(states[0], step=3)
    high = tmp_path / "high"
    saved(high, states[:4], [1.0, 9.0, 2.0, 3.0], mode="max")
    with training.Checkpoints(high, CONFIG, mode="max") as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1, 2, 3], 1)


def truncate(directory):
    with files(directory, 3)[-1].open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)


def flip(directory):
    path = files(directory, 3)[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def empty_all(directory):
    for path in files(directory, 3):
        path.write_bytes(b"")


def lose_arrays(directory):
    shutil.rmtree(directory / "checkpoints" / "3" / "state")


@pytest.mark.parametrize("damage", [truncate, flip, empty_all, lose_arrays])
def test_damaged_newest_is_passed_over_aloud(tmp_path, states, damage):
    saved(tmp_path, states[1:4], [3.0, 2.0, 1.0])
    damage(tmp_path)
    said = []
    with training.Checkpoints(tmp_path, CONFIG, say=said.append) as checkpoints:
        back = checkpoints.restore(states[0])
        assert same_bits(back, states[2])
        assert len(said) == 1
        assert "checkpoint 3" in said[0]
        assert "\n" not in said[0]
        checkpoints.save(states[3], {"loss": 1.0})  # the run arrives at the same step again
        assert same_bits(checkpoints.restore(states[0]), states[3])
    assert len(said) == 1
    assert (tmp_path / "damaged-3").exists()


def test_all_damaged(tmp_path, states):
    saved(tmp_path, states[3:4], [1.0])
    truncate(tmp_path)
    with training.Checkpoints(tmp_path, CONFIG, say=lambda line: None) as checkpoints:
        with pytest.raises(InputError, match=r"each of the checkpoints \[3\]"):
            checkpoints.restore(states[0])
        with pytest.raises(InputError, match=r"checkpoint 3 .* is damaged"):
            checkpoints.restore(states[0], step=3)


def test_unfinished_save_is_no_checkpoint(tmp_path, states):
    saved(tmp_path, states[1:3], [1.0, 2.0])
    shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp")
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    assert not (tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp").exists()


def test_another_configs_run_is_refused(tmp_path):
    training.Checkpoints(tmp_path, CONFIG).close()
    training.Checkpoints(tmp_path, dict(reversed(CONFIG.items()))).close()  # order does not matter
    with pytest.raises(InputError, match=r"lr is 0\.003 there and 0\.1 here.*another directory"):
        training.Checkpoints(tmp_path, {**CONFIG, "lr": 0.1})
    with pytest.raises(InputError, match="extra is only here"):
        training.Checkpoints(tmp_path, {**CONFIG, "extra": None})
    nested = tmp_path / "nested"
    training.Checkpoints(nested, {"net": {"width": 1}}).close()
    with pytest.raises(InputError, match=r"\(net\.width is 1 there and 2 here\)"):
        training.Checkpoints(nested, {"net": {"width": 2}})


def test_foreign_directories(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        training.Checkpoints(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"no run\.json"):
        training.Checkpoints(tmp_path, CONFIG)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="not a run's description"):
        training.Checkpoints(tmp_path, CONFIG)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99, "config": CONFIG}))
    with pytest.raises(InputError, match="format 99"):
        training.Checkpoints(tmp_path, CONFIG)
    with pytest.raises(InputError, match="plain JSON values"):
        training.Checkpoints(tmp_path / "new", {"array": np.zeros(3)})


def test_reading_needs_no_config_and_writes_nothing(tmp_path, states):
    saved(tmp_path, states[1:3], [1.0, 2.0])
    before = sorted(tmp_path.rglob("*"))
    with training.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.config == CONFIG
        assert same_bits(checkpoints.restore(states[0]), states[2])
        with pytest.raises(InputError, match="opened to be read"):
            checkpoints.save(states[3], {"loss": 1.0})
    assert sorted(tmp_path.rglob("*")) == before


def test_another_network_is_refused(tmp_path, states):
    saved(tmp_path, [states[1]], [1.0])
    wide = training.init(jax.random.key(0), parameters(jax.random.key(0), width=25), optax.adam(1.0))
    with training.Checkpoints(tmp_path, CONFIG) as checkpoints:
        with pytest.raises(InputError, match=r"only .* has the leaf"):
            checkpoints.restore(wide)
        make = partial(parts, jax.random.key(1))
        state = make()[0]
        other = jax.tree.map(lambda x: x, state)
        object.__setattr__(other, "params", parameters(jax.random.key(0), width=25))
        with pytest.raises(InputError, match=r"params\.bias is float32\(24,\) in checkpoint 1.*float32\(25,\)"):
            checkpoints.restore(other)


def test_metric_must_be_given(tmp_path, states):
    with (
        training.Checkpoints(tmp_path, CONFIG, metric="fid") as checkpoints,
        pytest.raises(InputError, match=r"ranked by 'fid', but its metrics are \['loss'\]"),
    ):
        checkpoints.save(states[1], {"loss": 1.0})
    with pytest.raises(InputError, match="keep"):
        training.Checkpoints(tmp_path, CONFIG, keep=1)


def test_full_disk_at_once(tmp_path, states, monkeypatch):
    checkpoints = training.Checkpoints(tmp_path, CONFIG)
    checkpoints.save(states[1], {"loss": 1.0})
    checkpoints.wait()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(training.DiskFull, match=r"checkpoints \[1\] are complete"):
            checkpoints.save(states[2], {"loss": 1.0})
    assert same_bits(checkpoints.restore(states[0]), states[1])
    checkpoints.close()


def test_full_disk_in_the_background(tmp_path):
    """A run on a real file system of 400 KB: the save without room is an error, and the run goes on when there is."""
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine does not let a test mount a file system")
    code = f"""
import os, digits_run
from jaxdiff import training
directory = {str(tmp_path)!r}
try:
    digits_run.train(directory + "/run", 40)
except training.DiskFull as error:
    print(error)
with training.Checkpoints(directory + "/run") as checkpoints:
    print("loads", int(checkpoints.restore(digits_run.parts(digits_run.jax.random.key(1))[0]).step))
os.remove(directory + "/big")
print(digits_run.train(directory + "/run", 12, save_every=12).status)
"""
    mount = f"mount -t tmpfs -o size=400k none {tmp_path} && head -c 200000 /dev/zero > {tmp_path}/big"
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    stopped, loads, status = done.stdout.splitlines()
    assert stopped.startswith("no space left to write in")
    complete = json.loads(re.search(r"\[[\d, ]*\]", stopped).group())
    assert loads == f"loads {complete[-1]}"
    assert status == "finished"
    assert "No space left" not in done.stderr  # nor the pages that Orbax would log of it
