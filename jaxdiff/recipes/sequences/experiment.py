"""One sequence experiment, put together: data, model, objective, optimiser, as its config names them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxdiff import beliefs, denoisers, grids, networks, training
from jaxdiff.data.sequences import Tokens
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes import runs
from jaxdiff.recipes.resolve import option, resolve
from jaxdiff.recipes.sequences import names
from jaxdiff.recipes.sequences.config import Config, complete
from jaxdiff.recipes.sequences.models import Autoregression, Diffusion

MEANINGS = {"leave_one_out": beliefs.LeaveOneOut, "posterior": beliefs.Posterior}


@dataclass(frozen=True)
class Experiment:
    """What a config stands for; `null` is the label that hides a class, None for data without classes."""

    config: dict[str, Any]
    train: Tokens
    held_out: Tokens
    model: Diffusion | Autoregression
    null: int | None
    objective: Any
    optimizer: optax.GradientTransformation
    average: Any
    initial: Callable[[], training.TrainState]  # the state before step 0: pure, to be jitted or only shaped

    @property
    def length(self) -> int:
        """The number of tokens of a sequence."""
        return self.train.shape[0]


def build(config: Config) -> Experiment:
    """The experiment of a config; InputError for an unknown field or name, or data that cannot be read."""
    config = complete(config)
    seed = config["seed"]
    if config["model"] not in ({"name": name} for name in names.MODELS):
        raise InputError(f"config.model is {config['model']!r}, expected a name of {', '.join(names.MODELS)}, alone")
    causal = config["model"]["name"] == "autoregressive"
    optimizer, average = runs.optimizer(config["train"], names.OPTIMIZERS)
    train, held_out = resolve("data", names.DATA, config["data"], held_out=config["held_out"], seed=seed)
    classes = train.num_classes or None
    process = None
    if not causal:
        alpha = resolve("alpha", names.ALPHAS, config["alpha"])
        process = resolve("process", names.PROCESSES, config["process"], vocab=train.vocab, alpha=alpha)
    given = {
        "vocab": train.vocab,
        "states": train.vocab + 1 if process is None else process.states,  # a mask, or a first token
        "num_classes": classes,
        "causal": causal,
        "time_conditioned": not causal and config["level"] != "none",
    }

    def make(method="__call__"):
        net = resolve("network", names.NETWORKS, config["network"], **given, rngs=counted(seed))
        return networks.functional(net, method)

    def initial():
        return training.init(jax.random.key(seed), make()[1], optimizer, ema=average)

    apply = jax.jit(lambda: make()[0])()
    if process is None:
        model = _autoregression(config, given, apply, jax.jit(lambda: make("step")[0])(), seed)
    else:
        model = Diffusion(
            _network(config, apply, process), resolve("loss", names.LOSSES, config["loss"], noise=process)
        )
    dropout = bool(option(names.NETWORKS, config["network"], "dropout"))
    hide = config["label_dropout"] if classes else 0.0
    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        model=model,
        null=classes,
        objective=_objective(model, process, config, classes, hide, dropout),
        optimizer=optimizer,
        average=average,
        initial=initial,
    )


def _network(config, apply, process):
    level = denoisers.total_noise if config["level"] == "total_noise" else None
    return denoisers.from_token_network(apply, process, MEANINGS[config["meaning"]], level=level)


def _autoregression(config, given, apply, step, seed):
    def cache(length):
        """An empty cache: the network itself says what it holds, and is thrown away."""
        net = resolve("network", names.NETWORKS, config["network"], **given, rngs=counted(seed))
        return net.init_cache(1, length)

    def empty(length):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(lambda: cache(length)))

    return Autoregression(apply, step, empty, given["vocab"])


def _objective(model, process, config, classes, hide, dropout):
    """(params, key, batch) -> nats per token of each example. Times are drawn for the whole batch, and everything else
    from the example's own key, so that the losses do not depend on how a batch is cut between devices."""
    batch_size = config["train"]["batch_size"]
    law: Any = Partial(_no_times) if process is None else resolve("times", names.TIMES, config["times"])

    def objective(params, key, batch):
        time_key, example_key = jax.random.split(key)
        times = law(time_key, process, batch_size)
        place = batch["index"] % batch_size

        def one(key, example, t, weight):
            label_key, *keys = jax.random.split(key, 3)
            label = example.get("label")
            if label is not None:
                label = jnp.where(jax.random.bernoulli(label_key, hide), jnp.int32(classes), label)
            x0 = example["x0"]
            return weight * model.cost(params, keys, x0, label, t, dropout=dropout) / x0.size

        keys = training.example_keys(example_key, batch)
        return jax.vmap(one)(keys, batch, times.t[place], times.weight[place])

    return objective


def _no_times(key, process, n):
    """For a model that has none."""
    return grids.Times(jnp.zeros(n), jnp.ones(n))
