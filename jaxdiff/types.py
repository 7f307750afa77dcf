"""The words that every signature is written in."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

PRNGKey = Key[Array, ""]
Time = Float[ArrayLike, "..."] | int
"""Diffusion time in [0, 1]: data at 0, noise at 1."""
Scalar = Float[Array, "..."]
"""One number for one time (an array of times gives an array)."""
State = PyTree
"""One example's noisy data, without a batch axis: an array, or a tree of arrays for a product process."""
Belief = PyTree
"""What a denoiser says of the clean data: E[x0 | x_t] for Gaussian noise."""
Noise = Callable[..., Any]
"""(key, shape, dtype) -> standard normal array: `jax.random.normal`, or what a golden test injects."""


@runtime_checkable
class Denoiser(Protocol):
    """The belief about clean data x0, given the noisy `x` at time `t`."""

    def __call__(self, x: State, t: Time) -> Belief: ...
