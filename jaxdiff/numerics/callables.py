"""Functions that are pytrees: what a compiled caller can tell apart by content, not by identity.

A closure made twice is two functions, so JAX traces its caller twice. `jax.tree_util.Partial(body, data)` made twice
has one structure and other leaves, so nothing retraces."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial


def partial(function: Callable[..., Any], *args: Any) -> Any:
    """`function` with its first arguments filled in, as a pytree of them.

    A function that is a pytree already (a Partial, an equinox Module) becomes data of the result, since
    `Partial(Partial(...))` would compare by identity."""
    if _is_pytree(function):
        return Partial(_call, function, *args) if args else function
    return Partial(function, *args)


def _call(function, *args, **options):
    return function(*args, **options)


def _is_pytree(function: Any) -> bool:
    return not jax.tree_util.all_leaves([function])
