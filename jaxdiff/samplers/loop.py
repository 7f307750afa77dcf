"""Walk a stepper down a grid of times: one loop, whose program and memory do not grow with the number of steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, float_dtype, known, partial, require
from jaxdiff.samplers.stepper import Stepper
from jaxdiff.types import Denoiser, Noise, PRNGKey, State


def sample(
    key: PRNGKey,
    stepper: Stepper,
    denoise: Denoiser,
    x: State,
    ts: Any,
    *,
    first: Stepper | None = None,
    last: Stepper | None = None,
    denoise_last: bool = False,
    trajectory: bool = False,
    noise: Noise = jax.random.normal,
) -> State:
    """Carry one example `x` from ts[0] down to ts[-1].

    `first` and `last` take the first and the last interval in the stepper's place, where a method is undefined at an
    end. `denoise_last` returns D(x, ts[-1]), for a process or a grid that ends with noise. `trajectory` returns all
    the states, stacked before x's axes. `noise(key, shape, dtype)` replaces the normal draws.

    Raises InputError for times that do not fall, or that the stepper cannot walk."""
    if not callable(denoise):
        raise InputError(
            f"the denoiser is a {type(denoise).__name__}, expected a function of (x, t) that returns E[x0 | x_t]"
        )
    ts = check(stepper, ts, first, last)
    return run(key, stepper, partial(denoise), x, ts, first, last, denoise_last, trajectory, partial(noise))


def check(stepper: Stepper, ts: Any, first: Stepper | None = None, last: Stepper | None = None) -> Array:
    """The times as an array, refused when they do not fall within [0, 1] or a stepper cannot walk its part of them."""
    ts = as_array(ts)
    steps = 1 + (first is not None) + (last is not None)
    if ts.ndim != 1 or len(ts) < max(2, steps):
        raise InputError(
            f"the sampling times have shape {ts.shape}, expected at least {max(2, steps)} falling times; "
            "make them with a grid, such as grids.karras(process, 18)"
        )
    got = f"{ts}" if concrete(ts) else "a grid"
    falling = known(lambda ts: (jnp.diff(ts) < 0).all() & (ts[0] <= 1) & (ts[-1] >= 0), ts)
    ts = require(ts, falling, f"sampling times must fall from at most 1 (noise) to at least 0 (data), got {got}")
    begin, end = int(first is not None), len(ts) - int(last is not None)
    for walker, part in ((first, slice(2)), (stepper, slice(begin, end)), (last, slice(-2, None))):
        if walker is not None and len(ts[part]) > 1:
            for ok, message in known(walker.demands, known(lambda ts, part=part: ts[part], ts)):
                ts = require(ts, ok, message)
    return ts


@eqx.filter_jit
def run(key, stepper, denoise, x, ts, first, last, denoise_last, trajectory, noise):
    """`sample` without its checks."""
    ts = ts.astype(float_dtype(x, ts.dtype))
    n = len(ts) - 1
    path = [jax.tree.map(lambda leaf: leaf[None], x)]

    def walk(stepper, x, start, stop):
        def step(state, i):
            x, carry = state
            state = stepper.step(jax.random.fold_in(key, i), denoise, carry, x, ts[i], ts[i + 1], noise=noise)
            return state, state[0] if trajectory else None

        (x, _), xs = jax.lax.scan(step, (x, stepper.init(x, ts[start])), jnp.arange(start, stop))
        path.append(xs)
        return x

    begin, end = int(first is not None), n - int(last is not None)
    if first is not None:
        x = walk(first, x, 0, begin)
    x = walk(stepper, x, begin, end)
    if last is not None:
        x = walk(last, x, end, n)
    if denoise_last:
        x = denoise(x, ts[-1])
        path.append(jax.tree.map(lambda leaf: leaf[None], x))
    if trajectory:
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *path)
    return x


@eqx.filter_jit
def run_counted(key, stepper, denoise, x, ts, n, first, last, denoise_last, noise):
    """`run` down n intervals, where n is data and what follows ts[n] is not looked at. It has no reverse-mode gradient:
    a loop whose length is data keeps no states."""
    ts = ts.astype(float_dtype(x, ts.dtype))

    def walk(stepper, x, start, stop):
        def step(i, state):
            x, carry = state
            return stepper.step(jax.random.fold_in(key, i), denoise, carry, x, ts[i], ts[i + 1], noise=noise)

        return jax.lax.fori_loop(start, stop, step, (x, stepper.init(x, ts[start])))[0]

    begin, end = int(first is not None), n - int(last is not None)
    if first is not None:
        x = walk(first, x, 0, begin)
    x = walk(stepper, x, begin, end)
    if last is not None:
        x = walk(last, x, end, n)
    return denoise(x, ts[n]) if denoise_last else x
