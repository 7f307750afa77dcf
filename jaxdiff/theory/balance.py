"""What a training objective asks of each noise level: where it draws them, what it weighs them by, and what comes of it
(Wang, He and Tao 2024; Karras et al. 2022, Sec. 5).

An objective is a law of times, a loss weight and a row. In one unit, the squared error of the predicted noise in each
dimension, a level s = sigma / alpha counts

    total(s) = density of ln s  x  the law's own weight  x  w (a s - b)^2

since a row's error is (b - a s) times the noise's. The bound on the sampler's KL counts every ln s alike
(`error_budget`: (1 - (l/h)^2) e^2 / 2 is e^2 dln s in small steps), EDM's is a bell. What a level then contributes to
the loss, or to the gradient, depends on the network too: `per_level_loss` and `gradient_share` measure it, and
`balanced` is the weight by which all levels contribute alike: low at the levels of a large loss, and so a bell on a row
whose loss is small at middle levels, where there is something to learn, and 1 at both ends."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from jaxdiff.errors import InputError
from jaxdiff.grids import Law
from jaxdiff.losses.matching import Loss
from jaxdiff.losses.weights import Weight, unit
from jaxdiff.numerics import as_array, cast, concrete, partial
from jaxdiff.parameterizations import Row, noise
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.theory.inputs import counts, examples, rising
from jaxdiff.theory.walks import level
from jaxdiff.types import PRNGKey, Scalar, Time

__all__ = ["ByLevel", "Shares", "balanced", "gradient_share", "noise_weight", "per_level_loss", "total_weighting"]


class ByLevel(NamedTuple):
    """A number for each noise level, and its standard error."""

    levels: Float[Array, " levels"]
    value: Float[Array, " levels"]
    stderr: Float[Array, " levels"]


def noise_weight(process: Gaussian, t: Time, *, weight: Weight = unit, row: Row = noise) -> Scalar:
    """What `weight` on the error of `row` counts a unit of squared error of the noise: w (a sigma / alpha - b)^2."""
    alpha, sigma = process.scales(t)
    a, b = row(process, t)
    return weight(process, t) * (a * sigma / alpha - b) ** 2


def total_weighting(
    key: PRNGKey,
    process: Gaussian,
    times: Law,
    edges: Any,
    *,
    weight: Weight = unit,
    row: Row = noise,
    draws: int = 2**18,
) -> ByLevel:
    """What an objective counts the levels between neighbouring `edges` (n + 1 rising noise levels), the mean over each
    bin of ln s; at the bins' geometric middles.

    `times` is any law of `grids`, of one's own too: a histogram of `draws` of its times, each with the law's weight.
    For stratified laws the standard error, which takes them for independent, is too large. Raises InputError for edges
    that do not rise, and fewer than 2 draws."""
    edges = rising(edges)
    if draws < 2:
        raise InputError(f"total_weighting got draws={draws}, expected at least 2")
    value, stderr = _histogram(key, process, partial(times), edges, partial(weight), partial(row), draws)
    return ByLevel(jnp.sqrt(edges[1:] * edges[:-1]), value, stderr)


@eqx.filter_jit
def _histogram(key, process, times, edges, weight, row, draws):
    t, own = times(key, process, draws)
    place = jnp.searchsorted(edges, level(process, t), side="right")  # 0 and n + 1 are outside
    counted = own * noise_weight(process, t, weight=weight, row=row)
    bins, n = len(edges) - 1, jnp.asarray(draws, counted.dtype)
    # alpha = 0 is no bin's, and its weight may be infinite.
    counted = jnp.where((place > 0) & (place <= bins), counted, 0)
    width = jnp.diff(jnp.log(edges))
    first, second = (jnp.zeros(bins + 2, n.dtype).at[place].add(counted**power)[1:-1] / n for power in (1, 2))
    return first / width, jnp.sqrt(jnp.maximum(second - first**2, 0) / (n - 1)) / width


def per_level_loss(
    key: PRNGKey, process: Gaussian, loss: Loss, denoise: Any, data: Any, levels: Any, *, chunk: int = 256
) -> ByLevel:
    """The mean of `loss` (such as `losses.matching`) over the examples `data` (n, ...) at each of rising noise levels,
    with its standard error over them."""
    levels, data = rising(levels, process), examples(data)
    counts(chunk=chunk)
    return _per_level_loss(key, process, partial(loss), partial(denoise), data, levels, min(chunk, len(data)))


@eqx.filter_jit
def _per_level_loss(key, process, loss, denoise, data, levels, chunk):
    def at(i):
        t = jnp.clip(process.time_of(levels[i]), 0, 1)
        keys = jax.random.split(jax.random.fold_in(key, i), len(data))
        values = jax.lax.map(lambda pair: loss(pair[0], denoise, pair[1], t), (keys, data), batch_size=chunk)
        return values.mean(), jnp.std(values, ddof=1) / jnp.sqrt(jnp.asarray(len(data), values.dtype))

    return ByLevel(levels, *jax.lax.map(at, jnp.arange(len(levels))))


class Shares(NamedTuple):
    """The gradient of a level's loss: its norm, how much of a single example's squared norm is noise, and the level's
    share of the sum of the norms."""

    levels: Float[Array, " levels"]
    norm: Float[Array, " levels"]
    noise: Float[Array, " levels"]
    share: Float[Array, " levels"]


def gradient_share(
    key: PRNGKey,
    process: Gaussian,
    loss: Loss,
    network: Callable[..., Any],
    params: PyTree[Any],
    data: Any,
    levels: Any,
    *,
    weights: Any = 1.0,
    chunk: int = 32,
) -> Shares:
    """|E grad loss| at each of rising noise levels, times `weights` (one number a level: the objective's density
    there), for a network(params) -> Denoiser, such as `from_network` makes.

    The squared norm of a mean over n examples is too large by the noise in it, E|grad - mean|^2 / n; that is taken off,
    so the square is unbiased, and cut at 0. `noise` is E|grad - mean|^2 / E|grad|^2, of one example. Memory holds
    `chunk` gradients at a time."""
    levels, data = rising(levels, process), examples(data)
    counts(chunk=chunk)
    weights = as_array(weights)
    if weights.shape not in ((), levels.shape):
        raise InputError(f"the weights have shape {weights.shape}, expected one number or {levels.shape}, one a level")
    norm, noise = _gradients(key, process, partial(loss), partial(network), params, data, levels, min(chunk, len(data)))
    norm = norm * weights.astype(norm.dtype)
    return Shares(levels, norm, noise, norm / jnp.sum(norm))


@eqx.filter_jit
def _gradients(key, process, loss, network, params, data, levels, chunk):
    n = len(data)

    def at(i):
        t = jnp.clip(process.time_of(levels[i]), 0, 1)

        def gradient(place):
            example_key = jax.random.fold_in(jax.random.fold_in(key, i), place)
            return jax.grad(lambda params: loss(example_key, network(params), data[place], t))(params)

        def add(sums, places):
            total, square = sums
            inside = places < n
            found = jax.vmap(gradient)(jnp.minimum(places, n - 1))
            found = jax.tree.map(lambda g: jnp.where(inside.reshape(-1, *(1 for _ in g.shape[1:])), g, 0), found)
            return (jax.tree.map(lambda s, g: s + g.sum(0), total, found), square + _square(found)), None

        batches = jnp.arange(-(-n // chunk) * chunk).reshape(-1, chunk)
        start = jax.tree.map(jnp.zeros_like, params), jnp.zeros((), levels.dtype)
        (total, square), _ = jax.lax.scan(add, start, batches)
        mean_square, each = _square(total) / n**2, square / n
        spread = (each - mean_square) * (n / (n - 1))
        return jnp.sqrt(jnp.maximum(mean_square - spread / n, 0)), spread / jnp.where(each > 0, each, 1)

    return jax.lax.map(at, jnp.arange(len(levels)))


def _square(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def balanced(levels: Any, losses: Any, *, weight: Weight = unit, density: Any = 1.0, scale: float = 1.0) -> Weight:
    """`weight` divided by the losses that were measured with it at rising `levels`, and by the `density` of ln s that
    training draws there (1: none): then every level contributes `scale` to the objective.

    Between levels the logarithms are linear in ln s, beyond them constant. `losses.matching(process, row, found)` takes
    it, with the row of the measured loss. Raises InputError for losses that are not positive and finite, and
    other shapes."""
    levels = rising(levels)
    losses, density = as_array(losses), as_array(density)
    if losses.shape != levels.shape or density.shape not in ((), levels.shape):
        raise InputError(
            f"balanced got losses of shape {losses.shape} and a density of shape {density.shape} at {len(levels)} "
            "levels; expected a number for each"
        )
    counted = losses * density.astype(losses.dtype)
    if concrete(counted) and not np.all(np.isfinite(counted) & (np.asarray(counted) > 0)):
        raise InputError(
            "balanced got losses or densities that are not positive and finite; measure them with more draws"
        )
    return Partial(_balanced, jnp.log(levels), jnp.log(counted), as_array(scale), partial(weight))


def _balanced(places, logs, scale, weight, process, t):
    base = weight(process, t)
    places, logs, scale = cast((places, logs, scale), base.dtype)
    return base * scale * jnp.exp(-jnp.interp(jnp.log(level(process, t)), places, logs))
