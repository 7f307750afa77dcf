"""A map in chunks is the map: for every n, chunk and stop on the way, of one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.errors import InputError
from jaxdiff.numerics import chunks, files


def function():
    """(places, rows) -> {"noisy": x + noise of the place, "square": x^2}, and the shapes it was compiled for."""
    compiled = []

    @jax.jit
    def f(places, rows):
        compiled.append(jax.tree.map(jnp.shape, rows))

        def one(place, x):
            return {"noisy": x + jax.random.normal(jax.random.fold_in(jax.random.key(3), place)), "square": x**2}

        return jax.vmap(one)(places, rows)

    return f, compiled


def same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("n", [1, 4, 7, 8, 9])
def test_every_n_and_chunk_give_the_whole_map(n, key):
    x = np.asarray(jax.random.normal(key, (9,)))
    wanted = jax.device_get(function()[0](jnp.arange(9, dtype=jnp.uint32), x))
    for chunk in (1, 3, 4, 16):
        same(chunks.over(function()[0], n, x[:n], chunk=chunk), jax.tree.map(lambda leaf: leaf[:n], wanted))


def test_one_program_serves_every_n():
    f, compiled = function()
    for n in (1, 3, 4, 9, 17):
        chunks.over(f, n, np.ones(n, np.float32), chunk=4)
    assert compiled == [(4,)]


def test_parts_are_in_order_and_the_last_is_cut():
    parts = list(chunks.each(lambda places, rows: places, 7, chunk=3))
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_chunk_is_fetched_while_the_next_one_runs():
    events = []

    def f(places, rows):
        events.append(f"run {int(places[0])}")
        return places

    for part in chunks.each(f, 6, chunk=2, progress=lambda done, n: events.append(f"{done}/{n}")):
        events.append(f"got {part[0]}")
    assert events == ["run 0", "run 2", "2/6", "got 0", "run 4", "4/6", "got 2", "6/6", "got 4"]


def test_rows_may_be_keys(key):
    keys = jax.random.split(key, 5)
    wanted = jax.vmap(jax.random.bits)(keys)
    found = chunks.over(lambda places, keys: jax.vmap(jax.random.bits)(keys), 5, keys, chunk=2)
    np.testing.assert_array_equal(found, wanted)


def test_the_inside_of_a_program_goes_the_same_way():
    def f(place):
        return place, {"square": place**2}

    for n, chunk in ((1, 4), (8, 4), (9, 4)):
        places, found = jax.jit(lambda n=n, chunk=chunk: chunks.within(f, n, chunk))()
        np.testing.assert_array_equal(places, np.arange(n))
        np.testing.assert_array_equal(found["square"], np.arange(n) ** 2)


@pytest.mark.parametrize("other", [1, 2, 3, 5])
def test_a_stopped_map_goes_on_to_the_same_bits(tmp_path, key, other):
    f, x = function()[0], np.asarray(jax.random.normal(key, (9,)))
    wanted, seen = chunks.over(f, 9, x, chunk=2), []

    def stop(done, n):
        if done == 6:
            raise KeyboardInterrupt

    resume = tmp_path / "there" / "x.npz"
    with pytest.raises(KeyboardInterrupt):
        chunks.over(f, 9, x, chunk=2, resume=resume, identity="a", progress=stop)
    options = {"chunk": other, "resume": resume, "identity": "a"}
    same(chunks.over(f, 9, x, **options, progress=lambda done, n: seen.append(done)), wanted)
    assert seen[0] == 4 + other
    same(chunks.over(f, 9, x, **options, progress=lambda done, n: seen.append(None)), wanted)
    assert None not in seen


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (files.npz({"identity": "b", "noisy": np.ones(2)}), "of another computation"),
        (b"half of a file", "cannot be read as an unfinished computation"),
        (b"", "cannot be read as an unfinished computation"),
        (files.npz({"noisy": np.ones(2)}), "cannot be read as an unfinished computation"),
    ],
)
def test_mistakes_of_the_file_to_go_on_from(tmp_path, content, sentence):
    path = files.write(tmp_path / "x.npz", content)
    with pytest.raises(InputError, match=sentence):
        chunks.over(function()[0], 4, np.ones(4), chunk=2, resume=path, identity="a")


@pytest.mark.parametrize(
    ("n", "rows", "chunk", "sentence"),
    [
        (0, None, 2, "got n=0 and chunk=2, expected at least 1 of each"),
        (3, None, 0, "got n=3 and chunk=0"),
        (3, {"a": np.ones(3), "b": np.ones((2, 3))}, 2, r"rows\['b'\] has shape \(2, 3\), expected \(3, ...\)"),
        (3, 1.0, 2, r"rows has shape \(\), expected \(3, ...\): a row for every example"),
    ],
)
def test_mistakes_are_said_before_anything_is_computed(n, rows, chunk, sentence):
    with pytest.raises(InputError, match=sentence):
        chunks.each(lambda places, rows: pytest.fail("was computed"), n, rows, chunk=chunk)


def test_a_chunk_fits_four_million_numbers():
    assert [chunks.fitting(size) for size in (0, 1, 2**15, 2**16, 2**30)] == [128, 128, 128, 64, 1]
