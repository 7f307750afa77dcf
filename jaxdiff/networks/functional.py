"""A Flax NNX module is an object with state; a diffusion model wants a pure function of pytrees. `functional` is the
bridge: the module falls into a graph definition (static, hashable), its parameters (a nested dict of arrays with
string keys, so that any optimiser or checkpointer takes it) and a frozen rest (buffers, statistics, random streams).

A network is any module called as `net(x, c_noise, cond, key=key)`: x (B, ...) the scaled noisy batch, c_noise (B,)
the noise level, cond None or a pytree whose leaves lead with B, key a scalar typed PRNG key for dropout or None for
none. A module whose call takes no `key` works too: its own random streams are reseeded from the key, and None puts it
in evaluation mode. Running statistics are frozen: a normalisation that averages over the batch uses them, in training
as in evaluation.

`functional` copies nothing: after a step that donates the parameters, the module that they came from is spent."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jax.tree_util import Partial, register_static
from jaxtyping import PyTree

Path = tuple[Any, ...]


@register_static
@dataclass(frozen=True)
class _Structure:
    """What is static about a network. Two equal modules give equal structures, so nothing that is jitted retraces."""

    graph: nnx.GraphDef[Any]
    params: tuple[Path, ...]
    rest: tuple[Path, ...]
    streams: tuple[int, ...]  # which of `rest` are the keys of random streams
    takes_key: bool
    method: str


def functional(net: nnx.Module, method: str = "__call__") -> tuple[Partial, PyTree]:
    """Split `net` into a pure `apply(params, x, c_noise, cond, *, key=None)` and its `params`.

    `method` is another of its methods, which is then what `apply` calls, with that method's arguments.
    `apply` is a pytree (its leaves are the frozen rest of the module): it may be an argument of a jitted function,
    and a second `functional` of an equal module hits that function's cache."""
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    params, rest = nnx.to_flat_state(params), nnx.to_flat_state(rest)
    structure = _Structure(
        graph=graph,
        params=tuple(path for path, _ in params),
        rest=tuple(path for path, _ in rest),
        streams=tuple(i for i, (_, leaf) in enumerate(rest) if isinstance(leaf, nnx.RngKey)),
        takes_key="key" in inspect.signature(getattr(type(net), method)).parameters,
        method=method,
    )
    apply = Partial(_apply, structure, tuple(leaf.get_value() for _, leaf in rest))
    return apply, _nest({path: leaf.get_value() for path, leaf in params})


def count(params: PyTree) -> int:
    """The number of numbers in `params`."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _apply(
    structure: _Structure,
    rest: tuple,
    params: PyTree,
    x: Any,
    c_noise: Any = None,
    cond: Any = None,
    *more: Any,
    key=None,
) -> Any:
    if key is not None:
        streams = {i: jax.random.fold_in(key, i) for i in structure.streams}
        rest = tuple(streams.get(i, leaf) for i, leaf in enumerate(rest))
    flat = {path: _get(params, path) for path in structure.params} | dict(zip(structure.rest, rest, strict=True))
    net = nnx.merge(
        structure.graph, nnx.from_flat_state(flat)
    )  # new variables at each call: what it mutates is dropped
    net.set_attributes(deterministic=key is None, use_running_average=True, raise_if_not_found=False)
    call = getattr(net, structure.method)
    return call(x, c_noise, cond, *more, **({"key": key} if structure.takes_key else {}))


def _nest(flat: dict[Path, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(str(name), {})
        node[str(path[-1])] = leaf
    return tree


def _get(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[str(name)]
    return tree
