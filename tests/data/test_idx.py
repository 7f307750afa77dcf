"""Idx files written here from the format's description, with real digits inside, are read back exactly."""

import gzip
import struct

import numpy as np
import pytest

from jaxdiff.data import fashion_mnist, mnist, mnist_5k
from jaxdiff.data.idx import FASHION_MNIST
from jaxdiff.errors import InputError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def digits_28():
    images = mnist_5k()
    rows = np.arange(0, 5000, 50)
    return images.pixels[rows, :, :, 0], images.labels[rows]


@pytest.fixture
def folder(tmp_path, digits_28):
    pixels, labels = digits_28
    for name, array in zip(FILES, (pixels[:80], labels[:80], pixels[80:], labels[80:]), strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path


@pytest.mark.parametrize(("split", "rows"), [("all", slice(0, 100)), ("train", slice(0, 80)), ("test", slice(80, 100))])
def test_idx_files_are_read_back(folder, digits_28, split, rows):
    for images in (mnist(folder, split), fashion_mnist(split, folder=folder)):
        np.testing.assert_array_equal(images.pixels[..., 0], digits_28[0][rows])
        np.testing.assert_array_equal(images.labels, digits_28[1][rows])
        assert images.num_classes == 10


def test_unpacked_files_are_read_too(folder):
    want = mnist(folder).pixels
    for name in FILES:
        packed = folder / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    np.testing.assert_array_equal(mnist(folder).pixels, want)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: gzip.compress(data)[:-12], "is damaged"),
        (lambda data: gzip.compress(data[:-1]), "holds 62719 bytes"),
        (lambda data: gzip.compress(data + b"0"), "holds 62721 bytes"),
        (lambda data: gzip.compress(b"\0\0\x0d\x03" + data[4:]), "begins with bytes 00000d03; expected 00000803"),
        (lambda data: gzip.compress(data[:7]), "begins with bytes"),
        (lambda data: b"", "begins with bytes"),
    ],
)
def test_a_damaged_file_is_named(folder, damage, message):
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    with pytest.raises(InputError, match=f"{FILES[0]}.gz ({message})"):
        mnist(folder)


def test_labels_that_do_not_fit_are_refused(folder):
    (folder / f"{FILES[1]}.gz").write_bytes(gzip.compress(idx(np.full(80, 10))))
    with pytest.raises(InputError, match=r"from 10 to 10; expected 0\.\.9"):
        mnist(folder, "train")


def test_a_missing_file_names_its_cure(tmp_path):
    with pytest.raises(InputError, match="apt install dataset-fashion-mnist"):
        fashion_mnist(folder=tmp_path)
    with pytest.raises(InputError, match=f"has no {FILES[0]}.gz"):
        mnist(tmp_path)


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    train, test = fashion_mnist("train"), fashion_mnist("test")
    np.testing.assert_array_equal(np.bincount(train.labels), np.full(10, 6000))
    np.testing.assert_array_equal(np.bincount(test.labels), np.full(10, 1000))
    assert train.pixels.shape == (60000, 28, 28, 1)
