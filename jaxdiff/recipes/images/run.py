"""Train an image model in a directory, and read it back: config, data, averaged parameters."""

from pathlib import Path
from typing import Any

from jaxdiff import training
from jaxdiff.recipes import runs
from jaxdiff.recipes.images.config import Config, identity
from jaxdiff.recipes.images.experiment import Experiment, build
from jaxdiff.recipes.workdir import recall


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = runs.checked_folder(workdir)
    experiment = build(config)
    experiment.sampler()
    return runs.fit(experiment, workdir, identity(experiment.config), unit="images")


def load(workdir: str | Path, ema_width: float | None = None) -> tuple[Experiment, Any, int]:
    """(experiment, averaged parameters of the network, step) of the newest checkpoint in `workdir`.

    `ema_width` (the config's unless given) chooses among several averages; one that was not tracked is reconstructed
    from the run's snapshots. InputError where there is no checkpoint, or no such average."""
    experiment = build(recall(workdir))
    params, step = runs.restore(experiment, Path(workdir), ema_width)
    return *experiment.trained(params), step
