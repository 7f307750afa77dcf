"""One update of a `TrainState`, pure and the same on any number of devices.

The one primitive is a batch-level `objective(params, key, batch) -> (B,) losses`; the loss is their mean. The
objective may be called on any part of the global batch (a microbatch, a device's shard), always with the *same* key,
the step's. So it draws by example, from `fold_in(key, batch["index"])`, where "index" is the example's position in
the data stream: then no loss depends on how the batch was cut. `per_example` does that for an objective of one
example. Times of low discrepancy over the batch are u = (u0 + (index mod B) / B) mod 1, with u0 drawn from the key
itself and B the global batch size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from jaxdiff.errors import InputError
from jaxdiff.training import ema as averages
from jaxdiff.training.state import TrainState
from jaxdiff.types import PRNGKey

Batch = PyTree
"""A dict of arrays that lead with B, of which "index" holds each example's position in the data stream."""
Objective = Callable[[PyTree, PRNGKey, Batch], Float[Array, " batch"]]
Metrics = dict[str, Array]
Gradients = Callable[[TrainState, Batch], tuple[Float[Array, ""], PyTree]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def example_keys(key: PRNGKey, batch: Batch) -> Key[Array, " batch"]:
    """One key an example, `fold_in(key, index)`: the same however the batch is cut."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])


def per_example(objective: Callable[..., Float[Array, ""]]) -> Objective:
    """Map `objective(params, key, example) -> scalar` over the batch, each example with its own key."""

    def batched(params, key, batch):
        return jax.vmap(objective, (None, 0, 0))(params, example_keys(key, batch), batch)

    return batched


def make_gradients(objective: Objective, *, accumulate: int = 1, axis_name: str | None = None) -> Gradients:
    """`gradients(state, batch) -> (mean loss, its gradient)`, as a train step of the same options sees them.

    Raises InputError (at trace) when the batch has no "index", does not split into `accumulate` parts, or when the
    objective returns anything but one loss an example.
    """
    if accumulate < 1:
        raise InputError(f"accumulate is {accumulate}, expected 1 or more parts of a batch")

    def mean_loss(params, key, batch):
        losses = objective(params, key, batch)
        if losses.shape != (batch_size(batch),):
            raise InputError(
                f"the objective returned shape {losses.shape}, expected ({batch_size(batch)},), one loss an example: "
                "wrap an objective of one example in per_example"
            )
        return jnp.mean(losses.astype(averages.wide(losses.dtype)))

    def gradients(state, batch):
        batch_size(batch)  # checks it
        key = jax.random.fold_in(state.key, state.step)
        one = jax.value_and_grad(mean_loss)
        if accumulate == 1:
            loss, grads = one(state.params, key, batch)
        else:
            part = jax.eval_shape(lambda b: jax.tree.map(lambda leaf: leaf[0], b), parts := _cut(batch, accumulate))
            zeros = jax.tree.map(_wide_zeros, jax.eval_shape(one, state.params, key, part))

            def add(total, part):
                return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, one(state.params, key, part)), None

            total, _ = jax.lax.scan(add, zeros, parts)
            loss, grads = jax.tree.map(lambda t: t / accumulate, total)
            grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, state.params)
        return (loss, grads) if axis_name is None else jax.lax.pmean((loss, grads), axis_name)

    return gradients


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    ema: PyTree[averages.Weight] = None,
    project: Callable[[PyTree], PyTree] | None = None,
    accumulate: int = 1,
    axis_name: str | None = None,
    mends: bool = False,
) -> Step:
    """The pure `train_step(state, batch) -> (state, metrics)`: gradient, optax update, averages, counters.

    `ema` is the kind of average of `init`, or the same tree of them. `project` moves the parameters to where the step
    begins (EDM2's forced weight normalisation is `networks.project`): gradient and update are taken there, and the
    averages and the new state see what the update made of it, not projected. `accumulate=k` computes the gradient in k
    parts, one after the other, in 1/k of the memory. `axis_name` names the mapped axis when the step runs under
    `jax.pmap` or `shard_map`; leave it None under `jit`.

    Metrics are scalars: `loss`, `grad_norm` (before any clipping), `update_norm` and `finite`. When one of them is NaN
    or infinite, nothing of the state changes but `finite`, now and in all later steps; with `mends=True`, for an
    optimizer that mends such gradients (`mended`), only the update must be finite. Optax's schedules count `state.step`
    before the step.
    """
    gradients = make_gradients(objective, accumulate=accumulate, axis_name=axis_name)

    def train_step(state, batch):
        here = state if project is None else dataclasses.replace(state, params=project(state.params))
        loss, grads = gradients(here, batch)
        with jax.numpy_dtype_promotion("standard"):  # optax raises float to an integer count
            updates, opt_state = optimizer.update(grads, state.opt_state, here.params)
            params = optax.apply_updates(here.params, updates)
        size = batch_size(batch) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
        average = state.ema
        if ema is not None:
            seen = (state.step, state.position.astype(jnp.float32), jnp.float32(size))
            average = _each(ema, state.ema, lambda weight, a: averages.update(a, params, weight(*seen)))
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
        watched = [metrics["update_norm"]] if mends else metrics.values()
        finite = state.finite & jnp.all(jnp.isfinite(jnp.stack([m.astype(jnp.float32) for m in watched])))

        old = (state.step, state.params, state.opt_state, state.ema, state.position)
        new = (state.step + 1, params, opt_state, average, state.position + jnp.uint32(size))
        kept: Any = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
        step, params, opt_state, average, position = kept
        return TrainState(step, params, opt_state, average, state.key, position, finite), metrics | {"finite": finite}

    return train_step


def batch_size(batch: Batch) -> int:
    """The number of examples in a batch; InputError when it has no "index" or a leaf of another length."""
    if not isinstance(batch, dict) or "index" not in batch:
        raise InputError(
            'a batch is a dict with "index" (each example\'s position in the data stream), got '
            + (f"the keys {sorted(batch)}" if isinstance(batch, dict) else type(batch).__name__)
        )
    size = batch["index"].shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if leaf.shape[:1] != (size,):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"batch leaf {name} has shape {leaf.shape}, expected {size} examples, as many as its index"
            )
    return size


def _each(weights, averaged, function):
    """`function` of each weight and its average; InputError where the two trees differ."""
    leaves, structure = jax.tree.flatten(weights, is_leaf=callable)
    try:
        trees = structure.flatten_up_to(averaged)
    except ValueError:
        trees = [None]
    if any(tree is None for tree in trees):
        raise InputError(
            "the state has not the averages that this step updates: give init the same ema as make_train_step"
        )
    return structure.unflatten(map(function, leaves, trees))


def _cut(batch, k):
    """(B, ...) -> (k, B/k, ...), part i holding the examples i, i + k, ...: each part stays spread over all devices."""
    size = batch_size(batch)
    if size % k:
        raise InputError(f"a batch of {size} examples (on one device) does not split into accumulate={k} equal parts")
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(size // k, k, *leaf.shape[1:]), 0, 1), batch)


def _wide_zeros(leaf):
    return jnp.zeros(leaf.shape, averages.wide(leaf.dtype))
