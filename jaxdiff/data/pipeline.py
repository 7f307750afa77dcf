"""The training stream is a pure function of (seed, position), and a batch of (seed, step).

Position p is the (p mod N)-th example of epoch p div N; each epoch is its own permutation of all N examples, so the
stream needs no state: batch k of size B is positions kB..(k+1)B - 1, whatever ran before. To resume is to name the
step.

    stream[step]        {"x0": (B, ...) examples, "label": (B,) int32, "index": (B,) int64 positions}

Examples of `Images` are float32 (B, H, W, C) in [-1, 1]; those of `Tokens` are int32 (B, L).
Unlabelled sets have no "label" entry: a network that needs one fails at once, and does not train on class 0. B is the
global batch. Shard i of n gives its rows iB/n..(i+1)B/n - 1, which is how JAX lays processes along a mesh axis: the n
shards together are the batch of one process, so a run may resume on another number of processes. A batch may straddle
two epochs. Keep "index" on the host: JAX without 64-bit types would wrap it at 2^31, without a word.

Grain turns the stream into an iterator that reads ahead, and whose state is saved and restored."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdiff.data.philox import check_seed, coins, permutation
from jaxdiff.data.pixels import Images
from jaxdiff.data.sequences.tokens import Tokens
from jaxdiff.errors import InputError

if TYPE_CHECKING:
    from grain import DatasetIterator, MapDataset
else:
    DatasetIterator = MapDataset = Any  # Grain takes a second to import: it waits for the first stream

Data = Images | Tokens
AHEAD = 4  # batches read ahead of the training step


def training_stream(
    data: Data, batch_size: int, *, seed: int, flip: bool = False, shard_index: int = 0, shard_count: int = 1
) -> MapDataset:
    """The endless shuffled stream as a `grain.MapDataset`: `stream[step]` is the batch of that step, for any step.

    `batch_size` counts all shards; `flip` mirrors each image left to right with probability 1/2, drawn anew for every
    position. InputError if the batch is not in [1, N], the shards do not divide it, or tokens are to be mirrored."""
    check_seed(seed)
    _check_batch(data, batch_size, shard_index, shard_count)
    if batch_size > len(data):
        raise InputError(
            f"{data.name}: the batch size is {batch_size} and the set has {len(data)} examples; expected a batch no "
            f"larger than the set; give {len(data)} or fewer."
        )
    if flip and isinstance(data, Tokens):
        raise InputError(f"{data.name}: tokens cannot be mirrored as images can; give flip=False.")
    return _grain().MapDataset.source(_Training(data, batch_size, shard_index, shard_count, seed, flip))


def training_batches(
    data: Data,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    flip: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> DatasetIterator:
    """An endless iterator over `training_stream`, from step `start`, that reads ahead in one thread.

    `get_state()` is a small dict for JSON, and `set_state` of it resumes bit for bit, as `start=step` does; Orbax saves
    it through `grain.checkpoint`. InputError as for `training_stream`, and if `start` is negative."""
    if start < 0:
        raise InputError(f"The stream cannot start at step {start}; expected 0 or more; give the step to run next.")
    stream = training_stream(data, batch_size, seed=seed, flip=flip, shard_index=shard_index, shard_count=shard_count)
    iterator = iter(stream.to_iter_dataset(_grain().ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)))
    iterator.set_state(iterator.get_state() | {"next_index": start})
    return iterator


def evaluation_batches(data: Data, batch_size: int, *, shard_index: int = 0, shard_count: int = 1) -> MapDataset:
    """One pass in order, as a `grain.MapDataset` of ceil(N / batch_size) batches that all have the full size.

    Each batch has "mask" (B,) bool besides "x0", "label" (if labelled) and "index" (the row in `data`): the last is
    filled with examples from the beginning, where "mask" is False. A batch may be larger than the set. InputError if it
    is not positive, or the shards do not divide it."""
    _check_batch(data, batch_size, shard_index, shard_count)
    return _grain().MapDataset.source(_Evaluation(data, batch_size, shard_index, shard_count))


@dataclass(frozen=True, eq=False)
class _Batches:
    data: Data
    batch_size: int
    shard_index: int
    shard_count: int

    def positions(self, step: int) -> np.ndarray:
        own = self.batch_size // self.shard_count
        return step * self.batch_size + self.shard_index * own + np.arange(own, dtype=np.int64)

    def batch(self, rows: np.ndarray, index: np.ndarray, **more: np.ndarray) -> dict[str, np.ndarray]:
        labels = {} if self.data.labels is None else {"label": self.data.labels[rows]}
        return {"x0": self.data.examples(rows), **labels, "index": index, **more}


@dataclass(frozen=True, eq=False)
class _Training(_Batches):
    seed: int
    flip: bool

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size  # so that positions fit in 64 bits

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        n, index = len(self.data), self.positions(step)
        epochs, places = np.divmod(index, n)
        rows, mirrored = np.empty_like(index), np.zeros(len(index), bool)
        for epoch in np.unique(epochs):  # one, or two where the batch straddles
            here = epochs == epoch
            rows[here] = permutation(n, seed=self.seed, epoch=int(epoch))[places[here]]
            if self.flip:
                mirrored[here] = coins(n, seed=self.seed, epoch=int(epoch))[places[here]]
        batch = self.batch(rows, index)
        if self.flip:
            batch["x0"][mirrored] = batch["x0"][mirrored, :, ::-1]
        return batch


@dataclass(frozen=True, eq=False)
class _Evaluation(_Batches):
    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        index = self.positions(step)
        rows = index % len(self.data)
        return self.batch(rows, rows, mask=index < len(self.data))


def _check_batch(data: Data, batch_size: int, shard_index: int, shard_count: int) -> None:
    if batch_size < 1:
        raise InputError(f"{data.name}: the batch size is {batch_size}; expected 1 or more; give one such as 128.")
    if not 0 <= shard_index < shard_count:
        raise InputError(
            f"{data.name}: got shard {shard_index} of {shard_count}; expected 0 <= shard_index < shard_count; "
            "give jax.process_index() and jax.process_count()."
        )
    if batch_size % shard_count:
        raise InputError(
            f"{data.name}: a batch of {batch_size} does not divide over {shard_count} shards; expected a multiple of "
            f"{shard_count}; give {-(-batch_size // shard_count) * shard_count}."
        )


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise InputError(
            "Batches need Grain, which is not installed; expected grain 0.2.18 or newer; "
            "run: pip install 'jaxdiff[data]'."
        ) from error
    return grain
