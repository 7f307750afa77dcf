"""Random streams for the making of a network, with the keys of Flax's own: fold_in(key, 0), fold_in(key, 1), ... Flax
keeps the count as an array, and while a network is traced, to shapes or under `jit`, each draw searches all that was
traced before it: seconds for a published network. Here the count is a Python number."""

import jax
from flax import nnx
from jaxtyping import Array


class Counted(nnx.RngStream):
    """The keys of `seed`, counted in Python: to be used up where it is made, as a jitted function that took it as an
    argument would begin anew at each call."""

    def __init__(self, seed: int):
        super().__init__(jax.random.key(seed), tag="default")
        self.drawn = 0

    def __call__(self) -> Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def counted(seed: int) -> nnx.Rngs:
    """`nnx.Rngs(seed)`, whose keys it draws, for a network that is made inside a trace and keeps no stream."""
    rngs = nnx.Rngs(seed)
    rngs.default = Counted(seed)  # pyright: ignore[reportAttributeAccessIssue]
    return rngs
