"""Noise that knows where it acts: a stochastic step asks for the increment of a Brownian path over its interval.

Drawn anew each step, a finer grid is another path. `one_path` gives all the steps of one example one path, so that the
same key gives the same sample on every grid, to the error of the method."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff.errors import InputError
from jaxdiff.numerics import partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import Around, Stepper
from jaxdiff.types import Noise, PRNGKey, State, Time

REACH = 32.0
"""The path runs over log(alpha / sigma) from -32 to 32, past which float32 sees no signal or no noise."""


def increment(noise: Noise, key: PRNGKey, x: State, t: Time, s: Time) -> State:
    """A standard normal array like `x`: the increment over [t, s], over its standard deviation, of the path that
    `noise` walks, or a fresh draw where it walks none."""
    between = getattr(noise, "between", None)
    return noise(key, x.shape, x.dtype) if between is None else between(x, t, s)


def increments(noise: Noise, key: PRNGKey, x: State, t: Time, middle: Time, s: Time) -> tuple[State, State]:
    """The increments of one path over [t, middle] and over [t, s], the middle in log(alpha / sigma)."""
    if getattr(noise, "between", None) is not None:
        return increment(noise, key, x, t, middle), increment(noise, key, x, t, s)
    near, far = (noise(k, x.shape, x.dtype) for k in jax.random.split(key))
    return near, jnp.sqrt(0.5) * (near + far)


def one_path(process: Gaussian, inner: Stepper, *, levels: int = 16) -> Stepper:
    """`inner` with its noise from one Brownian path in log(alpha / sigma), known at any point by halving [-32, 32]
    `levels` times (a virtual Brownian tree, Li et al. 2020); steps must be longer than 64 / 2^levels, .001.

    The path comes from the key of the walk's first step, which no grid changes; `first` and `last`, which walk alone,
    must draw nothing. Raises InputError for noise that is no increment over the step (churn, langevin)."""
    if levels < 1:
        raise InputError(f"one_path got levels={levels}, expected at least 1, such as 16")
    return _OnePath(inner, process, levels)


class _OnePath(Around):
    process: Gaussian
    levels: int = eqx.field(static=True)

    def init(self, x, t):
        return self.inner.init(x, t), jnp.zeros(2, jnp.uint32), jnp.zeros((), bool)

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        memory, seed, begun = carry
        path_key, step_key = jax.random.split(key)
        seed = jnp.where(begun, seed, jax.random.bits(path_key, (2,), jnp.uint32))
        path = _Path(self.levels, self.process, jax.random.wrap_key_data(seed, impl="threefry2x32"), partial(noise))
        x, memory = self.inner.step(step_key, denoise, memory, x, t, s, noise=path)
        return x, (memory, seed, jnp.ones_like(begun))


class _Path(eqx.Module):
    """Where a step finds its increments."""

    levels: int = eqx.field(static=True)
    process: Gaussian
    key: Any
    noise: Any

    def __call__(self, key, shape, dtype):
        raise InputError(
            "one_path got a stepper whose noise is no increment over its step, such as churn or langevin; use it on "
            "steppers of an SDE: ddim, ancestral, reverse_sde, ancestral_form, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde"
        )

    def between(self, x, t, s):
        places = jnp.stack([self.process.log_snr(time) for time in (t, s)])
        u = jnp.clip(0.5 + places / (4 * REACH), 0, 1)
        here, there = jax.vmap(lambda u: self.at(u, x))(u)
        return (there - here) / jnp.sqrt(u[1] - u[0])

    def at(self, u, x):
        """W(u) on [0, 1]: halve the interval around u, drawing the middle given the ends."""

        def draw(key):
            return self.noise(key, x.shape, x.dtype)

        def halve(level, state):
            key, start, left, right = state
            width = 0.5 ** jnp.asarray(level, u.dtype)
            middle = 0.5 * (left + right + jnp.sqrt(width) * draw(key))
            later = u > start + 0.5 * width
            start = jnp.where(later, start + 0.5 * width, start)
            key = jax.random.fold_in(key, later)
            return key, start, jnp.where(later, middle, left), jnp.where(later, right, middle)

        key, end_key = jax.random.split(self.key)
        state = key, jnp.zeros_like(u), jnp.zeros_like(x), draw(end_key)
        key, start, left, right = jax.lax.fori_loop(0, self.levels, halve, state)
        width = 0.5**self.levels
        part = jnp.clip((u - start) / width, 0, 1)
        return left + part * (right - left) + jnp.sqrt(width * part * (1 - part)) * draw(key)
