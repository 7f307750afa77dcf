"""One image experiment, put together: data, process, network, objective, optimiser, as its config names them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from jaxdiff import data, denoisers, guidance, likelihood, networks, processes, samplers, training
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes import runs
from jaxdiff.recipes.images import names
from jaxdiff.recipes.images.config import Config, complete
from jaxdiff.recipes.images.objective import Seen, objective
from jaxdiff.recipes.resolve import option, resolve


@dataclass(frozen=True)
class Experiment:
    """What a config stands for. `network(params, label)` is a denoiser of one image; `null` is the hidden class.

    Where more is learned than a network (`beside`: its uncertainty, the process), the parameters of a training are
    {"net": ..., **beside}, and `trained` puts what was learned in its place."""

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
    beside: tuple[str, ...]

    @property
    def classes(self) -> int:
        """How many classes the images have; 0 for none."""
        return self.train.num_classes

    def trained(self, params: Any) -> tuple["Experiment", Any]:
        """(this experiment with the process that was learned, the network's own parameters)."""
        if not self.beside:
            return self, params
        process = params.get("process", self.process)
        network = eqx.tree_at(lambda n: n.process, self.network, process)
        return replace(self, process=process, network=network), params["net"]

    def sampler(self, spec: Mapping[str, Any] | None = None) -> samplers.Sampler:
        """The Sampler that `spec` (by default the config's) names; InputError for one that cannot be."""
        return resolve("sample.sampler", names.SAMPLERS, spec or self.config["sample"]["sampler"])(self.process)

    def make_denoise(self, params: Any, weight: float = 1.0, guide: Any = None) -> Any:
        """label -> Denoiser with guidance of `weight` (1 is none), away from `guide` = (network, params) of a weaker
        model, else from the model without its class; InputError where none can be."""
        if weight == 1:
            return self.network.bind(params)
        if guide is not None:
            return Partial(_autoguided, self.network, params, guide, jnp.float32(weight))
        if self.null is None or not self.config["label_dropout"]:
            why = f"{self.train.name} has no classes" if self.null is None else "it was trained with label_dropout=0"
            raise InputError(
                f"guidance is {weight}, but this model knows no images without their class ({why}): leave guidance at 1"
            )
        return Partial(_guided, self.network, params, jnp.int32(self.null), jnp.float32(weight))


def _guided(network, params, null, weight, label):
    return guidance.classifier_free(network(params, label), network(params, null), weight)


def _autoguided(network, params, guide, weight, label):
    weaker, weaker_params = guide
    own = denoisers.recast(weaker(weaker_params, label), weaker.process, network.process)
    return guidance.autoguidance(network(params, label), own, weight)


def build(config: Config) -> Experiment:
    """The experiment of a config; InputError for an unknown field or name, or data that cannot be read."""
    config = complete(config)
    settings, seed = config["train"], config["seed"]
    process = resolve("process", names.PROCESSES, config["process"], seed=seed)
    learns = config["process"]["name"] == "learned"
    row = resolve("row", names.ROWS, config["row"])
    c_in = resolve("c_in", names.C_IN, config["c_in"], row=row)
    c_noise = resolve("c_noise", names.C_NOISE, config["c_noise"])
    loss_row = resolve("loss_row", names.LOSS_ROWS, config["loss_row"], row=row)
    weight = resolve("weight", names.WEIGHTS, config["weight"])
    law = resolve("times", names.TIMES, config["times"])
    optimizer, average = runs.optimizer(settings, names.OPTIMIZERS)
    train, held_out = resolve("data", names.DATA, config["data"]).split(config["held_out"], seed)
    spread = likelihood.dequantize.uniform(train.levels) if config["dequantize"] else None
    classes = train.num_classes or None
    augment = resolve("augment", names.AUGMENTATIONS, config["augment"])
    told = 0 if augment is None else len(augment.labels)
    height, _, channels = train.shape
    given = {"channels": channels, "shape": train.shape, "size": height, "num_classes": classes, "augment": told}
    if told and option(names.NETWORKS, config["network"], "augment") is None:
        raise InputError(
            f"config.augment moves the images, and the network {config['network']['name']} cannot be told so: it would "
            "draw moved ones; take one with augmentation labels, such as ddpmpp"
        )

    def make():
        return networks.functional(resolve("network", names.NETWORKS, config["network"], **given, rngs=counted(seed)))

    def make_uncertainty():
        return networks.functional(networks.LogVariance(rngs=counted(seed)))

    def initial():
        params = make()[1]
        beside = ({"u": make_uncertainty()[1]} if config["uncertainty"] else {}) | (
            {"process": process} if learns else {}
        )
        return training.init(
            jax.random.key(seed), {"net": params} | beside if beside else params, optimizer, ema=average
        )

    apply = jax.jit(lambda: make()[0])()
    network = denoisers.from_network(apply, row, process, c_in=c_in, c_noise=c_noise)
    criterion = resolve("loss", names.LOSSES, config["loss"], levels=train.levels, row=loss_row, weight=weight)
    _agree(config, criterion, learns)
    apply_u = jax.jit(lambda: make_uncertainty()[0])() if config["uncertainty"] else None
    hide = config["label_dropout"] if classes else 0.0
    dropout = bool(option(names.NETWORKS, config["network"], "dropout"))
    seen = Seen(classes, hide, spread, augment, dropout)
    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        process=process,
        network=network,
        null=classes,
        objective=objective(network, criterion, law, settings["batch_size"], seen, apply_u=apply_u, learns=learns),
        optimizer=optimizer,
        average=average,
        initial=initial,
        beside=(("u",) if config["uncertainty"] else ()) + (("process",) if learns else ()),
    )


def _agree(config, criterion, learns):
    """InputError for parts of a config that do not fit each other."""
    if learns and criterion.variance is None:
        raise InputError(
            f"config.process learns its schedule, and config.loss {config['loss']['name']} bounds no likelihood, which "
            'would teach it: give --config.loss=\'{"name": "vdm"}\''
        )
    if criterion.variance is not None and (config["uncertainty"] or config["dequantize"]):
        raise InputError(
            "config.loss vdm is a bound on whole grey levels as it stands: leave config.uncertainty and "
            "config.dequantize False"
        )
