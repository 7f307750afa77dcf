"""Saved states of one run in one directory: the newest few and the best, written in the background.

    directory/run.json          format version, fingerprint and config of the run that owns the directory
    directory/checkpoints/N/    Orbax: the leaves after N steps by name, and JSON: shapes, key types, checksum
    directory/damaged-N/        a checkpoint that could not be read, moved aside when the run saved again

A checkpoint appears under its name only when complete, and an older one is deleted only after that. The checksum is
ours: Orbax restores a flipped byte without a word. Random keys are saved as their data.
"""

import contextlib
import errno
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxdiff.errors import InputError
from jaxdiff.training.run_file import FORMAT, fingerprint, own
from jaxdiff.training.state import TrainState
from jaxdiff.training.stops import DiskFull

_logger = logging.getLogger(__name__)


class Checkpoints:
    """The saved states of one run; a context manager (leaving it waits for the writes).

    `config` holds plain values and identifies the run: leave out what may change between a run and its continuation
    (its number of steps, its directory). Without `config` the directory must hold a run, and is only read. `metric`
    names the entry of `save`'s metrics by which the best is chosen, lowest for `mode="min"`. `keep` newest are kept
    besides. `say` gets one line when a damaged checkpoint is passed over. Raises InputError when the directory holds
    another config's run, no run where one is only read, or another format.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        config: Mapping[str, Any] | None = None,
        *,
        metric: str = "loss",
        mode: str = "min",
        keep: int = 2,
        say: Callable[[str], object] = _logger.warning,
    ):
        if mode not in ("min", "max") or keep < 2:
            raise InputError(f"Checkpoints got mode = {mode!r}, keep = {keep}; expected 'min' or 'max', and keep >= 2")
        self.directory = Path(directory).absolute()
        self.writable = config is not None
        with _clear_errors(self.directory):
            self.config: dict[str, Any] = own(self.directory, config)
        logging.getLogger("absl").addFilter(_told_elsewhere)
        self.metric, self._say, self._damaged = metric, say, set()
        self._sign, self._scores = (-1.0 if mode == "min" else 1.0), {}
        folder = self.directory / "checkpoints"
        if self.writable:
            for unfinished in folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished, ignore_errors=True)
        policy = policies.AnyPreservationPolicy([policies.LatestN(keep), self])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy, create=self.writable, read_only=not self.writable
        )
        with _clear_errors(self.directory):
            self._manager = ocp.CheckpointManager(folder, options=options, item_names=("state", "metadata"))
        for step in self.steps():
            with contextlib.suppress(Exception):  # restore will say that it is damaged
                self._rank(step, self._metadata(step)["metrics"])

    def steps(self) -> list[int]:
        """The steps that are saved, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The saved step with the best metric, the later of equals; None where nothing is saved."""
        known = [(self._scores[step], step) for step in self.steps() if step in self._scores]
        return max(known)[1] if known else None

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Orbax's question which checkpoints to keep: the best one, besides the newest."""
        best = self.best_step()
        return [checkpoint.step == best for checkpoint in checkpoints]

    def save(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Copy the state off the devices and write it in the background; nothing happens if its step is saved already.

        Raises DiskFull when this or the previous save found no space; InputError when `metrics` lacks the metric by
        which the best is kept, or the directory was opened without a config.
        """
        step = int(state.step)
        if not self.writable:
            raise InputError(f"{self.directory} was opened to be read: give Checkpoints the run's config to save to it")
        if self.metric not in metrics:
            raise InputError(
                f"a checkpoint is ranked by {self.metric!r}, but its metrics are {sorted(metrics)}: name one of "
                "them in Checkpoints(metric=...), or have fit's evaluate return it"
            )
        self._set_aside()
        if step in self._manager.all_steps():
            return
        arrays, kinds = _to_host(state)
        metadata = {
            "format": FORMAT,
            "fingerprint": fingerprint(self.config),
            "step": step,
            "leaves": {name: _describe(array) for name, array in arrays.items()},
            "keys": kinds,
            "metrics": {name: float(value) for name, value in metrics.items()},
            "crc32": _checksum(arrays),
        }
        filled = {name: array for name, array in arrays.items() if array.size}  # Orbax refuses empty ones
        items = {"state": ocp.args.StandardSave(filled), "metadata": ocp.args.JsonSave(metadata)}
        with _clear_errors(self.directory):
            self._rank(step, metrics)
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The newest saved state that can be read (or that of `step`); None when nothing was ever saved.

        `like` gives the structure, and the devices where its leaves are committed to some; it may be abstract, from
        `jax.eval_shape`. A damaged newest checkpoint is said and passed over for the one before. Raises InputError when
        `step` is not saved or damaged, when all are damaged, and when `like` has other leaves, shapes or dtypes.
        """
        found = self._newest(step)
        return None if found is None else _from_host(*found[:2], like, found[2])

    def _newest(self, step):
        """(arrays, metadata, what it is called) of the newest checkpoint that can be read, or of that of `step`."""
        self.wait()
        known = self.steps()
        if step is not None and step not in known:
            raise InputError(f"{self.directory} has no checkpoint of step {step}, only of {known}")
        for candidate in reversed(known) if step is None else [step]:
            try:
                return *self._read(candidate), f"checkpoint {candidate} in {self.directory}"
            except Exception as error:  # Orbax, TensorStore and JSON each have their own for a damaged file
                self._damaged.add(candidate)
                reason = " ".join(str(error).split())[:200]
                self._say(f"checkpoint {candidate} in {self.directory} is damaged, trying the one before: {reason}")
        if known:
            wanted = f"checkpoint {step}" if step is not None else f"each of the checkpoints {known}"
            raise InputError(f"{wanted} in {self.directory} is damaged: start again in another directory")
        return None

    def restore_average(self, like: Any) -> tuple[Any, int] | None:
        """(averaged parameters, step) of the newest state that can be read, for which no optimiser is needed; None when
        nothing was ever saved.

        `like` is the tree of what `TrainState.ema` holds, and may be abstract. Raises InputError as `restore` does."""
        found = self._newest(None)
        if found is None:
            return None
        arrays, metadata, source = found
        kept = {name: array for name, array in arrays.items() if name.partition(".")[0] == "ema"}
        return _from_host(kept, metadata, {"ema": like}, source)["ema"], int(metadata["step"])

    def wait(self) -> None:
        """Block until all saves are complete; raises DiskFull where one found no space."""
        with _clear_errors(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the saves and let go of the directory."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # Orbax raises the error of a failed save once more
                self._manager.close()
            logging.getLogger("absl").removeFilter(_told_elsewhere)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(Exception):  # the first error is the one to be seen
                self.close()

    def _rank(self, step, metrics):
        value = self._sign * metrics[self.metric]
        self._scores[step] = value if math.isfinite(value) else -math.inf  # a NaN has no place in an order

    def _metadata(self, step) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))["metadata"]

    def _read(self, step):
        metadata = self._metadata(step)
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, this version reads {FORMAT}")
        if metadata["fingerprint"] != fingerprint(self.config):
            raise ValueError("it was saved by another config's run")
        found: Any = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        arrays = dict(found["state"])
        for name, (shape, dtype) in metadata["leaves"].items():
            if 0 in shape:
                arrays[name] = np.zeros(shape, dtype)
        if _checksum(arrays) != metadata["crc32"]:
            raise ValueError("its checksum is wrong")
        return arrays, metadata

    def _set_aside(self):
        if self._damaged:
            for step in self._damaged:
                target = self.directory / f"damaged-{step}"
                shutil.rmtree(target, ignore_errors=True)
                os.replace(self.directory / "checkpoints" / str(step), target)
            self._damaged.clear()
            self._manager.reload()


def _named(tree):
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in pairs]
    if len(set(names)) < len(names):
        raise InputError(f"two leaves of a state are both named {max(names, key=names.count)}: rename a parameter")
    return dict(zip(names, (leaf for _, leaf in pairs), strict=True)), structure


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(state):
    """The leaves by name, off the devices (JAX keeps what a later step donates), and the kind of each that is a key."""
    leaves, _ = _named(state)
    kinds = {name: str(jax.random.key_impl(leaf)) for name, leaf in leaves.items() if _is_key(leaf)}
    data = {name: jax.random.key_data(leaf) if name in kinds else leaf for name, leaf in leaves.items()}
    return {name: np.asarray(array) for name, array in jax.device_get(data).items()}, kinds


def _from_host(arrays, metadata, like, source):
    wanted, structure = _named(like)
    if missing := wanted.keys() ^ arrays.keys():
        name = min(missing)
        place = "this state" if name in wanted else source
        raise InputError(f"only {place} has the leaf {name}: restore into the state of the same network and optimizer")
    leaves = []
    for name, leaf in wanted.items():
        array = jnp.asarray(arrays[name])
        if name in metadata["keys"]:
            array = jax.random.wrap_key_data(array, impl=metadata["keys"][name])
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise InputError(
                f"{name} is {array.dtype}{array.shape} in {source}, and {leaf.dtype}{leaf.shape} in this state: "
                "restore into the state of the same network and optimizer"
            )
        leaves.append(jax.device_put(array, leaf.sharding) if getattr(leaf, "committed", False) else array)
    return jax.tree_util.tree_unflatten(structure, leaves)


def _describe(array):
    return [list(array.shape), str(array.dtype)]


def _checksum(arrays):
    total = 0
    for name in sorted(arrays):
        content: Any = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
        total = zlib.crc32(content, zlib.crc32(name.encode(), total))
    return total


@contextlib.contextmanager
def _clear_errors(directory):
    """Orbax reports a full disk as OSError or, from the background, as TensorStore's ValueError."""
    try:
        yield
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            saved = sorted(int(p.name) for p in (directory / "checkpoints").glob("*") if p.name.isdigit())
            raise DiskFull(
                f"no space left to write in {directory}; the checkpoints {saved} are complete: free some space and run "
                "the same command again"
            ) from error
        raise


def _told_elsewhere(record):
    """False for what Orbax logs, a page of traceback for an error that it also raises."""
    return record.exc_info is None or "orbax" not in record.pathname
