"""What a training of images minimises: one loss an example, per pixel."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff import likelihood, losses, processes
from jaxdiff.domains import Pixels
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import names
from jaxdiff.recipes.images.model import Architecture
from jaxdiff.runs.resolve import option, resolve
from jaxdiff.runs.training import batch_cost


class Seen(NamedTuple):
    """How an example reaches the network: its class hidden (as `null`) with probability `hide`, its grey levels spread
    over their cells, moved by `augment`, with or without `dropout`."""

    null: int | None
    hide: float
    spread: Any
    augment: Any
    dropout: bool

    def __call__(self, keys: Any, example: Mapping[str, Any]) -> tuple[Any, Any]:
        """(x0, what the network is told) of an example; keys of the class, of augmentation and of the levels."""
        label_key, augment_key, spread_key = keys
        x0, cond = example["x0"], example.get("label")
        if cond is not None:
            cond = jnp.where(jax.random.bernoulli(label_key, self.hide), jnp.int32(self.null), cond)
        if self.spread is not None:
            x0, _ = self.spread(spread_key, x0)
        if self.augment is not None:
            x0, moves = self.augment(augment_key, x0)
            cond = {"augment": moves} | ({} if cond is None else {"label": cond})
        return x0, cond


def objective(config: Mapping[str, Any], made: Architecture, domain: Pixels) -> Callable[..., Any]:
    """(params, key, batch) -> losses, of a complete config; InputError for parts that do not fit each other.

    Where the process is learned, its ends are by the loss and its interior by the loss's variance
    (`likelihood.vdm_objective`)."""
    loss_row = resolve("loss_row", names.LOSS_ROWS, config["loss_row"], row=resolve("row", names.ROWS, config["row"]))
    weight = resolve("weight", names.WEIGHTS, config["weight"])
    options = {"levels": domain.levels, "row": loss_row, "weight": weight}
    criterion = resolve("loss", names.LOSSES, config["loss"], **options)
    _agree(config, criterion, made.learns)
    law = resolve("times", names.TIMES, config["times"])
    seen = Seen(
        made.null,
        config["label_dropout"] if made.null else 0.0,
        likelihood.dequantize.uniform(domain.levels) if config["dequantize"] else None,
        resolve("augment", names.AUGMENTATIONS, config["augment"]),
        bool(option(names.NETWORKS, config["network"], "dropout")),
    )
    batch_size = config["train"]["batch_size"]
    if made.learns:
        return partial(_learned, made.network, criterion, seen, law, batch_size)
    loss = criterion.loss(made.network.process)  # what cannot be is refused here
    read = partial(_read, made, loss)
    return batch_cost(partial(_cost, read, seen), partial(_times, law, made.network.process), batch_size)


def _cost(read, seen, params, key, example, t, weight):
    """The weighted loss of one example at time t, per pixel; read(params) -> (network, its parameters, loss)."""
    label_key, dropout_key, noise_key, augment_key, spread_key = jax.random.split(key, 5)
    x0, cond = seen((label_key, augment_key, spread_key), example)
    network, params, loss = read(params)
    denoise = network(params, cond, key=dropout_key if seen.dropout else None)
    return weight * loss(noise_key, denoise, x0, t) / x0.size


def _read(made, loss, params):
    """The network as it stands, with the loss in units of its learned size where that is learned."""
    if made.uncertainty is None:
        return made.network, params, loss
    network = made.network
    u = losses.log_variance(made.uncertainty, params["u"], network.process, c_noise=network.c_noise)
    return network, params["net"], losses.uncertain(loss, u)


def _learned(network, criterion, seen, law, batch_size, params, key, batch):
    """The losses where the process learns beside the network."""

    def half(make):
        def costs(net, gamma):
            process = processes.logsnr(gamma)
            own, loss = eqx.tree_at(lambda n: n.process, network, process), make(process)
            cost = partial(_cost, lambda net: (own, net["net"], loss), seen)
            return batch_cost(cost, partial(_times, law, process), batch_size)(net, key, batch)

        return costs

    gamma = params["process"].schedule.gamma
    return likelihood.vdm_objective(half(criterion.loss), half(criterion.variance), {"net": params["net"]}, gamma)


def _times(law, process, params, key, n):
    return law(key, jax.lax.stop_gradient(process), n)


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
