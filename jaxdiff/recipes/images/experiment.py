"""One image experiment, put together as its config names it: what trains, and the run that it leaves."""

from functools import partial
from pathlib import Path
from typing import Any

from jaxdiff import data, domains, training
from jaxdiff.recipes.images import names
from jaxdiff.recipes.images.config import Config, complete, identity
from jaxdiff.recipes.images.model import architecture, model
from jaxdiff.recipes.images.objective import objective
from jaxdiff.runs.denoised import sampler
from jaxdiff.runs.folder import checked, recall, recall_domain
from jaxdiff.runs.model import Run
from jaxdiff.runs.resolve import resolve
from jaxdiff.runs.training import Training, averaged, fit, optimizer


def read(config: Config) -> tuple[data.Images, data.Images]:
    """(train, held-out) images of a complete config."""
    return resolve("data", names.DATA, config["data"]).split(config["held_out"], config["seed"])


def build(config: Config) -> Training:
    """All that training needs, of any config; InputError for an unknown field or name, or data that cannot be read."""
    return _put_together(config)[0]


def _put_together(config):
    """(what trains, its network) of a config."""
    config = complete(config)
    chosen, average = optimizer(config["train"], names.OPTIMIZERS)
    train, held_out = read(config)
    domain = domains.of(train)
    made = architecture(config, domain)
    loss = objective(config, made, domain)
    return Training(config, train, held_out, domain, loss, made.parameters, chosen, average, identity(config)), made


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = checked(workdir)
    made, built = _put_together(config)
    sampler(made.config["sample"]["sampler"], built.network.process)
    return fit(made, workdir)


def load(workdir: str | Path, ema_width: float | None = None) -> Run:
    """The run in `workdir`, with the averaged parameters of its newest checkpoint; `ema_width` as `averaged` has it.

    Neither an optimiser nor, but for a run of an earlier version, the data are needed. InputError where there is no
    checkpoint, or no such average."""
    workdir, config = Path(workdir), complete(recall(workdir))
    domain: Any = recall_domain(workdir)
    domain = domains.of(read(config)[0]) if domain is None else domain
    made = architecture(config, domain)
    params, step = averaged(workdir, config, made.parameters, ema_width)
    return Run(workdir, config, model(config, made, params, domain), step, partial(read, config), load)
