"""The map to model space is inverted exactly on every level, splits are true divisions, and every mistake is said."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.data import Images, digits, mnist_5k, to_model, to_pixels
from jaxdiff.errors import InputError


@pytest.mark.parametrize("levels", [2, 3, 17, 255, 256, 257, 1000, 65536])
def test_every_level_comes_back(levels):
    dtype = np.uint8 if levels <= 256 else np.uint16
    every = np.arange(levels).astype(dtype)
    x = to_model(every, levels)
    assert x.dtype == np.float32
    assert (x[0], x[-1]) == (-1, 1)
    np.testing.assert_array_equal(x, -x[::-1])
    np.testing.assert_array_equal(to_pixels(x, levels), every)
    assert to_pixels(x, levels).dtype == dtype


def test_values_round_to_the_nearest_level_and_clip():
    step = 2 / 255
    x = np.array([-9, -1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.49 * step, 9])
    np.testing.assert_array_equal(to_pixels(x, 256), [0, 0, 1, 255, 255])
    np.testing.assert_array_equal(to_pixels(jnp.asarray([0.5], jnp.bfloat16), 17), [12])


@pytest.mark.parametrize("load", [digits, mnist_5k])
def test_real_images_come_back(load):
    images = load()
    x = images.to_model()
    assert (x.min(), x.max()) == (-1, 1)
    np.testing.assert_array_equal(images.to_pixels(x), images.pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_diverged_sample_is_not_drawn(value):
    with pytest.raises(InputError, match=r"1 of 4 values .* NaN or infinite"):
        to_pixels(np.array([0, 0.5, value, 1]), 256)


def test_images_cannot_be_changed():
    images = digits()
    for part in (images.pixels, images.labels):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0


GREY = np.zeros((3, 4, 4, 1), np.uint8)
NAN = np.full((3, 4, 4, 1), 0.0)
NAN[1, 2, 2, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": NAN}, "row 1 holds NaN"),
        ({"pixels": GREY.astype(np.float32)}, "dtype float32; expected uint8"),
        ({"pixels": GREY[..., 0]}, r"shape \(3, 4, 4\); expected \(N, H, W, C\)"),
        ({"pixels": GREY[:0]}, "got no images"),
        ({"pixels": GREY[:, :0]}, r"shape \(3, 0, 4, 1\)"),
        ({"pixels": GREY + np.uint8(17), "levels": 17}, r"a pixel is 17; expected grey levels 0\.\.16"),
        ({"levels": 1}, "levels=1"),
        ({"labels": np.array([0, 1, 2]), "num_classes": 2}, r"from 0 to 2; expected 0\.\.1"),
        ({"labels": np.array([0, -1, 1]), "num_classes": 2}, "from -1 to 1"),
        ({"labels": np.array([0.0, 1, 1]), "num_classes": 2}, "dtype float64"),
        ({"labels": np.eye(3, dtype=int), "num_classes": 3}, r"shape \(3, 3\); expected \(3,\)"),
        ({"labels": np.array([0, 1]), "num_classes": 2}, r"shape \(2,\); expected \(3,\)"),
        ({"num_classes": 2}, "2 classes but no labels"),
        ({"labels": np.array([0, 1, 1]), "num_classes": 2, "class_names": ("a",)}, "1 class names; expected 2"),
    ],
)
def test_mistakes_in_parts(change, message):
    with pytest.raises(InputError, match=message):
        Images(**{"name": "mine", "pixels": GREY} | change)


@pytest.mark.parametrize(("held_out", "count"), [(0.2, 359), (297, 297), (1, 1), (1796, 1796), (0.999, 1795)])
def test_a_split_divides_the_set_and_each_class(held_out, count):
    images = digits()
    numbered = Images("n", np.arange(1797, dtype=np.uint16).reshape(-1, 1, 1, 1), images.labels, 10, levels=1797)
    train, out = numbered.split(held_out, seed=3)
    assert len(out) == count
    rows = [part.pixels.ravel() for part in (train, out)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(1797))
    for part, row in zip((train, out), rows, strict=True):
        np.testing.assert_array_equal(part.labels, images.labels[row])
        assert (np.diff(row.astype(int)) > 0).all()
    share = np.bincount(out.labels, minlength=10) - count * np.bincount(images.labels) / 1797
    assert np.abs(share).max() < 1


def test_a_split_hangs_on_the_seed_alone():
    images = digits()
    same, again, other = (images.split(0.5, seed)[1].pixels for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


def test_a_split_is_random_within_a_class():
    rows = Images("n", np.arange(1000, dtype=np.uint16).reshape(-1, 1, 1, 1), levels=1000).split(500)[1].pixels
    # the mean row of a fair draw of 500 from 1000: variance (N + 1) (N - k) / (12 k)
    assert abs(rows.mean() - 499.5) < 5 * (1001 * 500 / (12 * 500)) ** 0.5
    assert rows.min() < 50
    assert rows.max() > 950


@pytest.mark.parametrize("held_out", [0, 1797, -1, 0.0, 1.0, 1.5, 1e-9, float("nan"), True])
def test_a_split_without_a_part_is_refused(held_out):
    with pytest.raises(InputError, match="cannot hold out"):
        digits().split(held_out)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(InputError, match="data seed"):
        digits().split(0.5, seed)
