"""Where the numbers of a run go. A sink is three functions; `fit` calls them, and a record is a dict of plain floats.

`start(step)` comes first, with the step the run starts or resumes at: what a killed run had written beyond it is
dropped, so that a curve has each step once.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff.numerics import files

Record = Mapping[str, float]
"""step, position, loss, grad_norm, update_norm, examples_per_second, seconds_left, and what an evaluation returned."""


class Sink(NamedTuple):
    """`start(step)`, `write(record)` any number of times, `close()`."""

    start: Callable[[int], None]
    write: Callable[[Record], None]
    close: Callable[[], None]


def jsonl(path: str | os.PathLike) -> Sink:
    """One JSON object a line, flushed; rows past the resumed step and a torn last line are dropped at start."""
    target, opened = Path(path), []

    def start(step):
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = target.read_text().splitlines() if target.exists() else []
        files.write(target, "".join(f"{row}\n" for row in rows if _up_to(row, step)))
        opened.append(target.open("a"))

    def write(record):
        opened[-1].write(json.dumps(dict(record)) + "\n")
        opened[-1].flush()

    def close():
        while opened:
            opened.pop().close()

    return Sink(start, write, close)


def tensorboard(directory: str | os.PathLike) -> Sink:
    """Scalars for TensorBoard, one curve for each entry of a record but the step itself."""
    from tensorboardX import SummaryWriter

    writers = []

    def start(step):
        writers.append(SummaryWriter(str(directory), purge_step=step + 1))

    def write(record):
        for name, value in record.items():
            if name != "step":
                writers[-1].add_scalar(name, value, int(record["step"]))
        writers[-1].flush()

    def close():
        while writers:
            writers.pop().close()

    return Sink(start, write, close)


def progress(steps: int, *, unit: str = "examples", stream: Any = None) -> Sink:
    """A progress bar on a terminal, one plain line a record elsewhere: loss, `unit`/s, time left of a run of `steps`.

    `stream` is a text file, by default standard error.
    """
    out = sys.stderr if stream is None else stream
    if not out.isatty():
        return Sink(lambda step: None, lambda r: print(_line(r, steps, unit), file=out, flush=True), lambda: None)

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar: Any = Progress(BarColumn(), TextColumn("{task.description}"), console=Console(file=out))
    task = bar.add_task(f"step 0/{steps}  compiling", total=steps)

    def start(step):
        bar.update(task, completed=step, description=f"step {step}/{steps}  compiling")
        bar.start()

    def write(record):
        bar.update(task, completed=int(record["step"]), description=_line(record, steps, unit), refresh=True)

    return Sink(start, write, bar.stop)


def _line(record, steps, unit):
    words = [f"step {int(record['step'])}/{steps}"]
    if "loss" in record:
        words.append(f"loss {record['loss']:.4g}")
    if "examples_per_second" in record:
        minutes, seconds = divmod(round(record["seconds_left"]), 60)
        words += [
            f"{record['examples_per_second']:.4g} {unit}/s",
            f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left",
        ]
    return "  ".join(words)


def _up_to(row, step):
    try:
        return json.loads(row)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
