"""Arrays and trees of them: real-valued leaves, one dtype, and a random key a leaf that hangs on the leaf's name."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxdiff.types import PRNGKey


def as_array(value: Any) -> Array:
    """`value` as an array of floats: Python numbers and integers take the default float dtype.

    The converter of every numeric field: a Python float would be static to JAX and get no gradient."""
    dtype = getattr(value, "dtype", np.dtype(int))
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(dtype if jnp.issubdtype(dtype, jnp.inexact) else float))


def aligned(x: Any, t: Any) -> tuple[Array, Array]:
    """A state and its time as arrays of one dtype, the state's."""
    x = as_array(x)
    return x, as_array(t).astype(x.dtype)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """`tree` with its floating leaves in `dtype`; other leaves untouched."""
    # A lambda: every coefficient of every process comes by here, and a named function is checked anew in tests.
    return jax.tree.map(
        lambda x: x.astype(dtype) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def float_dtype(tree: PyTree, otherwise: Any) -> Any:
    """The dtype of the floating leaves of `tree`, and `otherwise` where it has none (tokens alone)."""
    floats = [leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.result_type(*floats) if floats else otherwise


def keys_of(key: PRNGKey, tree: PyTree, is_leaf: Any = None) -> PyTree:
    """A key for each leaf of `tree`: fold_in(key, crc32(path)), so a dict and a struct of the same names draw alike."""

    def leaf(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jax.random.fold_in(key, zlib.crc32(name.encode()))

    return jax.tree_util.tree_map_with_path(leaf, tree, is_leaf=is_leaf)
