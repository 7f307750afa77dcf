"""The exact spread of a stochastic sampler on Gaussian data, where its result is a linear map of the start and of all
draws: a walker a draw, moved by that draw alone, shows the map's columns, and their squares add up to the variance."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp

from jaxdiff import oracles, samplers


class Draws:
    """Draw j of step i moves walker 2 i + j."""

    def __init__(self, i, width):
        self.i, self.width, self.count = i, width, itertools.count()

    def __call__(self, key, shape, dtype):
        return jax.nn.one_hot(2 * self.i + next(self.count), self.width, dtype=dtype)


class Paths(Draws):
    """The two increments of a step, over [t, middle] and [t, s], have the correlation clock(process, t, middle, s)."""

    def __init__(self, i, width, process, s, clock):
        super().__init__(i, width)
        self.process, self.s, self.clock = process, s, clock

    def between(self, x, t, s):
        fresh = self(None, x.shape, x.dtype)
        if s is self.s:
            c = self.clock(*(self.process.scales(time)[1] for time in (t, self.middle, s)))
            return c * self.near + jnp.sqrt(1 - c**2) * fresh
        self.middle, self.near = s, fresh
        return fresh


@partial(jax.jit, static_argnames=("with_last", "clock"))
def spread(process, stepper, ts, start, variance, *, with_last=True, clock=None):
    """Standard deviation of the result at ts[-1] for x of standard deviation `start` at ts[0] and data of mean 0."""
    n = len(ts) - 1
    width = 2 * n + 1
    denoise = oracles.gaussian(process, jnp.zeros(width), variance * jnp.ones(width)).denoise
    last = samplers.euler(process) if with_last else stepper

    def step(state, i):
        x, carry = state
        t, s = ts[i], ts[i + 1]
        noise = Draws(i, width) if clock is None else Paths(i, width, process, s, clock)
        return stepper.step(jax.random.key(0), denoise, carry, x, t, s, noise=noise), None

    x = jnp.zeros(width).at[-1].set(start)
    state, _ = jax.lax.scan(step, (x, stepper.init(x, ts[0])), jnp.arange(n - with_last))
    if with_last:
        noise = Draws(n - 1, width)
        state = last.step(jax.random.key(0), denoise, last.init(x, ts[-2]), state[0], ts[-2], ts[-1], noise=noise)
    return jnp.sqrt(jnp.sum(state[0] ** 2))
