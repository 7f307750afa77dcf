"""One map over examples that are too many to compute at once: chunks of one size, so one compiled program for every n.

    rows of [0, n)  ->  f(places, rows of the chunk)  ->  the first n results, in order

The last chunk is filled up with the last example, and what that adds is dropped. While the device computes a chunk, the
one before it is fetched."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.numerics import files

Progress = Callable[[int, int], Any]
"""progress(done, n): how many of the n examples are done."""

IDENTITY = "identity"  # its name in a file to go on from


def leading(n: int, what: str, **trees: PyTree[Any]) -> None:
    """InputError where a leaf of one of the named trees does not lead with n: a row for every `what`."""
    for word, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if np.shape(leaf)[:1] != (n,):
                name = f"{word}{jax.tree_util.keystr(path)}"
                raise InputError(f"{name} has shape {np.shape(leaf)}, expected ({n}, ...): a row for every {what}")


def fitting(size: int, most: int = 128) -> int:
    """How many examples of `size` numbers make 4 million numbers, at least 1 and at most `most`."""
    return int(np.clip(2**22 // max(size, 1), 1, most))


def each(
    f: Callable[..., PyTree[Any]],
    n: int,
    rows: PyTree[Any] = None,
    *,
    chunk: int,
    done: int = 0,
    progress: Progress | None = None,
) -> Iterator[PyTree[np.ndarray]]:
    """The results of f(places, rows), chunk by chunk, on the host; the last of them cut to what is left of n.

    `places` (chunk,), uint32, are begin, begin + 1, ...: in the last chunk they run on beyond n, over copies of the
    last example, so that what depends on a place does so alike for every n. `rows` is a tree of arrays (or keys) that
    lead with n; f gets those of the chunk, and gives a tree of arrays that lead with the chunk. The first `done`
    examples are left out (a computation that goes on); `progress(done, n)` is called as each chunk is fetched.

    Raises InputError for n or chunk below 1 and rows that do not lead with n, before anything is computed."""
    if n < 1 or chunk < 1:
        raise InputError(f"a map over examples got n={n} and chunk={chunk}, expected at least 1 of each")
    leading(n, "example", rows=rows)
    return _each(
        f, n, jax.tree.map(lambda leaf: leaf if _is_key(leaf) else np.asarray(leaf), rows), chunk, done, progress
    )


def _is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _each(f, n, rows, chunk, done, progress):
    waiting = None
    for begin in range(done, n, chunk):
        filled = np.minimum(np.arange(begin, begin + chunk), n - 1)
        given = jax.tree.map(lambda leaf, filled=filled: jnp.asarray(leaf[filled]), rows)
        started = begin, f(jnp.arange(begin, begin + chunk, dtype=jnp.uint32), given)
        if waiting is not None:
            yield _fetched(*waiting, n, chunk, progress)
        waiting = started
    if waiting is not None:
        yield _fetched(*waiting, n, chunk, progress)


def _fetched(begin, result, n, chunk, progress):
    found = jax.tree.map(lambda leaf: leaf[: n - begin], jax.device_get(result))
    if progress is not None:
        progress(min(begin + chunk, n), n)
    return found


def over(
    f: Callable[..., PyTree[Any]],
    n: int,
    rows: PyTree[Any] = None,
    *,
    chunk: int,
    resume: str | Path | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> PyTree[np.ndarray]:
    """All results of `each` as one tree of arrays that lead with n.

    With `resume`, an .npz file, what is done is saved after each chunk, and the same call goes on from there.
    `identity` is a fingerprint of all that the results depend on. f then gives a dict of arrays, and must give the
    same bits for every chunk size. Raises InputError as `each`, and for a file of another computation or of none."""
    parts = [] if resume is None else _recalled(Path(resume), identity)
    done = sum(len(jax.tree.leaves(part)[0]) for part in parts)
    for part in each(f, n, rows, chunk=chunk, done=done, progress=progress):
        parts.append(part)
        if resume is not None:
            Path(resume).parent.mkdir(parents=True, exist_ok=True)
            parts = [joined(parts)]
            files.write(Path(resume), files.npz({IDENTITY: identity, **parts[0]}))
    return joined(parts)


def _recalled(path, identity):
    """[the dict of arrays of an earlier call]; [] where there was none."""
    if not path.exists():
        return []
    try:
        with np.load(path, allow_pickle=False) as saved:
            found = {name: saved[name] for name in saved}
        whose = str(found.pop(IDENTITY))
        if not found:
            raise KeyError("no results in it")
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an unfinished computation ({error}); remove it") from error
    if whose != identity:
        raise InputError(
            f"{path} is of another computation (other data, key or options); remove it or name another file"
        )
    return [found]


def joined(parts: Any) -> PyTree[np.ndarray]:
    """A sequence of trees of arrays, end to end along their first axis."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def within(f: Callable[..., PyTree[Any]], n: int, chunk: int) -> PyTree[Any]:
    """f(0), ..., f(n - 1) inside a compiled function, `chunk` at a time: full chunks alone, so that f is compiled once.

    Returns f's tree with a leading n."""
    places = jnp.minimum(jnp.arange(-(-n // chunk) * chunk), n - 1).reshape(-1, chunk)
    found = jax.lax.map(jax.vmap(f), places)
    return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:])[:n], found)
