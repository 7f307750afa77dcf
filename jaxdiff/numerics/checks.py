"""Mistakes in values: raised at once when the value is known, and when the program runs where it is traced."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from jaxdiff.errors import InputError


def concrete(*values: Any) -> bool:
    """Whether every leaf of `values` is known now (not traced by a JAX transformation)."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def known(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), computed now when the arguments are known, even while a caller is being traced."""
    if concrete(function, args):
        with jax.ensure_compile_time_eval():
            return function(*args)
    return function(*args)


def require(value: Any, ok: Any, message: str) -> Any:
    """`value`, where `ok` holds everywhere; use the result, or a compiled program drops the check.

    Raises InputError(message) when `ok` is known to fail; a compiled program raises the message when it runs."""
    if not concrete(ok):
        return eqx.error_if(value, ~ok, message)
    if not np.asarray(ok).all():  # NumPy's own `all`: JAX's would be traced
        raise InputError(message)
    return value
