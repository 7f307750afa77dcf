"""On real digits: real data stand at the floor, copies beat it, noise misses it, and a split by writer is found out."""

import json

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxdiff.errors import InputError
from jaxdiff.metrics import as_text, caveats, evaluate, expected_coverage, flat, pca, pixels
from jaxdiff.metrics.report import DIRECTION

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = IMAGES.reshape(-1, 8, 8) / 16
ORDER = np.random.default_rng(0).permutation(len(IMAGES))
METRICS = list(DIRECTION)


def report(samples, train, heldout, features=None, requested=None, **options):
    labels = (LABELS[samples] if requested is None else requested, LABELS[train], LABELS[heldout])
    images = IMAGES[samples] if isinstance(samples, np.ndarray) and samples.ndim == 1 else samples
    return evaluate(
        images,
        IMAGES[train],
        IMAGES[heldout],
        features=features or pixels(),
        labels=labels,
        key=jax.random.key(1),
        **options,
    )


@pytest.fixture(scope="module")
def fresh():
    """360 real digits that neither set has, in the place of samples."""
    return report(ORDER[:360], ORDER[720:], ORDER[360:720], draws=12)


@pytest.fixture(scope="module")
def copies():
    return report(ORDER[360:1360], ORDER[360:], ORDER[:360], draws=5)


def test_real_data_stand_at_the_floor(fresh):
    print(as_text(fresh))
    assert [name for name in fresh if name != "counts"] == METRICS
    for name in METRICS:
        assert abs(fresh[name]["z"]) < 5, name
        assert abs(fresh[name]["heldout"] - fresh[name]["floor"]) < 5 * fresh[name]["floor_std"], name
    assert caveats(fresh) == []


def test_floors_have_the_means_that_theory_gives(fresh):
    # Unbiased metrics: a mean over 12 draws that overlap, so 5 standard deviations of one draw is far too kind: use 2.
    for name, exact in {"kernel": 0.0, "rbf": 0.0, "density": 1.0, "closer_to_train": 0.5}.items():
        assert abs(fresh[name]["floor"] - exact) < 2 * fresh[name]["floor_std"], name
        assert fresh[name]["floor_std"] < 0.1
    assert abs(fresh["coverage"]["floor"] - expected_coverage(360, 1077)) < 2 * fresh["coverage"]["floor_std"]
    assert fresh["class_agreement"]["floor"] > 0.97


def test_the_floor_is_near_zero_beside_noise(fresh):
    noise = IMAGES[ORDER[:360]] + 0.5 * np.random.default_rng(1).standard_normal((360, 8, 8))
    far = report(noise, ORDER[720:], ORDER[360:720], requested=LABELS[ORDER[:360]], draws=4)
    print(as_text(far))
    for name in ("frechet", "rbf", "sliced"):
        assert far[name]["value"] > 10 * abs(far[name]["floor"]), name
        assert far[name]["z"] > 20, name
    for name in ("density", "coverage"):
        assert far[name]["z"] < -10, name
    assert far["nearest"]["z"] > 10


def test_copies_of_the_training_set_are_better_than_real_and_said_to_be(copies):
    print(as_text(copies))
    assert copies["nearest"]["value"] == 0.0
    assert copies["frechet"]["value"] < copies["frechet"]["floor"]
    assert copies["precision"]["value"] == 1.0
    assert copies["closer_to_train"]["value"] > 0.58
    said = " ".join(caveats(copies))
    assert "copying" in said
    assert copies["counts"]["compared"] == 360  # the size of the held-out set
    assert copies["counts"]["samples"] == 1000


def test_wrong_classes_show_beside_a_right_floor():
    wrong = report(ORDER[:360], ORDER[720:], ORDER[360:720], requested=(LABELS[ORDER[:360]] + 1) % 10, draws=2)
    assert wrong["class_agreement"]["value"] < 0.03
    assert wrong["class_agreement"]["floor"] > 0.97


def test_a_split_in_file_order_is_found_out():
    # The file is in order of writers: its last fifth is other people's hands.
    rows = np.arange(len(IMAGES))
    by_writer = report(rows[::5], rows[:1437], rows[1437:], draws=4)
    said = [line for line in caveats(by_writer) if "not random" in line]
    assert len(said) == 1
    assert "recall" in said[0]


def test_few_samples_are_told_what_a_frechet_distance_is_worth():
    few = report(ORDER[:40], ORDER[400:800], ORDER[200:400], draws=3)
    assert "rank 39" in caveats(few)[0]
    assert few["counts"]["rank"] > 39
    assert any("gross errors" in line for line in caveats(few))
    reduced = report(ORDER[:40], ORDER[400:800], ORDER[200:400], features=pca(IMAGES[ORDER[400:800]], 8), draws=3)
    assert reduced["counts"]["rank"] == 8
    assert not any("frechet" in line for line in caveats(reduced))


def test_the_bias_of_few_samples_is_in_the_floor_too(fresh):
    # Frechet's bias grows as counts shrink; the floor has to grow along, or every small model looks bad.
    small = report(ORDER[:60], ORDER[720:], ORDER[360:720], draws=6)
    assert small["frechet"]["value"] > 2 * fresh["frechet"]["floor"]
    assert small["frechet"]["floor"] > 2 * fresh["frechet"]["floor"]
    assert abs(small["frechet"]["z"]) < 5


def test_a_report_is_plain_floats_that_a_logger_and_json_take(fresh):
    numbers = flat(fresh)
    assert all(type(value) is float for value in numbers.values())
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert {"frechet/value", "frechet/floor", "frechet/floor_std", "frechet/direction", "counts/compared"} <= set(
        numbers
    )
    text = as_text(fresh)
    assert all(name in text for name in METRICS)


def test_the_same_key_repeats_and_labels_are_optional():
    images = IMAGES[ORDER[:120]]
    one, two = (
        evaluate(images[:30], images[30:80], images[80:], features=pixels(), key=jax.random.key(3), draws=2)
        for _ in range(2)
    )
    assert one == two
    assert "class_agreement" not in one


def test_most_bounds_the_rows_used():
    some = report(ORDER[:300], ORDER[300:1200], ORDER[1200:], draws=2, most=100)
    assert (some["counts"]["compared"], some["counts"]["reference"], some["counts"]["train"]) == (100, 100, 900)


def test_labels_of_another_count_are_refused():
    with pytest.raises(InputError, match="labels of samples must be 360 integer classes"):
        report(ORDER[:360], ORDER[720:], ORDER[360:720], requested=LABELS[ORDER[:359]])
