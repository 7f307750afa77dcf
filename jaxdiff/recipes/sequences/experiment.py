"""One sequence experiment, put together as its config names it: what trains, and the run that it leaves."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff import domains, grids, networks, training
from jaxdiff.data.sequences import Tokens
from jaxdiff.errors import InputError
from jaxdiff.recipes.sequences import names
from jaxdiff.recipes.sequences.autoregression import Writing
from jaxdiff.recipes.sequences.config import Config, complete, identity
from jaxdiff.recipes.sequences.diffusion import Diffusing
from jaxdiff.recipes.sequences.judges import Classifier, HiddenJudge, Judge
from jaxdiff.recipes.sequences.model import model
from jaxdiff.runs.folder import checked, recall, recall_domain
from jaxdiff.runs.model import Run
from jaxdiff.runs.resolve import option, resolve
from jaxdiff.runs.training import Training, averaged, batch_cost, fit, optimizer

KINDS: dict[str, Any] = {"diffusion": Diffusing, "autoregressive": Writing, "classifier": Classifier}
"""What config.model can name."""


def read(config: Config) -> tuple[Tokens, Tokens]:
    """(train, held-out) sequences of a complete config."""
    return resolve("data", names.DATA, config["data"], held_out=config["held_out"], seed=config["seed"])


def architecture(config: Mapping[str, Any], domain: Any) -> Any:
    """The Diffusion, Autoregression or Judge of a complete config; InputError for one that cannot be."""
    return resolve("model", KINDS, config["model"], beside=load).build(config, domain)


def build(config: Config) -> Training:
    """All that training needs, of any config; InputError for an unknown field or name, or data that cannot be read."""
    return _put_together(config)[0]


def _put_together(config):
    """(what trains, its kind of model) of a config."""
    config = complete(config)
    resolve("model", KINDS, config["model"], beside=load)
    chosen, average = optimizer(config["train"], names.OPTIMIZERS)
    train, held_out = read(config)
    domain = domains.of(train)
    kind = architecture(config, domain)
    loss = objective(kind, config, len(domain.classes) or None)
    whose = identity(config) | _base_step(kind)
    return Training(config, train, held_out, domain, loss, _parameters(kind), chosen, average, whose), kind


def train(config: Config, workdir: str | Path) -> training.Run:
    """Train to config.train.steps in `workdir`, from its newest checkpoint where there is one.

    Raises InputError for a bad config, or a workdir of another config's run; training.RunStopped when it cannot go on.
    A mistake in the config is found before the workdir is taken."""
    workdir = checked(workdir)
    made, kind = _put_together(config)
    model(kind, config=made.config, domain=made.domain, params=None, folder=workdir).check()
    return fit(made, workdir)


def load(workdir: str | Path, ema_width: float | None = None) -> Run:
    """The run in `workdir`, with the averaged parameters of its newest checkpoint; `ema_width` as `averaged` has it.

    Neither an optimiser nor, but for a run of an earlier version, the data are needed. InputError where there is no
    checkpoint, or no such average."""
    workdir, config = Path(workdir), complete(recall(workdir))
    domain: Any = recall_domain(workdir)
    domain = domains.of(read(config)[0]) if domain is None else domain
    kind = architecture(config, domain)
    _check_base(workdir, kind)
    params, step = averaged(workdir, config, _parameters(kind), ema_width)
    made = model(kind, config=config, domain=domain, params=params, folder=workdir)
    return Run(workdir, config, made, step, partial(read, config), load)


def _parameters(kind):
    return lambda: networks.functional(kind.make())[1]


def _base_step(kind):
    """What makes a classifier of hidden states that one, beside its config: how far their network was trained."""
    return {"base_step": kind.base_step} if isinstance(kind, HiddenJudge) else {}


def _check_base(workdir, kind):
    """InputError where the run whose hidden states a judge reads has gone on since."""
    record = workdir / "run.json"
    if not isinstance(kind, HiddenJudge) or not record.is_file():
        return
    then = json.loads(record.read_text())["config"]["base_step"]
    if kind.base_step != then:
        raise InputError(
            f"{workdir} learned to read the hidden states of {kind.of} at its step {then}, and that run is at step "
            f"{kind.base_step} now; train the classifier anew in another folder"
        )


def objective(kind: Any, config: Mapping[str, Any], null: int | None) -> Callable[..., Any]:
    """(params, key, batch) -> the model's cost of each example; a model that draws sees a class hidden, as `null`."""
    process, hide = kind.process, 0.0 if isinstance(kind, Judge) else config["label_dropout"]
    law: Any = _no_times if process is None else resolve("times", names.TIMES, config["times"])
    dropout = bool(option(names.NETWORKS, config["network"], "dropout"))

    def cost(params, key, example, t, weight):
        label_key, *keys = jax.random.split(key, 3)
        label = example.get("label")
        if label is not None and hide:
            label = jnp.where(jax.random.bernoulli(label_key, hide), jnp.int32(null), label)
        return weight * kind.cost(params, keys, example["x0"], label, t, dropout=dropout)

    return batch_cost(cost, lambda params, key, n: law(key, process, n), config["train"]["batch_size"])


def _no_times(key, process, n):
    """For a model that has none."""
    return grids.Times(jnp.zeros(n), jnp.ones(n))
