"""One image experiment, put together: data, process, network, objective, optimiser, as its config names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.tree_util import Partial

from jaxdiff import data, denoisers, grids, guidance, losses, networks, parameterizations, processes, training
from jaxdiff.recipes.images import samplers
from jaxdiff.recipes.images.config import complete
from jaxdiff.recipes.resolve import resolve


@dataclass(frozen=True)
class Experiment:
    """What a config stands for. `network(params, label)` is a denoiser of one image; `null` is the hidden class."""

    config: dict[str, Any]
    train: data.Images
    held_out: data.Images
    process: processes.Gaussian
    network: denoisers.Network
    params: Any
    null: int | None
    objective: Any
    optimizer: optax.GradientTransformation
    average: Any

    @property
    def classes(self) -> int:
        return self.train.num_classes

    def sampler(self, spec: Mapping[str, Any] | None = None) -> Any:
        """The Sampler that `spec` (by default the config's) names."""
        return resolve("sample.sampler", samplers, spec or self.config["sample"]["sampler"])(self.process)

    def make_denoise(self, params: Any, weight: float = 1.0) -> Any:
        """label -> Denoiser, with classifier-free guidance of `weight` (1 is none)."""
        if self.null is None or weight == 1:
            return self.network.bind(params)
        return Partial(_guided, self.network, params, jnp.int32(self.null), jnp.float32(weight))


def _guided(network, params, null, weight, label):
    return guidance.classifier_free(network(params, label), network(params, null), weight)


def build(config: Mapping[str, Any]) -> Experiment:
    """The experiment of a config; InputError for an unknown field or name, or data that cannot be read."""
    config = complete(config)
    images = resolve("data", data, config["data"])
    train, held_out = images.split(config["held_out"], config["seed"])
    process = resolve("process", processes, config["process"])

    height, width, channels = train.shape
    classes = train.num_classes or None
    given = {"channels": channels, "shape": (height, width, channels), "num_classes": classes}
    module = resolve("network", networks, config["network"], **given, rngs=nnx.Rngs(config["seed"]))
    apply, params = networks.functional(module)
    row = resolve("row", parameterizations, config["row"])
    network = denoisers.from_network(apply, row, process)

    settings = config["train"]
    loss = losses.matching(process, row, resolve("weight", losses.weights, config["weight"]))
    law = resolve("times", grids, config["times"])
    hide = config["label_dropout"] if classes else 0.0
    dropout = bool(config["network"].get("dropout", 0))
    objective = _objective(network, loss, law, settings["batch_size"], classes, hide, dropout)

    schedule = training.ramp(settings["learning_rate"], settings["warmup"], settings["batch_size"])
    chosen = resolve("train.optimizer", optax, settings["optimizer"], learning_rate=schedule)
    average = training.ema.half_life(settings["ema_half_life"], ramp=settings["ema_ramp"])
    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        process=process,
        network=network,
        params=params,
        null=classes,
        objective=objective,
        optimizer=training.clipped(chosen, settings["clip"]),
        average=average,
    )


def _objective(network, loss, law, batch_size, null, hide, dropout):
    """(params, key, batch) -> one loss an example, per pixel; a class is hidden with probability `hide`.

    Times are drawn for the whole batch, and everything else from the example's own key, so that the losses do not depend on
    how a batch is cut between devices."""

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
