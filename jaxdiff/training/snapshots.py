"""Averages on the way, one file each, kept for post-hoc EMA (`training.post_hoc`; Karras et al. 2024, Sec. 3.2).

    directory/000008388608-0.05.npz   the average of relative width .05 after 8,388,608 examples: "params/" + a leaf's
                                      path -> array

A file appears under its name only when complete. Which positions have one depends on `every` and the batch size alone,
and not on how often the run was stopped. In float16 an entry keeps 11 bits and a file is half as long as the average;
EDM2 keeps them so."""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.numerics import files
from jaxdiff.training import ema
from jaxdiff.training.state import TrainState
from jaxdiff.training.stops import DiskFull

PREFIX = "params/"


class Snapshot(NamedTuple):
    """One stored average: after how many examples, of which relative width, in which file."""

    position: int
    sigma_rel: float
    path: Path


class Snapshots:
    """The averages of relative `widths`, written by `fit` whenever the run passes a multiple of `every` examples.

    The run's `ema` holds these widths (`ema.widths`), perhaps with others. `dtype` is "float16" or "float32". Raises
    InputError for widths that are none, `every` below 1 or another dtype."""

    def __init__(self, directory: str | os.PathLike, widths: Sequence[float], *, every: int, dtype: str = "float16"):
        if not widths or every < 1 or dtype not in ("float16", "float32"):
            raise InputError(
                f"Snapshots got widths = {tuple(widths)}, every = {every}, dtype = {dtype!r}; expected at least one "
                "width, 1 or more examples between snapshots, and 'float16' or 'float32'"
            )
        self.names = list(ema.widths(*widths))
        self.directory, self.every, self.dtype = Path(directory), every, np.dtype(dtype)

    def start(self, position: int) -> None:
        """A run begins or carries on at `position`: what a killed one had written beyond it will be written anew."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for draft in self.directory.glob("*.npz*.tmp"):
            draft.unlink()
        for snapshot in stored(self.directory):
            if snapshot.position > position:
                snapshot.path.unlink()

    def due(self, before: int, after: int) -> bool:
        """Whether a step from `before` to `after` examples passes (or arrives at) a multiple of `every`."""
        return after // self.every > before // self.every

    def save(self, state: TrainState) -> None:
        """Write the averages of `state`, unless a step that was not finite has frozen it.

        Raises InputError when the state lacks a width, or an entry is too large for float16; DiskFull."""
        if not state.finite:
            return
        position = int(state.position)
        for name in self.names:
            if not isinstance(state.ema, dict) or name not in state.ema:
                held = ", ".join(map(str, state.ema)) if isinstance(state.ema, dict) else "one average or none"
                raise InputError(
                    f"snapshots of relative width {name} need that average, but the state holds {held}: train with "
                    "ema=ema.widths(...) of the same widths"
                )
            arrays = {PREFIX + leaf: self._short(leaf, array) for leaf, array in by_name(state.ema[name]).items()}
            self._write(self.directory / f"{position:012d}-{name}.npz", arrays)

    def _short(self, name, array):
        array = np.asarray(jax.device_get(array))
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        with np.errstate(over="ignore"):
            short = array.astype(self.dtype)
        if not np.isfinite(short).all():
            raise InputError(
                f"the average of {name} reaches {np.abs(array).max():.3g}, more than a {self.dtype} snapshot holds: "
                'give Snapshots dtype="float32"'
            )
        return short

    def _write(self, path, arrays):
        try:
            with files.replacing(path) as draft, draft.open("wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DiskFull(
                    f"no space left to write {path}; the snapshots before it are complete: free some space and run the "
                    "same command again"
                ) from error
            raise


def stored(directory: str | os.PathLike) -> list[Snapshot]:
    """The snapshots in `directory`, by position and width."""
    found = []
    for path in Path(directory).glob("*-*.npz"):
        position, _, width = path.name.removesuffix(".npz").partition("-")
        with contextlib.suppress(ValueError):  # another file
            found.append(Snapshot(int(position), float(width), path))
    return sorted(found)


def by_name(tree) -> dict:
    """The leaves of a tree under their paths, "down/0/weight"."""
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
