"""Guidance by moving the last hidden state, so that a classifier of it is surer and the belief read from it stays near
what it was (NOS; Gruver et al. 2023):

delta = argmin -log p(y | h + delta) + strength KL(p(x0 | h) || p(x0 | h + delta)),    belief = head(h + delta),

by a few steps of Adagrad, and on request with the noise of Langevin dynamics. The network is given as its two halves,
hidden(z, t) -> h, an array or a tree of them, and head(h, t) -> belief, and the classifier as log_prob(h, t) -> log p(y
| h). Without a step nothing is added to h: the belief is the network's own, bit for bit."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.beliefs import Belief, posterior
from jaxdiff.errors import InputError
from jaxdiff.guidance.discrete import is_known
from jaxdiff.numerics import as_array, concrete, keys_of, known, partial
from jaxdiff.processes.categorical import Categorical, LogProbs
from jaxdiff.types import Denoiser, PRNGKey, Scalar

SMALLEST = 1e-10  # below any gradient that counts: Adagrad divides 0 by it


def nos(
    process: Categorical,
    hidden: Callable[..., Any],
    head: Callable[..., Belief],
    log_prob: Callable[..., Scalar],
    *,
    steps: int = 1,
    step_size: float | Array = 0.1,
    strength: float | Array = 0.01,
    temperature: float | Array = 0.0,
    key: PRNGKey | None = None,
) -> Denoiser:
    """The denoiser head(h + delta, t), h = hidden(z, t), delta by `steps` of Adagrad of size `step_size`.

    KL is of p(x0 | z_t), summed over tokens; a shown token of the absorbing process has none. `temperature` adds
    normal noise of variance 2 step_size temperature to delta at each step, drawn from `key` and the time. Raises
    InputError for a number out of its range, and for a temperature without a key."""
    numbers = {"step_size": step_size, "strength": strength, "temperature": temperature}
    step_size, strength, temperature = checked("nos", steps, numbers)
    if key is None and not is_known(temperature, 0):
        raise InputError("nos got a temperature but no key to draw its noise from; give it key=jax.random.key(...)")
    halves = (partial(hidden), partial(head), partial(log_prob))
    return _Nos(process, *halves, step_size, strength, temperature, key, steps)


class _Nos(eqx.Module):
    process: Any
    hidden: Any
    head: Any
    log_prob: Any
    step_size: Array
    strength: Array
    temperature: Array
    key: PRNGKey | None
    steps: int = eqx.field(static=True)

    @property
    def time_conditioned(self) -> bool:
        return True  # by the halves, for all that is known of them

    def __call__(self, x, t):
        h = self.hidden(x, t)
        belief = self.head(h, t)
        if not self.steps:
            return belief
        before = posterior(self.process, belief, x, t)

        def loss(delta):
            moved = jax.tree.map(jnp.add, h, delta)
            near = divergence(before, posterior(self.process, self.head(moved, t), x, t))
            return self.strength.astype(near.dtype) * near - self.log_prob(moved, t).astype(near.dtype)

        return self.head(jax.tree.map(jnp.add, h, self._adagrad(loss, h, t)), t)

    def _adagrad(self, loss, h, t):
        def step(state, i):
            delta, squares = state
            slope = jax.grad(loss)(delta)
            squares = jax.tree.map(lambda q, g: q + g**2, squares, slope)
            delta = jax.tree.map(self._move, delta, slope, squares)
            if self.key is not None:
                delta = jax.tree.map(jnp.add, delta, self._noise(self.key, delta, t, i))
            return (delta, squares), None

        zero = jax.tree.map(jnp.zeros_like, h)
        return jax.lax.scan(step, (zero, zero), jnp.arange(self.steps))[0][0]

    def _move(self, delta, slope, squares):
        return delta - self.step_size.astype(delta.dtype) * slope / (jnp.sqrt(squares) + SMALLEST)

    def _noise(self, key, delta, t, i):
        # One key a time, from its bits: a denoiser has no other key, and its noise must not repeat down the times.
        bits = jax.lax.bitcast_convert_type(jnp.asarray(t, jnp.float32), jnp.uint32)
        key = jax.random.fold_in(jax.random.fold_in(key, bits), i)
        size = jnp.sqrt(2 * self.step_size * self.temperature)
        draw = lambda key, d: size.astype(d.dtype) * jax.random.normal(key, d.shape, d.dtype)  # noqa: E731
        return jax.tree.map(draw, keys_of(key, delta), delta)


def divergence(before: LogProbs, after: LogProbs) -> Scalar:
    """KL(before || after), summed over tokens; what was impossible before counts nothing.

    Of laws that sum to 1 it is the sum of p (e^u - 1 - u), u = log q - log p, whose gradient is 0 at q = p to the last
    bit: of a gradient that is all rounding, a method that divides by its size would make a whole step."""
    there = ~jnp.isneginf(before)
    u = jnp.where(there, after, 0) - jnp.where(there, before, 0)
    return jnp.sum(jnp.exp(before) * (jnp.expm1(u) - u))


def checked(name: str, steps: int, numbers: dict[str, Any]) -> list[Array]:
    """The numbers as arrays. Raises InputError for fewer than 0 steps, and a number below 0 or not finite."""
    if steps < 0:
        raise InputError(f"{name} got steps={steps}, expected 0 or more")
    for what, value in numbers.items():
        if concrete(value) and not 0 <= float(value) < float("inf"):
            raise InputError(f"{name} got {what}={value}, expected a finite number, 0 or more")
    return [known(as_array, value) for value in numbers.values()]
