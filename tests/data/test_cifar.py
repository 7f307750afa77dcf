"""The archive is read without trusting it: real arrays come back, and a pickle that names anything else is refused."""

import io
import os
import pickle
import subprocess
import tarfile

import numpy as np
import pytest

from jaxdiff.data import cifar10
from jaxdiff.errors import InputError

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def python2(rows, labels):
    """A batch as Python 2 and NumPy 1 wrote the true ones: byte strings, and `numpy.core.multiarray._reconstruct`."""
    data = rows.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01",
            b"M" + len(rows).to_bytes(2, "little") + b"M" + (3072).to_bytes(2, "little") + b"\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + len(data).to_bytes(4, "little") + data + b"tb",
            b"U\x06labels](" + b"".join(b"K" + bytes([k]) for k in labels) + b"eU\x0bbatch_labelU\x05batchu.",
        ]
    )


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return {n: (rng.integers(0, 256, (4, 3072), np.uint8), rng.integers(0, 10, 4).tolist()) for n in BATCHES}


@pytest.mark.parametrize("writer", ["python2", "protocol 2", "protocol 4"])
@pytest.mark.parametrize(("split", "names"), [("all", BATCHES), ("train", BATCHES[:5]), ("test", BATCHES[5:])])
def test_an_archive_is_read_back(tmp_path, truth, writer, split, names):
    def write(rows, labels):
        if writer == "python2":
            return python2(rows, labels)
        keys = (b"data", b"labels") if writer == "protocol 2" else ("data", "labels")
        return pickle.dumps(dict(zip(keys, (rows, labels), strict=True)), protocol=int(writer[-1]))

    path = tar(tmp_path / "cifar.tar.gz", {"batches.meta": b"x"} | {n: write(*truth[n]) for n in BATCHES})
    images = cifar10(path, split)
    rows = np.concatenate([truth[n][0] for n in names])
    np.testing.assert_array_equal(images.pixels.transpose(0, 3, 1, 2).reshape(-1, 3072), rows)
    np.testing.assert_array_equal(images.labels, np.concatenate([truth[n][1] for n in names]))
    # a row of the file is all red pixels, then all green, then all blue, each row by row
    assert images.pixels[0, 1, 2, 1] == rows[0, 1024 + 32 + 2]


def test_the_hand_written_pickle_is_a_true_one(truth):
    rows, labels = truth["test_batch"]
    batch = pickle.loads(python2(rows, labels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], rows)
    assert batch[b"labels"] == labels


class Touch:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda path: Touch(os.mkdir, path), r"posix\.mkdir"),
        (lambda path: Touch(eval, f"__import__('os').mkdir({path!r})"), r"builtins\.eval"),
        (lambda path: Touch(subprocess.check_call, ["mkdir", path]), r"subprocess\.check_call"),
        (lambda path: Touch(np.fromfile, path), "numpy.*fromfile"),
        (lambda path: Touch(getattr, "a", "upper"), r"builtins\.getattr"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name(tmp_path, attack, name):
    target = tmp_path / "owned"
    bad = pickle.dumps({"data": attack(str(target)), "labels": []}, protocol=2, fix_imports=False)
    path = tar(tmp_path / "cifar.tar.gz", dict.fromkeys(BATCHES, bad))
    with pytest.raises(InputError, match=f"data_batch_1 asks to run {name}, which is refused"):
        cifar10(path)
    assert not target.exists()


def dumped(value, protocol=2):
    return pickle.dumps(value, protocol=protocol)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (dumped([1, 2]), "damaged"),
        (dumped({"labels": [1]}), "damaged"),
        (dumped({"data": "text", "labels": [1]}), "damaged"),
        (dumped({"data": np.zeros((1, 3072)), "labels": [1]}), "not plain uint8"),
        (dumped({"data": np.array([[None]]), "labels": [1]}), "not plain uint8"),
        (dumped({"data": np.zeros((1, 3071), np.uint8), "labels": [1]}), r"shape \(1, 3071\)"),
        (dumped({"data": np.zeros((1, 3072), np.uint8), "labels": [1, 2]}), r"labels of shape \(2,\)"),
        (dumped({"data": np.zeros((1, 3072), np.uint8), "labels": [0.5]}), r"\(N,\) whole numbers"),
        (dumped({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}), r"from 10 to 10; expected 0\.\.9"),
        (
            python2(np.zeros((1, 3072), np.uint8), [1]).replace(b"M\x01\x00", b"M\xff\xff"),
            r"bytes for an array of shape",
        ),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R.", "asks for the codec .rot13."),
        (b"\x80\x02P1\n.", "damaged"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path, bad, message):
    path = tar(tmp_path / "cifar.tar.gz", dict.fromkeys(BATCHES, bad))
    with pytest.raises(InputError, match=message):
        cifar10(path, "test")


@pytest.mark.parametrize("keep", [0, 1, 100, -200])
def test_a_truncated_archive_is_named(tmp_path, truth, keep):
    path = tar(tmp_path / "cifar.tar.gz", {name: python2(*truth[name]) for name in BATCHES})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cifar\.tar\.gz (is damaged|has no file)"):
        cifar10(path)


def test_an_archive_without_a_batch_or_a_file_is_named(tmp_path, truth):
    path = tar(tmp_path / "cifar.tar.gz", {name: python2(*truth[name]) for name in BATCHES[:4]})
    with pytest.raises(InputError, match="has no file data_batch_5"):
        cifar10(path)
    with pytest.raises(InputError, match=r"does not exist.*download cifar-10-python\.tar\.gz"):
        cifar10(tmp_path / "none.tar.gz")


def test_a_batch_of_unlikely_size_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdiff.data.cifar.LARGEST", 1000)
    path = tar(tmp_path / "cifar.tar.gz", dict.fromkeys(BATCHES, bytes(1001)))
    with pytest.raises(InputError, match="has 1001 bytes; expected at most 1000"):
        cifar10(path)
