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
from jaxdiff.recipes.resolve import option, resolve


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
    process = resolve("process", names.PROCESSES, config["process"])
    row = resolve("row", names.ROWS, config["row"])
    c_in = resolve("c_in", names.C_IN, config["c_in"], row=row)
    c_noise = resolve("c_noise", names.C_NOISE, config["c_noise"])
    loss_row = resolve("loss_row", names.LOSS_ROWS, config["loss_row"], row=row)
    weight = resolve("weight", names.WEIGHTS, config["weight"])
    law = resolve("times", names.TIMES, config["times"])
    schedule = _schedule(settings)
    chosen = resolve("train.optimizer", names.OPTIMIZERS, settings["optimizer"], learning_rate=schedule)
    optimizer = training.clipped(chosen, settings["clip"])
    widths: Any = settings["ema_widths"]
    average = training.ema.half_life(settings["ema_half_life"], ramp=settings["ema_ramp"])
    average = training.ema.widths(*widths) if widths else average
    if settings["snapshot_every"] and not widths:
        raise InputError("config.train.snapshot_every keeps the averages of config.train.ema_widths: give their widths")

    train, held_out = resolve("data", names.DATA, config["data"]).split(config["held_out"], seed)
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
        return networks.functional(resolve("network", names.NETWORKS, config["network"], **given, rngs=nnx.Rngs(seed)))

    def make_uncertainty():
        return networks.functional(networks.LogVariance(rngs=nnx.Rngs(seed)))

    def initial():
        params = make()[1]
        if config["uncertainty"]:
            params = {"net": params, "u": make_uncertainty()[1]}
        return training.init(jax.random.key(seed), params, optimizer, ema=average)

    apply = jax.jit(lambda: make()[0])()
    network = denoisers.from_network(apply, row, process, c_in=c_in, c_noise=c_noise)
    loss = losses.matching(process, loss_row, weight)
    apply_u = jax.jit(lambda: make_uncertainty()[0])() if config["uncertainty"] else None
    hide = config["label_dropout"] if classes else 0.0
    dropout = bool(option(names.NETWORKS, config["network"], "dropout"))
    return Experiment(
        config=config,
        train=train,
        held_out=held_out,
        process=process,
        network=network,
        null=classes,
        objective=_objective(network, loss, law, settings["batch_size"], classes, hide, dropout, augment, apply_u),
        optimizer=optimizer,
        average=average,
        initial=initial,
    )


def _schedule(settings):
    warmup, batch = settings["warmup"], settings["batch_size"]
    if settings["flat"]:
        return training.inverse_sqrt(settings["learning_rate"], batch, flat=settings["flat"], examples=warmup)
    return training.ramp(settings["learning_rate"], warmup, batch)


def _objective(network, loss, law, batch_size, null, hide, dropout, augment, apply_u):
    """(params, key, batch) -> one loss an example, per pixel; a class is hidden with probability `hide`, `augment`
    moves the image and tells the network, `apply_u` learns the loss's scale at each noise level.

    Times are drawn for the whole batch, and everything else from the example's own key, so that the losses do not
    depend on how a batch is cut between devices."""

    def one(params, key, example, t, weight):
        label_key, dropout_key, noise_key, augment_key = jax.random.split(key, 4)
        x0, cond = example["x0"], example.get("label")
        if cond is not None:
            cond = jnp.where(jax.random.bernoulli(label_key, hide), jnp.int32(null), cond)
        if augment is not None:
            x0, moves = augment(augment_key, x0)
            cond = {"augment": moves} | ({} if cond is None else {"label": cond})
        score = loss
        if apply_u is not None:
            u = losses.log_variance(apply_u, params["u"], network.process, c_noise=network.c_noise)
            score, params = losses.uncertain(loss, u), params["net"]
        denoise = network(params, cond, key=dropout_key if dropout else None)
        return weight * score(noise_key, denoise, x0, t) / x0.size

    def objective(params, key, batch):
        time_key, example_key = jax.random.split(key)
        times = law(time_key, network.process, batch_size)
        place = batch["index"] % batch_size
        keys = training.example_keys(example_key, batch)
        return jax.vmap(one, (None, 0, 0, 0, 0))(params, keys, batch, times.t[place], times.weight[place])

    return objective
