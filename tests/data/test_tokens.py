"""A set of sequences is checked, divides as a set of images does, takes its classes from properties, and batches."""

import itertools

import numpy as np
import pytest

from jaxdiff.data import (
    Tokens,
    digits,
    evaluation_batches,
    mnist_5k,
    sequences,
    training_batches,
    training_stream,
)
from jaxdiff.data.sequences import tokeniser as tokenisers
from jaxdiff.errors import InputError

DNA = tokenisers.dna()


def numbered(n, classes=3):
    """Sequences that say which row they are, in base 4."""
    tokens = np.arange(n)[:, None] // 4 ** np.arange(6) % 4
    labels = np.arange(n) % classes if classes else None
    return Tokens("numbered", tokens, DNA, labels, classes, properties={"row": np.arange(n)})


def rows(tokens):
    return tokens @ 4 ** np.arange(6)


def test_a_set_says_what_it_is():
    data = numbered(10)
    assert repr(data) == "Tokens('numbered', 10 of 6, 4 tokens, 3 classes)"
    assert (len(data), data.shape, data.vocab, data.tokens.dtype) == (10, (6,), 4, np.int32)
    assert data.texts()[5] == "CCAAAA"
    for part in (data.tokens, data.labels, data.properties["row"]):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0
    left = Tokens("some", np.array([[0, 1]]), DNA, omitted={"over the length": 7})
    assert repr(left) == "Tokens('some', 1 of 2, 4 tokens, no labels, left out 7 over the length)"


def test_rows_keep_what_belongs_to_them():
    part = numbered(20).take(np.array([7, 3]), "two")
    assert part.name == "two"
    assert rows(part.tokens).tolist() == part.properties["row"].tolist() == [7, 3]
    assert part.labels.tolist() == [1, 0]


@pytest.mark.parametrize("held_out", [30, 0.1])
def test_a_split_is_stratified_and_repeats(held_out):
    data = numbered(300)
    train, test = data.split(held_out, seed=4)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows(train.tokens), rows(test.tokens)])), np.arange(300))
    assert np.bincount(test.labels).tolist() == [10, 10, 10]
    assert (train.name, test.name) == ("numbered/train", "numbered/held-out")
    np.testing.assert_array_equal(data.split(held_out, seed=4)[1].tokens, test.tokens)
    assert rows(data.split(held_out, seed=5)[1].tokens).tolist() != rows(test.tokens).tolist()
    np.testing.assert_array_equal(rows(test.tokens), test.properties["row"])


def test_classes_from_a_property():
    data = numbered(100)
    top = data.labelled("row")
    assert (top.num_classes, top.labels.sum()) == (2, 10)
    np.testing.assert_array_equal(top.labels, np.arange(100) > 89.1)  # the .9 quantile of 0..99
    assert top.class_names == ("row <= 89.1", "row > 89.1")
    assert data.labelled("row", threshold=49).labels.sum() == 50
    for options, message in (
        ({"prop": "qed"}, "has no property 'qed'; it has row"),
        ({"prop": "row", "quantile": 1.0}, "quantile is 1.0"),
        ({"prop": "row", "threshold": 99}, "0 of 100 sequences have row above 99"),
    ):
        with pytest.raises(InputError, match=message):
            data.labelled(**options)
    with pytest.raises(InputError, match="qed of 1 sequences is not finite"):
        Tokens("nan", np.array([[0], [1]]), DNA, properties={"qed": np.array([np.nan, 1])}).labelled("qed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.array([[0.0, 1.0]])}, "dtype float64; expected whole numbers"),
        ({"tokens": np.array([0, 1])}, r"shape \(2,\); expected \(N, L\)"),
        ({"tokens": np.zeros((0, 3), int)}, r"shape \(0, 3\)"),
        ({"tokens": np.array([[0, 4]])}, "run from 0 to 4; expected 0..3 for a vocabulary of 4"),
        ({"tokens": np.array([[-1, 0]])}, "run from -1 to 0"),
        ({"labels": np.array([2]), "num_classes": 2}, "labels run from 2 to 2; expected 0..1"),
        (
            {"labels": np.array([0, 1]), "num_classes": 2},
            r"labels have shape \(2,\); expected \(1,\), one for each sequence",
        ),
        ({"labels": np.array([0.5]), "num_classes": 2}, "labels have dtype float64"),
        ({"num_classes": 2}, "2 classes but no labels"),
        ({"labels": np.array([0]), "num_classes": 2, "class_names": ("a",)}, "1 class names; expected 2"),
        ({"properties": {"qed": np.array([1.0, 2.0])}}, r"property qed has shape \(2,\); expected \(1,\)"),
    ],
)
def test_mistakes_in_a_part(change, message):
    with pytest.raises(InputError, match=message):
        Tokens(**{"name": "wrong", "tokens": np.array([[0, 1]]), "tokeniser": DNA} | change)


def test_batches_are_tokens():
    data = numbered(13)
    stream = training_stream(data, 5, seed=0)
    batch = stream[0]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "x0": ((5, 6), "int32"),
        "label": ((5,), "int32"),
        "index": ((5,), "int64"),
    }
    seen = np.concatenate([rows(stream[step]["x0"]) for step in range(8)])[:39].reshape(3, 13)
    np.testing.assert_array_equal(np.sort(seen, 1), np.tile(np.arange(13), (3, 1)))
    for step, batch in enumerate(itertools.islice(training_batches(data, 5, seed=0), 3)):
        np.testing.assert_array_equal(batch["x0"], stream[step]["x0"])
        np.testing.assert_array_equal(batch["label"], rows(batch["x0"]) % 3)
    batches = list(evaluation_batches(data, 5))
    x, mask = (np.concatenate([batch[k] for batch in batches]) for k in ("x0", "mask"))
    np.testing.assert_array_equal(x[mask], data.tokens)
    assert "label" not in training_stream(numbered(4, classes=0), 2, seed=0)[0]
    with pytest.raises(InputError, match="tokens cannot be mirrored"):
        training_stream(data, 5, seed=0, flip=True)
    with pytest.raises(InputError, match="the set has 13 examples"):
        training_stream(data, 14, seed=0)


def test_images_are_tokens_and_come_back():
    images = digits()
    data = sequences.from_images(images)
    assert repr(data) == "Tokens('digits', 1797 of 64, 17 tokens, 10 classes)"
    np.testing.assert_array_equal(data.tokeniser.pixels(data.tokens), images.pixels)
    np.testing.assert_array_equal(data.labels, images.labels)
    assert data.class_names == images.class_names
    np.testing.assert_array_equal(sequences.digits("test").labels, digits("test").labels)
    np.testing.assert_array_equal(data.tokens[3].reshape(8, 8), images.pixels[3, :, :, 0])  # line by line
    with pytest.raises(InputError, match=r"1 of 64 tokens lie outside the 17 grey levels, the first 17"):
        data.tokeniser.pixels(np.array([[17] + [0] * 63]))
    with pytest.raises(InputError, match=r"shape \(1, 63\); expected \(N, 64\)"):
        data.tokeniser.pixels(np.zeros((1, 63), np.int32))
    with pytest.raises(InputError, match="no text"):
        data.texts()


def test_levels_merge_into_equal_bins():
    images = mnist_5k(shrink=2)
    data = sequences.mnist_5k(shrink=2, levels=4)
    assert (data.shape, data.vocab) == ((196,), 4)
    np.testing.assert_array_equal(data.tokens.reshape(images.pixels.shape), images.pixels // 64)
    for levels in (1, 257):
        with pytest.raises(InputError, match=f"has 256 grey levels and cannot have {levels}"):
            sequences.from_images(images, levels=levels)
