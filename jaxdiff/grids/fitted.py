"""The sampling grid of least cost, where what a grid costs is the sum of what its steps cost.

Such are the bounds on a sampler's error: `theory.error_budget.step_cost` makes one of the data and of a network's
measured error. Over given candidate levels the least sum is found exactly, by dynamic programming:

    best_j(b) = min over a above b of best_(j-1)(a) + cost(a, b)"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.grids.levels import geometric, ordered
from jaxdiff.grids.sampling import Grid, counted, ends, falling_times
from jaxdiff.numerics import known, partial, require
from jaxdiff.processes.gaussian import Gaussian


def optimal(
    process: Gaussian,
    n: int,
    cost: Callable[..., Any],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    candidates: int = 256,
) -> Grid:
    """n steps between the ends that `karras` has, the last one to no noise, with the least sum of cost(high, low).

    `cost` is elementwise in noise levels sigma / alpha, high > low > 0. The levels are the best of `candidates` even
    ones in ln sigma, and then the best of 17 around each of them, all together, twelve times nearer and nearer. Raises
    InputError for n < 1, an empty range, fewer candidates than levels, and a cost that is not finite."""
    counted(n)
    ordered(sigma_min, sigma_max)
    if candidates < n + 1:
        raise InputError(f"optimal got {candidates} candidate levels for {n} steps, expected at least {n + 1}")
    low, high, noisy_end = known(ends, process, sigma_min, sigma_max, 0.002, 80.0)
    steps = known(lambda noisy: jnp.where(noisy, n, max(n - 1, 1)), noisy_end)
    levels, ok = _levels(partial(cost), low, high, steps, n, candidates)
    levels = require(levels, ok, "the cost of a step is not finite; expected a finite number for every high > low > 0")
    return known(lambda p, levels: falling_times(p, levels, starts_at_one=sigma_max is None), process, levels[:n])


@eqx.filter_jit
def _levels(cost, low, high, steps, n, candidates):
    lattice = geometric(jnp.linspace(0.0, 1.0, candidates), low, high)
    places, ok = cheapest(cost, lattice, n, steps)
    gap = 4 * jnp.log(high / low) / (candidates - 1)
    # Nearer and nearer: 2^-12 of four candidates' distance decides nothing more, cost being flat at its least.
    start = lattice[places], gap
    levels, _ = jax.lax.fori_loop(0, 12, lambda _, at: (_nearby(cost, at[0], at[1], steps), 0.5 * at[1]), start)
    return levels, ok


def _prices(cost, high, low):
    """cost(high, low), infinite where `low` is not below `high`."""
    falls = low < high
    return jnp.where(falls, cost(high, jnp.where(falls, low, 0.5 * high)), jnp.inf)


def cheapest(cost: Callable[..., Any], lattice: Float[Array, " m"], n: int, steps: Any) -> Any:
    """The places in the falling `lattice` of the n + 1 levels of the cheapest grid from its first to its last level;
    of `steps` <= n steps, after which the last level is repeated. And whether all costs are finite."""
    prices = _prices(cost, lattice[:, None], lattice[None, :])
    ok = jnp.isfinite(prices[jnp.triu_indices(len(lattice), 1)]).all()
    start = jnp.where(jnp.arange(len(lattice)) == 0, 0, jnp.inf).astype(prices.dtype)

    def forward(best, _):
        total = best[:, None] + prices
        return jnp.min(total, 0), jnp.argmin(total, 0)

    _, came_from = jax.lax.scan(forward, start, length=n)

    def back(place, j):
        there = jnp.where(j < steps, came_from[j, place], place)
        return there, there

    _, places = jax.lax.scan(back, len(lattice) - 1, jnp.arange(n - 1, -1, -1))
    return jnp.concatenate([places[::-1], jnp.full(1, len(lattice) - 1)]).at[0].set(0), ok


def _nearby(cost, levels, gap, steps):
    """The cheapest of the grids whose levels are each one of 17 within `gap` of those of `levels` in ln sigma."""
    shifts = jnp.asarray(np.linspace(-1, 1, 17), levels.dtype) * gap
    inner = (jnp.arange(len(levels)) > 0) & (jnp.arange(len(levels)) < steps)
    choices = levels[:, None] * jnp.exp(jnp.where(inner[:, None], shifts, 0))  # (n + 1, 17)

    def forward(best, pair):
        high, low, done = pair
        total = best[:, None] + jnp.where(done, 0, _prices(cost, high[:, None], low[None, :]))
        return jnp.min(total, 0), jnp.argmin(total, 0)

    done = jnp.arange(len(levels) - 1) >= steps
    best, came_from = jax.lax.scan(forward, jnp.zeros_like(shifts), (choices[:-1], choices[1:], done))

    def back(place, j):
        return came_from[j, place], came_from[j, place]

    last = jnp.argmin(best)
    _, places = jax.lax.scan(back, last, jnp.arange(len(levels) - 2, -1, -1))
    places = jnp.concatenate([places[::-1], last[None]])
    return choices[jnp.arange(len(levels)), places]
