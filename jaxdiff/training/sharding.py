"""Data parallelism: parameters on every device, the batch cut between them, one gradient.

Two ways that give the same numbers: `data_parallel` (jit over a mesh of Auto axes, the compiler adds the
communication) and `pmapped` (jax.pmap, the step adds it: make the step with `axis_name`). Both take and give whole
batches and whole states, in one process.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdiff.errors import InputError
from jaxdiff.training.state import TrainState
from jaxdiff.training.step import Batch, Step, batch_size

AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with one Auto axis "data" over `devices` (default: all); `jax.make_mesh` would make it Explicit."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(state: TrainState, mesh: Mesh) -> TrainState:
    """The same state, whole on every device of the mesh."""
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def split(batch: Batch, mesh: Mesh) -> Batch:
    """The same batch, its leading axis cut between the devices; InputError when it does not divide."""
    _divides(batch, mesh.size)
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


def data_parallel(step: Step, mesh: Mesh | None = None, *, donate: bool = True) -> Step:
    """Compile a train step for all devices of `mesh` (default: all visible); InputError when a batch does not divide.

    `donate` gives the old state's memory to the new one: the state that was passed in cannot be used afterwards.
    """
    mesh = data_mesh() if mesh is None else mesh
    whole, cut = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))
    compiled = jax.jit(
        step, in_shardings=(whole, cut), out_shardings=(whole, whole), donate_argnums=(0,) if donate else ()
    )

    def parallel(state, batch):
        _divides(batch, mesh.size)
        if state.step.sharding != whole:  # a state from elsewhere would compile once more
            state = jax.device_put(state, whole)
        return compiled(state, batch)

    return parallel


def pmapped(step: Step, devices: Sequence[Any] | None = None) -> Step:
    """The same through `jax.pmap`, for a step made with `axis_name="data"`; InputError when a batch does not divide."""
    devices = jax.devices() if devices is None else devices
    mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, devices=devices)

    def parallel(state, batch):
        _divides(batch, len(devices))
        return mapped(state, jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), batch))

    return parallel


def _divides(batch, devices):
    size = batch_size(batch)
    if size % devices:
        raise InputError(
            f"a batch of {size} examples does not split over {devices} devices: make it a multiple of {devices}, or "
            "give a mesh of fewer devices"
        )
