"""Train an experiment in a directory, and read its parameters back: what every recipe does alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax

from jaxdiff import data, networks, training
from jaxdiff.data.pipeline import Data
from jaxdiff.errors import InputError
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.workdir import remember

QUICK = {"xla_backend_optimization_level": 0}
"""To compile what runs once, as the first parameters do: three times faster, to the same bits."""


@runtime_checkable
class Trainable(Protocol):
    """What an experiment of any recipe has, that `fit` needs."""

    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def train(self) -> Any: ...
    @property
    def objective(self) -> Any: ...
    @property
    def optimizer(self) -> optax.GradientTransformation: ...
    @property
    def average(self) -> Any: ...
    @property
    def initial(self) -> Any: ...


class Stream:
    """The training batches by position, read ahead by Grain from wherever the run stands."""

    def __init__(self, examples: Data, batch_size: int, seed: int, flip: bool = False):
        self.examples, self.batch_size, self.options = examples, batch_size, {"seed": seed, "flip": flip}
        self.position, self.batches = None, None

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        if self.batches is None or position != self.position:
            start = position // self.batch_size
            self.batches = data.training_batches(self.examples, self.batch_size, start=start, **self.options)
        self.position = position + self.batch_size
        return _narrow(next(self.batches))

    def first(self) -> dict[str, np.ndarray]:
        """The batch at position 0, without reading ahead."""
        return _narrow(data.training_stream(self.examples, self.batch_size, **self.options)[0])


def _narrow(batch):
    return {**batch, "index": batch["index"].astype(np.uint32)}  # JAX has no 64-bit integers by default


def checked_folder(workdir: str | Path) -> Path:
    """The folder of a run, refused where a file is in its way."""
    workdir = Path(workdir)
    if (there := next(p for p in (workdir, *workdir.absolute().parents) if p.exists())) and not there.is_dir():
        raise InputError(f"{there} is a file, expected a folder for the run; give another --workdir")
    return workdir


def fit(experiment: Trainable, workdir: Path, identity: Mapping[str, Any], *, unit: str) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a workdir of a run of another `identity`; training.RunStopped when it cannot go on. What the
    step cannot be compiled for is found before the workdir is taken."""
    config, settings = experiment.config, experiment.config["train"]
    step = training.make_train_step(
        experiment.objective,
        experiment.optimizer,
        ema=experiment.average,
        accumulate=settings["accumulate"],
        project=networks.project if settings.get("project") else None,
    )
    stream = Stream(experiment.train, settings["batch_size"], config["seed"], settings.get("flip", False))
    jax.eval_shape(step, jax.eval_shape(experiment.initial), stream.first())
    state = jax.jit(experiment.initial, compiler_options=QUICK)()
    with training.Checkpoints(workdir, dict(identity), say=print) as checkpoints:
        remember(workdir, config)
        sinks = [
            training.progress(settings["steps"], unit=unit),
            training.jsonl(workdir / "log.jsonl"),
            training.tensorboard(workdir / "tensorboard"),
        ]
        return training.fit(
            state,
            training.data_parallel(step, _mesh(settings["batch_size"])),
            stream,
            steps=settings["steps"],
            checkpoints=checkpoints,
            save_every=settings["save_every"],
            log=sinks,
            log_every=settings["log_every"],
            snapshots=_snapshots(workdir, settings),
        )


def _snapshots(workdir, settings):
    every = settings["snapshot_every"]
    return training.Snapshots(workdir / "snapshots", settings["ema_widths"], every=every) if every else None


def restore(experiment: Trainable, workdir: Path, ema_width: float | None = None) -> tuple[Any, int]:
    """(averaged parameters, step) of the newest checkpoint in `workdir`.

    `ema_width` (the config's unless given) chooses among several averages; one that was not tracked is reconstructed
    from the run's snapshots. InputError where there is no checkpoint, or no such average."""
    with training.Checkpoints(workdir, say=print) as checkpoints:
        saved = checkpoints.restore(jax.eval_shape(experiment.initial))
    if saved is None:
        raise InputError(f"{workdir} holds no checkpoint yet; let `jaxdiff train` save one there first")
    width = experiment.config["sample"]["ema_width"] if ema_width is None else ema_width
    return _average(workdir, experiment.config["train"], saved, width), int(saved.step)


def _average(workdir, settings, saved, width):
    widths = settings["ema_widths"]
    if not widths:
        if width:
            raise InputError(f"ema_width is {width}, but this run keeps one average by half-life: leave it at 0")
        return saved.ema
    if not width or width in widths:
        return saved.ema[next(iter(training.ema.widths(width or widths[0])))]
    if not settings["snapshot_every"]:
        raise InputError(f"ema_width is {width}; without snapshots (train.snapshot_every) there is one of {widths}")
    return training.post_hoc.reconstruct(workdir / "snapshots", width, like=saved.params)


def _mesh(batch_size):
    """All devices, or as many as divide the batch."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return training.data_mesh(devices[:count])


def optimizer(settings: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[optax.GradientTransformation, Any]:
    """(the optimiser, the kind of average) that config.train names, among the `known` optimisers."""
    chosen = resolve("train.optimizer", known, settings["optimizer"], learning_rate=_schedule(settings))
    widths: Any = settings["ema_widths"]
    average = training.ema.half_life(settings["ema_half_life"], ramp=settings["ema_ramp"])
    average = training.ema.widths(*widths) if widths else average
    if settings["snapshot_every"] and not widths:
        raise InputError("config.train.snapshot_every keeps the averages of config.train.ema_widths: give their widths")
    return training.clipped(chosen, settings["clip"]), average


def _schedule(settings):
    warmup, batch = settings["warmup"], settings["batch_size"]
    if settings["flat"]:
        return training.inverse_sqrt(settings["learning_rate"], batch, flat=settings["flat"], examples=warmup)
    return training.ramp(settings["learning_rate"], warmup, batch)
