"""Train a model of sequences in a directory, and read it back: config, data, averaged parameters."""

import json
from pathlib import Path
from typing import Any

from jaxdiff import training
from jaxdiff.errors import InputError
from jaxdiff.recipes import runs
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.sequences import names
from jaxdiff.recipes.sequences.config import Config, identity
from jaxdiff.recipes.sequences.experiment import Experiment, build
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.models import Diffusion
from jaxdiff.recipes.sequences.steering import checked
from jaxdiff.recipes.workdir import recall


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = runs.checked_folder(workdir)
    experiment = build(config)
    sample = experiment.config["sample"]
    if not isinstance(experiment.model, Judge):
        checked(experiment.config, experiment.null, sample["guidance"], experiment.train.name, bool(sample["guide"]))
    if isinstance(experiment.model, Diffusion):
        process = experiment.model.process
        resolve("sample.sampler", names.SAMPLERS, sample["sampler"], noise=process, temper=lambda kernel: kernel)
    return runs.fit(experiment, workdir, identity(experiment.config) | _base_step(experiment), unit="sequences")


def _base_step(experiment):
    """What makes a classifier of hidden states that one, beside its config: how far their network was trained."""
    judge = experiment.model
    return {"base_step": judge.base_step} if isinstance(judge, Judge) and judge.base_step is not None else {}


def load(workdir: str | Path, ema_width: float | None = None) -> tuple[Experiment, Any, int]:
    """(experiment, averaged parameters of the network, step) of the newest checkpoint in `workdir`; `ema_width` as for
    `runs.restore`. InputError where there is no checkpoint, or no such average."""
    experiment = build(recall(workdir))
    record = Path(workdir) / "run.json"
    for name, now in _base_step(experiment).items() if record.is_file() else ():
        then = json.loads(record.read_text())["config"][name]
        if now != then:
            raise InputError(
                f"{workdir} learned to read the hidden states of {experiment.config['model']['of']} at its step "
                f"{then}, and that run is at step {now} now; train the classifier anew in another folder"
            )
    params, step = runs.restore(experiment, Path(workdir), ema_width)
    return experiment, params, step


def advised(workdir: Path, experiment: Experiment, guide: str | Path | None) -> tuple[Experiment, Any] | None:
    """(experiment, parameters) of the classifier in the folder `guide` (the config's, unless given); None for none.

    Raises InputError for one that cannot steer the run in `workdir`."""
    folder = guide or experiment.config["sample"]["guide"]
    if not folder:
        return None
    judge, params, _ = load(folder)
    own, its = experiment.config, judge.config
    if not isinstance(judge.model, Judge):
        raise InputError(f"the guide {folder} is no classifier; give a run with config.model.name=classifier")
    if judge.train.tokeniser != experiment.train.tokeniser or judge.length != experiment.length:
        raise InputError(
            f"the guide {folder} reads other sequences than {workdir} writes: of another alphabet or length"
        )
    diffuses = isinstance(experiment.model, Diffusion)
    if judge.model.reads == "noisy" and diffuses and any(own[part] != its[part] for part in ("process", "alpha")):
        raise InputError(
            f"the guide {folder} knows the noise of {its['process']}, {its['alpha']}, and {workdir} has "
            f"{own['process']}, {own['alpha']}: train it with the same"
        )
    if judge.model.reads == "hidden" and Path(its["model"]["of"]).resolve() != Path(workdir).resolve():
        raise InputError(f"the guide {folder} reads the hidden states of {its['model']['of']}, not of {workdir}")
    return judge, params
