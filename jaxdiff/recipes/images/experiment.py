"""One image experiment, put together: data, process, network, objective, optimiser, as its config names them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.tree_util import Partial

from jaxdiff import data, denoisers, guidance, losses, networks, processes, samplers, training
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import names
from jaxdiff.recipes.images.config import Config, complete
from jaxdiff.recipes.resolve import resolve


@dataclass(frozen=True)
class Experiment:
    """What a config stands for. `network(params, label)` is a denoiser of one image; `null` is the hidden class."""

    config: dict[str, Any]
    train: data.Images
    held_out: data.Images
    process: processes.Gaussian
    network: denoisers.Network
    null: int | None
    objective: Any
    optimizer: optax.GradientTransformation
    average: Any
    initial: Callable[[], training.TrainState]  # the state before step 0: pure, to be jitted or only shaped

    @property
    def classes(self) -> int:
        """How many classes the images have; 0 for none."""
        return self.train.num_classes

    def sampler(self, spec: Mapping[str, Any] | None = None) -> samplers.Sampler:
        """The Sampler that `spec` (by default the config's) names; InputError for one that cannot be."""
        return resolve("sample.sampler", names.SAMPLERS, spec or self.config["sample"]["sampler"])(self.process)

    def make_denoise(self, params: Any, weight: float = 1.0) -> Any:
        """label -> Denoiser, with classifier-free guidance of `weight` (1 is none); InputError where none can be."""
        if weight == 1:
            return self.network.bind(params)
        if self.null is None or not self.config["label_dropout"]:
            why = f"{self.train.name} has no classes" if self.null is None else "it was trained with label_dropout=0"
            raise InputError(
                f"guidance is {weight}, but this model knows no images without their class ({why}): leave guidance at 1"
            )
        return Partial(_guided, self.network, params, jnp.int32(self.null), jnp.float32(weight))


def _guided(network, params, null, weight, label):
    return guidance.classifier_free(network(params, label), network(params, null), weight)


def build(config: Config) -> Experiment:
    """The experiment of a config; InputError for an unknown field or name, or data that cannot be read."""
    config = complete(config)
    settings, seed = config["train"], config["seed"]
    process = resolve("process", names.PROCESSES, config["process"])
    row = resolve("row", names.ROWS, config["row"])
    weight = resolve("weight", names.WEIGHTS, config["weight"])
    law = resolve("times", names.TIMES, config["times"])
    schedule = training.ramp(settings["learning_rate"], settings["warmup"], settings["batch_size"])
    chosen = resolve("train.optimizer", names.OPTIMIZERS, settings["optimizer"], learning_rate=schedule)
    optimizer = training.clipped(chosen, settings["clip"])
    average = training.ema.half_life(settings["ema_half_life"], ramp=settings["ema_ramp"])

    train, held_out = resolve("data", names.DATA, config["data"]).split(config["held_out"], seed)
    classes = train.num_classes or None
    given = {"channels": train.shape[-1], "shape": train.shape, "num_classes": classes}

    def make():
        return networks.functional(resolve("network", names.NETWORKS, config["network"], **given, rngs=nnx.Rngs(seed)))

    def initial():
        return training.init(jax.random.key(seed), make()[1], optimizer, ema=average)

    network = denoisers.from_network(jax.jit(lambda: make()[0])(), row, process)
    loss = losses.matching(process, row, weight)
    hide = config["label_dropout"] if classes else 0.0
    dropout = bool(config["network"].get("dropout", 0))
    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        process=process,
        network=network,
        null=classes,
        objective=_objective(network, loss, law, settings["batch_size"], classes, hide, dropout),
        optimizer=optimizer,
        average=average,
        initial=initial,
    )


def _objective(network, loss, law, batch_size, null, hide, dropout):
    """(params, key, batch) -> one loss an example, per pixel; a class is hidden with probability `hide`.

    Times are drawn for the whole batch, and everything else from the example's own key, so that the losses do not
    depend on how a batch is cut between devices."""

    def one(params, key, example, t, weight):
        label_key, dropout_key, noise_key = jax.random.split(key, 3)
        label = example.get("label")
        if label is not None:
            label = jnp.where(jax.random.bernoulli(label_key, hide), jnp.int32(null), label)
        denoise = network(params, label, key=dropout_key if dropout else None)
        return weight * loss(noise_key, denoise, example["x0"], t) / example["x0"].size

    def objective(params, key, batch):
        time_key, example_key = jax.random.split(key)
        times = law(time_key, network.process, batch_size)
        place = batch["index"] % batch_size
        keys = training.example_keys(example_key, batch)
        return jax.vmap(one, (None, 0, 0, 0, 0))(params, keys, batch, times.t[place], times.weight[place])

    return objective
