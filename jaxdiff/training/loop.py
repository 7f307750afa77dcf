"""The loop around a step: data in, numbers out, states saved; killed at any moment, the same call carries on to the
same bits.

It never waits for the devices except where it logs or saves. A step that is not finite freezes the state on the device
(`TrainState.finite`), so seeing it some steps later loses nothing.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.training.checkpoint import Checkpoints
from jaxdiff.training.sinks import Sink
from jaxdiff.training.snapshots import Snapshots
from jaxdiff.training.state import TrainState
from jaxdiff.training.step import Batch, Step
from jaxdiff.training.stops import NonFiniteLoss


class Run(NamedTuple):
    """Where a call of `fit` left off, and why: all steps made, a signal caught, or no more batches."""

    state: TrainState
    status: Literal["finished", "interrupted", "exhausted"]


def fit(
    state: TrainState,
    step: Step,
    batches: Callable[[int], Batch] | Iterable[Batch],
    *,
    steps: int,
    checkpoints: Checkpoints | None = None,
    save_every: int = 1000,
    snapshots: Snapshots | None = None,
    log: Iterable[Sink] = (),
    log_every: int = 50,
    evaluate: Callable[[TrainState], Mapping[str, float]] | None = None,
) -> Run:
    """Train until `state.step` is `steps`; with `checkpoints`, from the newest one there, and saving as it goes.

    `batches` is best a pure function of the data position (`state.position`, the number of examples before the
    batch), and then a resumed run sees the data of an uninterrupted one; an iterable must stand at that position by
    itself. A record of means since the last one goes to each sink of `log` after the first step, every `log_every`
    steps and at the end. At each save (every `save_every` steps, at the end, on a signal) `evaluate(state)` may add
    numbers to the record, among them the one that chooses the best checkpoint. `snapshots` keeps the averages at its
    own positions, each before the checkpoint that follows, so that a run carried on has each once. SIGTERM and SIGINT
    let the running step finish, save, and return status "interrupted"; a second SIGINT stops at once. `state` is
    consumed where `step` donates it.

    Raises NonFiniteLoss, naming the step; DiskFull; InputError where a checkpoint or the first batch does not fit the
    run.
    """
    if min(steps, save_every, log_every) < 1:
        raise InputError(
            f"fit got steps = {steps}, save_every = {save_every}, log_every = {log_every}; expected 1 or more"
        )
    if checkpoints is not None and (saved := checkpoints.restore(state)) is not None:
        state = saved
    done, position = int(state.step), int(state.position)
    first, sinks = done, list(log)
    meter = _Meter()
    status = "finished"

    def report(saving):
        record = {"step": done, "position": position, **meter.read(state, steps - done)}
        extra = {}
        if saving and evaluate is not None:
            extra = {name: float(value) for name, value in evaluate(state).items()}
        for sink in sinks:
            sink.write({**record, **extra})
        if saving:
            means = meter.since_save()
            if checkpoints is not None:
                checkpoints.save(state, {**means, **extra})
        meter.restart()

    with contextlib.ExitStack() as stack:
        stopping = stack.enter_context(_signals())
        for sink in sinks:
            stack.callback(sink.close)
            sink.start(done)
        if snapshots is not None:
            snapshots.start(position)
        stream = _stream(batches, position)
        while done < steps and not stopping.is_set():
            batch = next(stream, None)
            if batch is None:
                status = "exhausted"
                break
            if done == first:
                _stands_at(batch, position)
            state, metrics = step(state, batch)
            before, done, position = position, done + 1, position + len(batch["index"])
            meter.add(metrics, len(batch["index"]))
            if snapshots is not None and snapshots.due(before, position):
                snapshots.save(state)
            saving = done % save_every == 0 or done == steps
            if saving or done == first + 1 or done % log_every == 0:
                report(saving)
        if status == "finished" and done < steps:
            status = "interrupted"
        if first < done < steps and done % save_every:
            report(saving=True)
        if checkpoints is not None:
            checkpoints.wait()
    return Run(state, status)


class _Meter:
    """Metrics stay on the devices until they are read; then they become means, and a rate without the compilation."""

    def __init__(self):
        self.pending, self.seen, self.since = [], 0, None
        self.total, self.count = {}, 0

    def add(self, metrics, size):
        self.pending.append(metrics)
        self.seen += size

    def read(self, state, left):
        rows: Any = jax.device_get(self.pending)
        if not rows:
            return {}
        for row in rows:
            if not row["finite"]:
                raise NonFiniteLoss(
                    int(state.step) + 1, int(state.position), float(row["loss"]), float(row["grad_norm"])
                )
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "finite"}
        for name, mean in means.items():
            self.total[name] = self.total.get(name, 0.0) + mean * len(rows)
        self.count += len(rows)
        if self.since is not None:
            seconds = max(time.perf_counter() - self.since, 1e-9)
            means |= {"examples_per_second": self.seen / seconds, "seconds_left": left * seconds / len(rows)}
        return means

    def since_save(self):
        means = {name: total / self.count for name, total in self.total.items()}
        self.total, self.count = {}, 0
        return means

    def restart(self):
        self.pending, self.seen, self.since = [], 0, time.perf_counter()


def _stream(batches, position) -> Iterator[Batch]:
    if not callable(batches):
        yield from batches
        return
    while True:
        batch: Any = batches(position)
        yield batch
        position += len(batch["index"])


def _stands_at(batch: Any, position: int) -> None:
    """A resumed run given the stream from its beginning would train on, wrongly and in silence."""
    found = int(np.asarray(batch["index"])[0])
    if found != position:
        raise InputError(
            f"the first batch starts at data position {found}, but the state has seen {position} examples: give "
            "batches as a function of the position, or an iterator that stands there (the index of an example counts "
            "from the start of the stream)"
        )


@contextlib.contextmanager
def _signals():
    """An event that SIGTERM and SIGINT set; only the main thread can listen. A second SIGINT is a KeyboardInterrupt."""
    caught = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number, frame):
        if number == signal.SIGINT and caught.is_set():
            raise KeyboardInterrupt
        caught.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
