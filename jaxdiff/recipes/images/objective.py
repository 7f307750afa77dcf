"""What a training of images minimises: (params, key, batch) -> one loss an example, per pixel.

Times are drawn for the whole batch, and everything else from the example's own key, so that the losses do not depend on
how a batch is cut between devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff import likelihood, losses, processes, training
from jaxdiff.denoisers import Network


class Criterion(NamedTuple):
    """process -> the loss of one example; and the part of it whose variance a learned schedule lowers, if it has
    one."""

    loss: Callable[[processes.Gaussian], Any]
    variance: Callable[[processes.Gaussian], Any] | None = None


class Seen(NamedTuple):
    """How an example reaches the network: its class hidden (as `null`) with probability `hide`, its grey levels spread
    over their cells, moved by `augment`, with or without `dropout`."""

    null: int | None
    hide: float
    spread: Any
    augment: Any
    dropout: bool


def objective(
    network: Network, criterion: Criterion, law: Any, batch_size: int, seen: Seen, *, apply_u: Any, learns: bool
) -> Callable[..., Any]:
    """`apply_u` learns the loss's scale at each noise level, beside the network; where the process `learns` too, its
    ends do so by the loss and its interior by the loss's variance (`likelihood.vdm_objective`)."""

    fixed = None if learns else criterion.loss(network.process)  # what cannot be is refused here

    def one(params, process, loss, key, example, t, weight):
        label_key, dropout_key, noise_key, augment_key, spread_key = jax.random.split(key, 5)
        x0, cond = example["x0"], example.get("label")
        if cond is not None:
            cond = jnp.where(jax.random.bernoulli(label_key, seen.hide), jnp.int32(seen.null), cond)
        if seen.spread is not None:
            x0, _ = seen.spread(spread_key, x0)
        if seen.augment is not None:
            x0, moves = seen.augment(augment_key, x0)
            cond = {"augment": moves} | ({} if cond is None else {"label": cond})
        if apply_u is not None:
            u = losses.log_variance(apply_u, params["u"], process, c_noise=network.c_noise)
            loss = losses.uncertain(loss, u)
        net = params["net"] if learns or apply_u is not None else params
        own = eqx.tree_at(lambda n: n.process, network, process)
        denoise = own(net, cond, key=dropout_key if seen.dropout else None)
        return weight * loss(noise_key, denoise, x0, t) / x0.size

    def objective(params, key, batch):
        time_key, example_key = jax.random.split(key)
        process = params["process"] if learns else network.process
        times = law(time_key, jax.lax.stop_gradient(process), batch_size)
        place = batch["index"] % batch_size
        rows = training.example_keys(example_key, batch), batch, times.t[place], times.weight[place]

        def each(params, process, loss):
            return jax.vmap(lambda *row: one(params, process, loss, *row))(*rows)

        if not learns:
            return each(params, process, fixed)

        def half(make):
            def losses(params, gamma):
                process = processes.logsnr(gamma)
                return each(params, process, make(process))

            return losses

        rest = {name: part for name, part in params.items() if name != "process"}
        gamma = process.schedule.gamma  # pyright: ignore[reportAttributeAccessIssue]
        return likelihood.vdm_objective(half(criterion.loss), half(criterion.variance), rest, gamma)

    return objective
