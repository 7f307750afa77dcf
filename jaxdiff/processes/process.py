"""What noise does to one state space, as a protocol, so that whoever starts, noises or walks a state asks no process of
what kind it is: numbers, coupled copies of them, tokens, and trees of all of these."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxdiff.errors import InputError
from jaxdiff.types import Belief, Noise, PRNGKey, State, Time


@runtime_checkable
class Process(Protocol):
    """The forward noising of one state space: data at t = 0, noise at t = 1.

    `like(shape_like)`: the shape and dtype of one example's data, as `jax.ShapeDtypeStruct`s; `shape_like` is a shape,
    an array or a struct. `prior(key, like, t)`: where sampling starts, the law of `perturb(key, x0, t)` once nothing is
    left of x0. For numbers that is x0 = 0, at every t; tokens have no 0, so theirs is refused where data are left.
    `noise(key, shape, dtype)` is drawn in the place of normal numbers; what is not made of these, as tokens, hangs on
    the key alone."""

    def like(self, shape_like: Any) -> Any: ...
    def prior(self, key: PRNGKey, like: Any, t: Time = 1.0, *, noise: Noise = jax.random.normal) -> State: ...
    def perturb(self, key: PRNGKey, x0: State, t: Time, *, noise: Noise = jax.random.normal) -> State: ...


@runtime_checkable
class Bridged(Protocol):
    """A process that draws x_s ~ p(x_s | x_t = x, x0), s < t: DDPM's step back, with the data known."""

    def bridge(
        self, key: PRNGKey, x: State, x0: State, t: Time, s: Time, *, noise: Noise = jax.random.normal
    ) -> State: ...


@runtime_checkable
class Believed(Protocol):
    """A process that knows what can be believed of its data: `believed(belief, x)` is `belief`, or the InputError that
    says why it cannot be one about the clean data of the state `x`."""

    def believed(self, belief: Any, x: State) -> Belief: ...


def about_numbers(belief: Any, x: Any, data: Any, name: str = "x") -> Belief:
    """`belief`, refused when it is not an array like `data`, which is x or, as `name` says, a part of it."""
    shape, dtype = getattr(belief, "shape", None), getattr(belief, "dtype", None)
    if shape != data.shape or dtype != data.dtype:
        got = f"{dtype} of shape {shape}" if shape is not None else f"a {type(belief).__name__}"
        raise InputError(
            f"the denoiser returned {got} for x of {x.dtype} and shape {x.shape}; expected E[x0 | x_t], an array "
            f"like {name}: a denoiser is written for one example, and keeps its dtype"
        )
    return belief


def is_process(node: Any) -> bool:
    return isinstance(node, Process)


def as_struct(shape_like: Any) -> jax.ShapeDtypeStruct:
    """The struct of an array or a struct, or of a shape, which is of the default float dtype."""
    if isinstance(shape_like, tuple):
        return jax.ShapeDtypeStruct(shape_like, jnp.result_type(float))
    return jax.ShapeDtypeStruct(shape_like.shape, shape_like.dtype)
