"""Mistakes in values: raised at once when the value is known; where it is traced, the program's floats end in NaN."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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

    Raises InputError(message) when `ok` is known to fail. Where it is traced, a float becomes NaN where `ok` fails, and
    nothing calls back to the host, so that the program can be stored, exported and run by several processes; whole
    numbers know no NaN and pass, so whoever reads them seals what it makes of them."""
    if not concrete(ok):
        return sealed(value, ok)
    if not np.asarray(ok).all():  # NumPy's own `all`: JAX's would be traced
        raise InputError(message)
    return value


def sealed(value: Any, ok: Any) -> Any:
    """`value` with its floats NaN unless `ok` holds everywhere: what a compiled program says of a mistake."""
    good = jnp.all(ok)

    def seal(leaf):
        return jnp.where(good, leaf, jnp.nan) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) else leaf

    return jax.tree.map(seal, value)
