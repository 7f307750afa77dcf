"""The stream is a function of (seed, step): epochs are permutations, shards tile the batch, resuming is exact."""

import itertools
import json
import pickle

import grain
import numpy as np
import pytest

from jaxdiff.data import Images, digits, evaluation_batches, training_batches, training_stream
from jaxdiff.errors import InputError


def numbered(n, labelled=True, width=1):
    """Images whose every pixel says which row it is."""
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint16)[:, None, None, None], (n, 1, width, 1))
    return Images("numbered", pixels, np.arange(n) % 3 if labelled else None, 3 if labelled else 0, levels=max(n, 2))


def rows(images, batch):
    return images.to_pixels(batch["x0"])[:, 0, 0, 0].astype(int)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
        assert a[name].dtype == b[name].dtype


@pytest.mark.parametrize(("n", "batch_size"), [(12, 4), (13, 4), (7, 7), (5, 1), (1797, 128)])
def test_each_epoch_is_its_own_permutation(n, batch_size):
    images = numbered(n)
    stream = training_stream(images, batch_size, seed=0)
    batches = [stream[step] for step in range(-(-3 * n // batch_size))]
    seen = np.concatenate([rows(images, batch) for batch in batches])[: 3 * n].reshape(3, n)
    np.testing.assert_array_equal(np.sort(seen, 1), np.tile(np.arange(n), (3, 1)))
    assert len({tuple(epoch) for epoch in seen}) == 3
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in batches])[: 3 * n], np.arange(3 * n))
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in batches])[: 3 * n], seen.ravel() % 3)


def test_the_shuffle_is_uniform():
    images = numbered(6)
    stream = training_stream(images, 6, seed=1)
    table = np.zeros((6, 6))
    for step in range(3000):
        table[np.arange(6), rows(images, stream[step])] += 1
    # every row lands in every place 1/6 of the time: chi-square with 25 degrees of freedom, mean 25, variance 50
    assert ((table - 500) ** 2 / 500).sum() < 25 + 5 * 50**0.5


def test_a_batch_has_the_stated_shapes_and_kinds():
    images = digits()
    batch = training_stream(images, 32, seed=0)[3]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "x0": ((32, 8, 8, 1), "float32"),
        "label": ((32,), "int32"),
        "index": ((32,), "int64"),
    }
    assert (batch["x0"].min(), batch["x0"].max()) == (-1, 1)
    assert "label" not in training_stream(numbered(4, labelled=False), 2, seed=0)[0]


def test_seeds_differ():
    images = digits()
    a, b = (training_stream(images, 32, seed=seed)[0]["x0"] for seed in (0, 1))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("flip", [False, True])
def test_an_iterator_resumes_bit_for_bit_from_its_saved_state(flip):
    images = digits()
    straight = training_batches(images, 100, seed=5, flip=flip)
    truth = [next(straight) for _ in range(40)]
    first = training_batches(images, 100, seed=5, flip=flip)
    for step in range(23):
        assert_same(next(first), truth[step])
    saved = json.dumps(first.get_state())
    for _ in range(7):  # what ran after the save does not matter
        next(first)
    second = training_batches(images, 100, seed=5, flip=flip)
    second.set_state(json.loads(saved))
    third = training_batches(images, 100, seed=5, flip=flip, start=23)
    stream = training_stream(images, 100, seed=5, flip=flip)
    first.set_state(json.loads(saved))
    for step in range(23, 40):
        for batch in (next(first), next(second), next(third), stream[step]):
            assert_same(batch, truth[step])


def test_the_stream_does_not_hang_on_what_ran_before():
    images = digits()
    forward, backward = training_stream(images, 64, seed=2), training_stream(images, 64, seed=2)
    steps = [0, 500, 27, 28, 29, 10**9]
    for step in steps:
        forward[step]
    for step in reversed(steps):
        assert_same(backward[step], forward[step])
    assert_same(pickle.loads(pickle.dumps(forward[3])), forward[3])


def test_a_very_long_run_keeps_its_positions():
    last = 2**62 // 64
    batch = training_stream(digits(), 64, seed=0)[last]
    assert batch["index"][0] == last * 64
    assert batch["index"].dtype == np.int64


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shard_count", [1, 2, 4, 8])
def test_shards_tile_the_batch_of_one_process(shard_count, flip):
    images = digits()
    whole = training_stream(images, 64, seed=3, flip=flip)
    shards = [
        training_stream(images, 64, seed=3, flip=flip, shard_index=i, shard_count=shard_count)
        for i in range(shard_count)
    ]
    for step in (0, 27, 28, 29):
        parts = [shard[step] for shard in shards]
        assert all(len(part["index"]) == 64 // shard_count for part in parts)
        assert_same({k: np.concatenate([part[k] for part in parts]) for k in parts[0]}, whole[step])


def test_flips_are_fair_fresh_and_only_mirrors():
    n = 500
    pixels = np.tile(np.array([0, 1, 2], np.uint8), (n, 1)).reshape(n, 1, 3, 1)
    images = Images("ramp", pixels, levels=3)
    stream = training_stream(images, n, seed=0, flip=True)
    seen = np.stack([images.to_pixels(stream[step]["x0"])[:, 0, :, 0] for step in range(20)])
    mirrored = (seen == [2, 1, 0]).all(-1)
    assert (mirrored | (seen == [0, 1, 2]).all(-1)).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / mirrored.size**0.5
    between = (mirrored[1:] == mirrored[:-1]).mean()  # two epochs agree by chance only
    assert abs(between - 0.5) < 5 * 0.5 / mirrored[1:].size ** 0.5
    np.testing.assert_array_equal(images.pixels, pixels)


def test_flips_leave_the_order_alone():
    plain, flipped = (training_stream(digits(), 64, seed=0, flip=flip)[7] for flip in (False, True))
    np.testing.assert_array_equal(plain["label"], flipped["label"])
    straight = (plain["x0"] == flipped["x0"]).all((1, 2, 3))
    mirrored = (plain["x0"][:, :, ::-1] == flipped["x0"]).all((1, 2, 3))
    assert (straight | mirrored).all()
    assert 0 < straight.sum() < 64


@pytest.mark.parametrize(("batch_size", "count"), [(500, 4), (1797, 1), (599, 3), (1, 1797), (4000, 1)])
def test_evaluation_sees_each_image_once(batch_size, count):
    images = digits()
    batches = evaluation_batches(images, batch_size)
    assert len(batches) == count
    got = list(batches)
    assert all(len(batch[k]) == batch_size for batch in got for k in ("x0", "label", "index", "mask"))
    x, label, index, mask = (np.concatenate([batch[k] for batch in got]) for k in ("x0", "label", "index", "mask"))
    np.testing.assert_array_equal(index[mask], np.arange(1797))
    np.testing.assert_array_equal(x[mask], images.to_model())
    np.testing.assert_array_equal(label[mask], images.labels)
    np.testing.assert_array_equal(x[~mask], images.to_model()[index[~mask]])  # the filling is real images


def test_evaluation_shards_tile_the_batch():
    whole = evaluation_batches(digits(), 512)
    parts = [evaluation_batches(digits(), 512, shard_index=i, shard_count=4) for i in range(4)]
    for step in range(len(whole)):
        got = [part[step] for part in parts]
        assert_same({k: np.concatenate([g[k] for g in got]) for k in got[0]}, whole[step])


def test_streams_are_grains():
    stream = training_stream(digits(), 8, seed=0)
    assert isinstance(stream, grain.MapDataset)
    doubled = stream.map(lambda batch: batch | {"x0": 2 * batch["x0"]})
    np.testing.assert_array_equal(doubled[5]["x0"], 2 * stream[5]["x0"])
    iterator = training_batches(digits(), 8, seed=0)
    assert isinstance(iterator, grain.DatasetIterator)
    for step, batch in enumerate(itertools.islice(iterator, 3)):
        assert_same(batch, stream[step])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size is 0; expected 1 or more"),
        ({"batch_size": -3}, "batch size is -3"),
        ({"batch_size": 1798}, "batch size is 1798 and the set has 1797"),
        ({"shard_index": 2, "shard_count": 2}, "shard 2 of 2"),
        ({"shard_index": -1}, "shard -1 of 1"),
        ({"shard_count": 0}, "shard 0 of 0"),
        ({"shard_count": 3}, "a batch of 64 does not divide over 3 shards; expected a multiple of 3; give 66"),
        ({"seed": -1}, "data seed is -1"),
        ({"start": -1}, "start at step -1"),
    ],
)
def test_mistakes_in_options(options, message):
    with pytest.raises(InputError, match=message):
        training_batches(digits(), **{"batch_size": 64, "seed": 0} | options)
    if "batch_size" in options and options["batch_size"] < 1:
        with pytest.raises(InputError, match=message):
            evaluation_batches(digits(), **options)
