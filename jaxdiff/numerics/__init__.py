"""Small numerical words that every room uses: checked values, pytree callables, keys of a tree's leaves."""

from jaxdiff.numerics.callables import partial
from jaxdiff.numerics.checks import concrete, known, require, sealed
from jaxdiff.numerics.trees import aligned, as_array, cast, float_dtype, keys_of

__all__ = ["aligned", "as_array", "cast", "concrete", "float_dtype", "keys_of", "known", "partial", "require", "sealed"]
