"""One sequence experiment, put together: data, model, objective, optimiser, as its config names them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxdiff import beliefs, denoisers, grids, networks, training
from jaxdiff.data.sequences import Pixels, Tokens
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes import runs
from jaxdiff.recipes.resolve import option, resolve, takes
from jaxdiff.recipes.sequences import judges, names
from jaxdiff.recipes.sequences.config import Config, complete
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.models import Autoregression, Diffusion
from jaxdiff.recipes.workdir import recall

MEANINGS = {"leave_one_out": beliefs.LeaveOneOut, "posterior": beliefs.Posterior}


@dataclass(frozen=True)
class Experiment:
    """What a config stands for; `null` is the label that hides a class, None for data without classes."""

    config: dict[str, Any]
    train: Tokens
    held_out: Tokens
    model: Diffusion | Autoregression | Judge
    null: int | None
    objective: Any
    optimizer: optax.GradientTransformation
    average: Any
    initial: Callable[[], training.TrainState]  # the state before step 0: pure, to be jitted or only shaped

    @property
    def length(self) -> int:
        """The number of tokens of a sequence."""
        return self.train.shape[0]

    @property
    def writer(self) -> Diffusion | Autoregression:
        """The model, where it is one that draws; InputError for a classifier."""
        if isinstance(self.model, Judge):
            raise InputError(
                "this run is a classifier, which draws nothing: it steers another, as "
                "`jaxdiff sample --workdir=ANOTHER --guide=THIS`"
            )
        return self.model


def build(config: Config) -> Experiment:
    """The experiment of a config; InputError for an unknown field or name, or data that cannot be read."""
    config = complete(config)
    kind = resolve("model", names.MODELS, config["model"])
    optimizer, average = runs.optimizer(config["train"], names.OPTIMIZERS)
    train, held_out = resolve("data", names.DATA, config["data"], held_out=config["held_out"], seed=config["seed"])
    classes = train.num_classes or None
    if kind["kind"] == "classifier":
        make, model, process = _judge(config, kind, train)
    else:
        make, model, process = _writer(config, kind["kind"] == "autoregressive", train)

    is_judge = isinstance(model, Judge)
    hide = 0.0 if is_judge else config["label_dropout"]

    def initial():
        return training.init(jax.random.key(config["seed"]), networks.functional(make())[1], optimizer, ema=average)

    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        model=model,
        null=None if is_judge else classes,
        objective=_objective(model, process, config, hide, classes),
        optimizer=optimizer,
        average=average,
        initial=initial,
    )


def _process(config, train):
    alpha = resolve("alpha", names.ALPHAS, config["alpha"])
    return resolve("process", names.PROCESSES, config["process"], vocab=train.vocab, alpha=alpha)


def _writer(config, causal, train):
    """(a maker of the network, the model that draws, the process at whose times it trains)."""
    process = None if causal else _process(config, train)
    given = {
        "vocab": train.vocab,
        "states": train.vocab + 1 if process is None else process.states,  # a mask, or a first token
        "num_classes": train.num_classes or None,
        "causal": causal,
        "time_conditioned": not causal and config["level"] != "none",
        "shape": train.tokeniser.shape if isinstance(train.tokeniser, Pixels) else train.shape,
    }
    if causal:
        _check_reads_text(config)

    def make():
        return resolve("network", names.NETWORKS, config["network"], **given, rngs=counted(config["seed"]))

    part = _parts(make)
    if process is None:
        empty = _empty(make, lambda net, length: net.init_cache(1, length))
        return make, Autoregression(part("__call__"), part, empty, train.vocab), None
    meaning = MEANINGS[config["meaning"]]
    network = denoisers.from_token_network(part("__call__"), process, meaning, level=_level(config))
    return make, Diffusion(network, resolve("loss", names.LOSSES, config["loss"], noise=process), part), process


def _judge(config, kind, train):
    """The same of a classifier."""
    if not train.num_classes:
        raise InputError(
            f"{train.name} has no classes to tell apart; give a data set with labels, or config.data.label"
        )
    if kind["reads"] == "hidden":
        return _judge_of_hidden(config, kind, train)
    _check_reads_text(config)
    process, level = (_process(config, train), _level(config)) if kind["reads"] == "noisy" else (None, None)
    given = {
        "vocab": train.num_classes,
        "states": train.vocab + 1 if process is None else process.states,
        "num_classes": None,
        "causal": process is None,
        "time_conditioned": level is not None,
    }

    def make():
        rngs = counted(config["seed"])
        trunk = resolve("network", names.NETWORKS, config["network"], **given, rngs=rngs)
        return networks.TokenClassifier(trunk, attention=kind["attention"], rngs=rngs)

    part = _parts(make)
    if process is not None:
        see = Partial(judges.noisy, process, level)
        return make, Judge("noisy", part("__call__"), see, level=level), process
    empty = _empty(make, lambda net, length: net.init_cache(1, length))
    see = Partial(judges.prefixes, train.vocab)
    return make, Judge("prefixes", part("__call__"), see, part("step"), empty), None


def _judge_of_hidden(config, kind, train):
    """The same of a classifier that reads what the network of another run makes of sequences."""
    base, params, null, step = _base(kind["of"], train)
    prefix = isinstance(base, Autoregression)
    state = jax.eval_shape(lambda x0: base.states(params, null, jax.random.key(0), x0, 0.5), train.tokens[0])

    def make():
        options = {"attention": kind["attention"], "prefix": prefix, "rngs": counted(config["seed"])}
        return networks.HiddenClassifier(train.num_classes, state.shape[-1], **options)

    part, see = _parts(make), Partial(judges.hidden, base, params, null)
    if not prefix:
        return make, Judge("hidden", part("__call__"), see, base_step=step), base.process
    empty = _empty(make, lambda net, _: net.nothing(1))
    return make, Judge("hidden", part("__call__"), see, part("step"), empty, base_step=step), None


def _base(folder, train):
    """(model, averaged parameters, the label that means none, step) of the run whose hidden states are read."""
    experiment = build(recall(folder))
    _check_reads_text(experiment.config)
    if experiment.train.tokeniser != train.tokeniser or experiment.train.shape != train.shape:
        raise InputError(
            f"config.model.of is {folder}, a run on other sequences than {train.name} (of another length or alphabet); "
            "give one on the same data"
        )
    null = None if experiment.null is None else jnp.int32(experiment.null)
    params, step = runs.restore(experiment, Path(folder))
    return experiment.writer, params, null, step


def _check_reads_text(config):
    network = config["network"]
    if network["name"] in names.NETWORKS and not takes(names.NETWORKS, network, "causal"):
        raise InputError(
            f"config.network {network['name']} reads whole images, and a diffusion of them alone; take TokenDiT or "
            "StateSpace for this model"
        )


def _level(config):
    return denoisers.total_noise if config["level"] == "total_noise" else None


def _parts(make):
    """A network's methods by name, each a function of its parameters."""

    @cache
    def part(method):
        return jax.jit(lambda: networks.functional(make(), method)[0])()

    return part


def _empty(make, say):
    """(length) -> what a network remembers of no token: it says so itself, and is thrown away."""

    @cache
    def empty(length):
        with jax.ensure_compile_time_eval():  # also where a sampler is being compiled
            return jax.jit(lambda: say(make(), length))()

    return empty


def _objective(model, process, config, hide, classes):
    """(params, key, batch) -> the model's cost of each example. Times are drawn for the whole batch, and everything
    else from the example's own key, so that the losses do not depend on how a batch is cut between devices."""
    batch_size = config["train"]["batch_size"]
    law: Any = Partial(_no_times) if process is None else resolve("times", names.TIMES, config["times"])
    dropout = bool(option(names.NETWORKS, config["network"], "dropout"))

    def objective(params, key, batch):
        time_key, example_key = jax.random.split(key)
        times = law(time_key, process, batch_size)
        place = batch["index"] % batch_size

        def one(key, example, t, weight):
            label_key, *keys = jax.random.split(key, 3)
            label = example.get("label")
            if label is not None and hide:
                label = jnp.where(jax.random.bernoulli(label_key, hide), jnp.int32(classes), label)
            return weight * model.cost(params, keys, example["x0"], label, t, dropout=dropout)

        keys = training.example_keys(example_key, batch)
        return jax.vmap(one)(keys, batch, times.t[place], times.weight[place])

    return objective


def _no_times(key, process, n):
    """For a model that has none."""
    return grids.Times(jnp.zeros(n), jnp.ones(n))
