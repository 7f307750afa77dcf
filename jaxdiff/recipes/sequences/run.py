"""Train a model of sequences in a directory, and read it back: config, data, averaged parameters."""

from pathlib import Path
from typing import Any

from jaxdiff import training
from jaxdiff.recipes import runs
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.sequences import names
from jaxdiff.recipes.sequences.config import Config, identity
from jaxdiff.recipes.sequences.experiment import Experiment, build
from jaxdiff.recipes.sequences.models import Diffusion, checked_guide
from jaxdiff.recipes.workdir import recall


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = runs.checked_folder(workdir)
    experiment = build(config)
    sample = experiment.config["sample"]
    checked_guide(experiment.config, experiment.null, sample["guidance"], experiment.train.name)
    if isinstance(experiment.model, Diffusion):
        process = experiment.model.process
        resolve("sample.sampler", names.SAMPLERS, sample["sampler"], noise=process, temper=lambda kernel: kernel)
    return runs.fit(experiment, workdir, identity(experiment.config), unit="sequences")


def load(workdir: str | Path, ema_width: float | None = None) -> tuple[Experiment, Any, int]:
    """(experiment, averaged parameters of the network, step) of the newest checkpoint in `workdir`; `ema_width` as for
    `runs.restore`. InputError where there is no checkpoint, or no such average."""
    experiment = build(recall(workdir))
    params, step = runs.restore(experiment, Path(workdir), ema_width)
    return experiment, params, step
