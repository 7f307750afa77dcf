"""Train an image model in a directory, and read it back: config, data, averaged parameters."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, networks, training
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.config import Config, identity
from jaxdiff.recipes.images.experiment import Experiment, build
from jaxdiff.recipes.workdir import recall, remember

QUICK = {"xla_backend_optimization_level": 0}
"""To compile what runs once, as the first parameters do: three times faster, to the same bits."""


class Stream:
    """The training batches by position, read ahead by Grain from wherever the run stands."""

    def __init__(self, images: data.Images, batch_size: int, seed: int, flip: bool):
        self.images, self.batch_size, self.options = images, batch_size, {"seed": seed, "flip": flip}
        self.position, self.batches = None, None

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        if self.batches is None or position != self.position:
            start = position // self.batch_size
            self.batches = data.training_batches(self.images, self.batch_size, start=start, **self.options)
        self.position = position + self.batch_size
        return _narrow(next(self.batches))

    def first(self) -> dict[str, np.ndarray]:
        """The batch at position 0, without reading ahead."""
        return _narrow(data.training_stream(self.images, self.batch_size, **self.options)[0])


def _narrow(batch):
    return {**batch, "index": batch["index"].astype(np.uint32)}  # JAX has no 64-bit integers by default


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = Path(workdir)
    if (there := next(p for p in (workdir, *workdir.absolute().parents) if p.exists())) and not there.is_dir():
        raise InputError(f"{there} is a file, expected a folder for the run; give another --workdir")
    experiment = build(config)
    config, settings = experiment.config, experiment.config["train"]
    step = training.make_train_step(
        experiment.objective,
        experiment.optimizer,
        ema=experiment.average,
        accumulate=settings["accumulate"],
        project=networks.project if settings["project"] else None,
    )
    stream = Stream(experiment.train, settings["batch_size"], config["seed"], settings["flip"])
    experiment.sampler()
    jax.eval_shape(step, jax.eval_shape(experiment.initial), stream.first())
    state = jax.jit(experiment.initial, compiler_options=QUICK)()
    with training.Checkpoints(workdir, identity(config), say=print) as checkpoints:
        remember(workdir, config)
        sinks = [
            training.progress(settings["steps"], unit="images"),
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


def load(workdir: str | Path, ema_width: float | None = None) -> tuple[Experiment, Any, int]:
    """(experiment, averaged parameters of the network, step) of the newest checkpoint in `workdir`.

    `ema_width` (the config's unless given) chooses among several averages; one that was not tracked is reconstructed
    from the run's snapshots. InputError where there is no checkpoint, or no such average."""
    workdir = Path(workdir)
    experiment = build(recall(workdir))
    with training.Checkpoints(workdir, say=print) as checkpoints:
        saved = checkpoints.restore(jax.eval_shape(experiment.initial))
    if saved is None:
        raise InputError(f"{workdir} holds no checkpoint yet; let `jaxdiff train` save one there first")
    width = experiment.config["sample"]["ema_width"] if ema_width is None else ema_width
    return *experiment.trained(_average(workdir, experiment.config["train"], saved, width)), int(saved.step)


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
