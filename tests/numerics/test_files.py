"""A file is whole or not there: what was there stays on a full disk, a kill or a folder in the way."""

import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxdiff.numerics import files

KILLED = """
import os, pathlib, signal, sys
from jaxdiff.numerics import files
with files.replacing(pathlib.Path(sys.argv[1])) as draft:
    draft.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    assert files.write(tmp_path / "a.txt", "α\r\n") == tmp_path / "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == "α\r\n".encode()
    files.write(tmp_path / "a.txt", b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = files.write(tmp_path / "a.txt", "before")

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_kill_leaves_what_was_there(tmp_path):
    path = files.write(tmp_path / "a.txt", "before")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    files.write(path, "after")
    assert path.read_text() == "after"


def test_a_mistake_while_writing_leaves_what_was_there(tmp_path):
    path = files.write(tmp_path / "a.txt", "before")

    def stopped():
        with files.replacing(path) as draft:
            draft.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_in_the_way_stays_and_no_draft_is_left(tmp_path):
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "a.txt" / "inside").write_text("kept")
    with pytest.raises(IsADirectoryError):
        files.write(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt" / "inside").read_text() == "kept"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_no_folder_is_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "none" / "a.txt", "after")
    assert not os.listdir(tmp_path)


def test_arrays_come_back_from_an_npz(tmp_path):
    arrays = {
        "x": np.arange(6, dtype=np.int16).reshape(2, 3),
        "names": np.array(["a", "bc"]),
        "empty": np.zeros((0, 4)),
    }
    with np.load(io.BytesIO(files.npz(arrays)), allow_pickle=False) as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
    with pytest.raises(ValueError, match="pickle"):
        files.npz({"x": np.array([object()])})


def test_results_are_plain_json(tmp_path):
    tree = {"a": np.float32(0.5), 2: (np.arange(2), math.inf), "b": [np.nan, None, True, "text"], "c": np.array(np.nan)}
    wanted = {"a": 0.5, "2": [[0, 1], None], "b": [None, None, True, "text"], "c": None}
    assert files.plain(tree) == wanted
    text = files.write_json(tmp_path / "a.json", tree).read_text()
    assert json.loads(text) == wanted
    assert text == json.dumps(wanted, indent=2) + "\n"
