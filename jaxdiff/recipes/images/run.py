"""Train an image model in a directory, and read it back: config, data, averaged parameters."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, training
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.config import complete, identity
from jaxdiff.recipes.images.experiment import Experiment, build


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
        batch = next(self.batches)
        return {**batch, "index": batch["index"].astype(np.uint32)}  # JAX has no 64-bit integers by default


def train(config: Mapping[str, Any], workdir: str | Path) -> str:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one; returns why it stopped.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on."""
    config = complete(config)
    settings, workdir = config["train"], Path(workdir)
    experiment = build(config)
    step = training.make_train_step(
        experiment.objective, experiment.optimizer, ema=experiment.average, accumulate=settings["accumulate"]
    )
    key = jax.random.key(config["seed"])
    state = training.init(key, experiment.params, experiment.optimizer, ema=experiment.average)
    stream = Stream(experiment.train, settings["batch_size"], config["seed"], settings["flip"])
    with training.Checkpoints(workdir, identity(config), say=print) as checkpoints:
        _remember(workdir, config)
        sinks = [
            training.progress(settings["steps"], unit="images"),
            training.jsonl(workdir / "log.jsonl"),
            training.tensorboard(workdir / "tensorboard"),
        ]
        run = training.fit(
            state,
            training.data_parallel(step, _mesh(settings["batch_size"])),
            stream,
            steps=settings["steps"],
            checkpoints=checkpoints,
            save_every=settings["save_every"],
            log=sinks,
            log_every=settings["log_every"],
        )
    return run.status


def load(workdir: str | Path) -> tuple[Experiment, Any, int]:
    """(experiment, averaged parameters, step) of the newest checkpoint in `workdir`; InputError where there is none."""
    workdir = Path(workdir)
    experiment = build(recall(workdir))
    state = training.init(jax.random.key(0), experiment.params, experiment.optimizer, ema=experiment.average)
    with training.Checkpoints(workdir, say=print) as checkpoints:
        saved = checkpoints.restore(state)
    if saved is None:
        raise InputError(f"{workdir} holds no checkpoint yet; train it first: jaxdiff train --config=... --workdir={workdir}")
    return experiment, saved.ema, int(saved.step)


def _mesh(batch_size):
    """All devices, or as many as divide the batch."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return training.data_mesh(devices[:count])


def _remember(workdir, config):
    draft = workdir / "config.json.tmp"
    draft.write_text(json.dumps(config, indent=2) + "\n")
    draft.replace(workdir / "config.json")


def recall(workdir):
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"{workdir} holds no run (no config.json in it); give the --workdir of `jaxdiff train`")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); run `jaxdiff train` there again to write it anew") from error
