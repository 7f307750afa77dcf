"""What a predictor of the noise should say, and how far a network is from it (Yun 2025).

With x_t = alpha x0 + sigma eps, the h of least E|eps - h(x_t)|^2 is the mean of eps given x_t; and differentiating
q_t(x) = int N(x; alpha x0, sigma^2) q(x0) dx0 shows that it is the score,

    eps*(x, t) = E[eps | x_t = x] = int (x - alpha x0) / sigma q(x | x0) q(x0) dx0 / q_t(x) = -sigma grad log q_t(x).

Any other h pays its distance from it beyond what none avoids (the errors of eps* are orthogonal to all of x_t):

    E|eps - h|^2 = E|eps - eps*|^2 + E|h - eps*|^2,    loss = irreducible + excess.

As eps - h = alpha / sigma (D - x0) for the denoiser D of h, all of it is measured on denoisers, and in the units of any
training loss w |y - y_hat|^2 of a row y = a x0 + b eps, which is w (a - b alpha / sigma)^2 |D - x0|^2."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float64, PyTree

from jaxdiff import parameterizations
from jaxdiff.errors import InputError
from jaxdiff.losses import weights
from jaxdiff.numerics import aligned, as_array, chunks, known, partial, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, Noise, PRNGKey

__all__ = ["Curve", "Excess", "always", "cumulative", "excess", "mmse", "per_step", "score"]

Predictor = Callable[..., Any]


def cumulative(oracle: Any) -> Predictor:
    """(x, t) -> E[eps | x_t = x], what a network that predicts the noise of x_t = alpha x0 + sigma eps should say.

    Of an oracle of a Gaussian process: atoms, a Gaussian or a mixture. Raises InputError for what knows no noise."""
    if not (hasattr(oracle, "noise") and isinstance(getattr(oracle, "process", None), Gaussian)):
        raise InputError(
            f"a noise predictor got a {type(oracle).__name__}, expected an oracle that knows E[eps | x_t]: one of "
            "oracles.gaussian, oracles.mixture or oracles.empirical"
        )
    return oracle.noise


def score(oracle: Any) -> Predictor:
    """(x, t) -> grad log q_t(x) = -E[eps | x_t = x] / sigma; refused as `cumulative`."""
    return Partial(_score, oracle.process, partial(cumulative(oracle)))


def _score(process, noise, x, t):
    x, t = aligned(x, t)
    return -noise(x, t) / process.scales(t)[1]


def per_step(oracle: Any) -> Predictor:
    """(x, t, s) -> E[e | x_t = x] of the noise that the step from s to t > s adds, x_t = (alpha_t / alpha_s) x_s + b e:

        (b / sigma_t) E[eps | x_t],    b^2 = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2,

    since sigma_t eps = (alpha_t / alpha_s) sigma_s eps_s + b e, with eps_s and e independent of each other and of x0.
    Refused as `cumulative`, and where s is not below t."""
    return Partial(_per_step, oracle.process, partial(cumulative(oracle)))


def _per_step(process, noise, x, t, s):
    x, t = aligned(x, t)
    s = as_array(s).astype(x.dtype)
    later = known(lambda t, s: s < t, t, s)
    t = require(t, later, "a step of noise goes from s to a later t, and got s that is not below t: give (x, t, s)")
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(t), process.scales(s)
    keep = alpha * sigma_s / (alpha_s * sigma)
    fresh = jnp.clip((1 - keep) * (1 + keep), min=0)  # b^2 / sigma_t^2; rounding may leave it below 0 as s -> t
    return jnp.sqrt(fresh) * noise(x, t)


class Curve(NamedTuple):
    """A mean at each time with its standard error, and the mean over all times with its own."""

    value: Float64[np.ndarray, " times"]
    stderr: Float64[np.ndarray, " times"]
    mean: float
    mean_stderr: float


class Excess(NamedTuple):
    """Squared errors by time, per dimension, weighted: each a mean over examples."""

    ts: Float64[np.ndarray, " times"]
    loss: Curve
    """E|y - y_hat|^2 of the denoiser."""
    irreducible: Curve
    """E|y - y*|^2 of the optimum."""
    excess: Curve
    """loss - irreducible, on the same noise."""
    distance: Curve
    """E|y_hat - y*|^2 between the two."""
    gap: Curve
    """excess - distance, on the same noise: 0 in the mean where x0 is drawn from the optimum's own law."""


def always(denoise: Denoiser) -> Callable[..., Denoiser]:
    """cond -> `denoise`, whatever the cond: an oracle without classes as `excess` takes it."""
    return partial(_always, partial(denoise))


def _always(denoise, cond):
    return denoise


def mmse(
    key: PRNGKey,
    oracle: Any,
    ts: Any,
    *,
    draws: int = 4096,
    row: Any = parameterizations.noise,
    weight: Any = weights.unit,
    chunk: int | None = None,
) -> Curve:
    """E|eps - E[eps | x_t]|^2 per dimension at each time: the loss of the best predictor, which no training lowers.

    In closed form where the oracle has one (a Gaussian: alpha^2 l / (alpha^2 l + sigma^2) averaged over axes), with
    standard error 0; otherwise the mean over `draws` of its data. `row` and `weight` as for `excess`. Raises InputError
    for fewer than 2 draws, and as `cumulative` and `excess`."""
    cumulative(oracle)
    process, fixed = oracle.process, (partial(row), partial(weight))
    if hasattr(oracle, "mmse"):
        ts = _times(process, ts)
        size = jax.eval_shape(lambda key: oracle.sample(key, 1), key).size
        value = jnp.stack([_factor(process, *fixed, t) * oracle.mmse(t) for t in ts]) / size
        return Curve(np.asarray(value, np.float64), np.zeros(len(ts)), float(np.mean(value)), 0.0)
    if draws < 2:
        raise InputError(f"mmse got draws={draws}, expected at least 2: a standard error takes two")
    data_key, noise_key = jax.random.split(key)
    fixed = process, *fixed, (always(oracle.denoise),), partial(jax.random.normal)
    return _measure(noise_key, fixed, _sample(oracle, data_key, draws), ts, None, 1, chunk, None).irreducible


@eqx.filter_jit
def _sample(oracle, key, n):
    return oracle.sample(key, n)


def excess(
    key: PRNGKey,
    process: Gaussian,
    make_denoise: Callable[..., Any],
    make_optimal: Callable[..., Any],
    x0: Any,
    ts: Any,
    *,
    cond: PyTree[Any] = None,
    draws: int = 1,
    row: Any = parameterizations.noise,
    weight: Any = weights.unit,
    chunk: int | None = None,
    noise: Noise = jax.random.normal,
    progress: Callable[[int, int], Any] | None = None,
) -> Excess:
    """The excess loss of a denoiser over the optimal one on clean examples `x0` (n, ...), at each of the times `ts`.

    `make_denoise(cond)` and `make_optimal(cond)` give one example's two denoisers from its row of `cond`, whose leaves
    lead with n (`from_network(...).bind(params)`, an empirical oracle's `denoiser`, `always(oracle.denoise)`). Each
    example is noised `draws` times at each time, alike for both denoisers and for every denoiser of the same key; the
    standard errors are those over the n examples. `row` and `weight` name the squared error, as in `losses.matching`;
    by default that of the noise, |eps - eps_hat|^2. `chunk` examples run at a time (by default as many as make 4
    million numbers, at most 128); `progress(done, n)` is called after each chunk.

    Raises InputError for fewer than 2 examples, examples that are not finite or not of the denoisers' shape, a cond
    that does not lead with n, counts below 1, and times outside [0, 1] or where sigma = 0."""
    makers = partial(make_denoise), partial(make_optimal)
    fixed = process, partial(row), partial(weight), makers, partial(noise)
    return _measure(key, fixed, x0, ts, cond, draws, chunk, progress)


def _measure(key, fixed, x0, ts, cond, draws, chunk, progress):
    x0, cond, ts = np.asarray(as_array(x0)), jax.tree.map(np.asarray, cond), _times(fixed[0], ts)
    n = len(x0) if x0.ndim else 0
    if n < 2:
        raise InputError(f"excess got x0 of shape {x0.shape}, expected (n, ...), n >= 2: a standard error takes two")
    if not np.isfinite(x0).all():
        raise InputError("excess got examples that are not all finite; leave out those with NaN or infinity")
    if draws < 1 or (chunk is not None and chunk < 1):
        raise InputError(f"excess got draws={draws} and chunk={chunk}, expected at least 1 of each (or chunk=None)")
    chunks.leading(n, "example", cond=cond)

    def measured(places, rows):
        return _chunk(key, places, fixed, rows, ts, draws)

    size = min(n, chunk or chunks.fitting(x0[0].size))
    found = chunks.over(measured, n, (x0, cond), chunk=size, progress=progress)
    values = np.moveaxis(np.asarray(found, np.float64), 2, 0)
    return Excess(np.asarray(ts, np.float64), *(_curve(each) for each in values))


@eqx.filter_jit
def _chunk(key, indices, fixed, rows, ts, draws):
    """(examples, times, 5): the columns of an Excess; of one maker, those of the optimum."""
    process, row, weight, makers, noise = fixed

    def one(index, row_of):
        x0, cond = row_of
        names = ("the denoiser", "the optimal denoiser")
        asked = [
            Partial(_believe, name, _made(name, make, cond))
            for name, make in zip(names[-len(makers) :], makers, strict=True)
        ]
        own_key = jax.random.fold_in(key, index)

        def at(place):
            t = ts[place // draws].astype(x0.dtype)
            x = process.perturb(jax.random.fold_in(own_key, place), x0, t, noise=noise)
            # In branches each is compiled by itself, so that two that are alike agree to the bit.
            beliefs = jax.lax.map(lambda which: jax.lax.switch(which, asked, x, t), jnp.arange(len(asked)))
            belief, best = beliefs[0], beliefs[-1]
            factor = _factor(process, row, weight, t)
            miss, least, apart = belief - x0, best - x0, belief - best
            # loss - irreducible as one product: no difference of near numbers, and 0 where the denoisers agree
            terms = miss**2, least**2, apart * (miss + least), apart**2, 2 * apart * least
            # Where alpha = 0 the noise is x / sigma whatever is believed, also of a belief that is infinite there.
            return jnp.stack([jnp.where(factor == 0, 0, factor * jnp.mean(term)) for term in terms])

        values = jax.lax.map(at, jnp.arange(len(ts) * draws))
        return jnp.mean(values.reshape(len(ts), draws, -1), axis=1)

    return jax.vmap(one)(indices, rows)


def _made(name, make, cond):
    try:
        return make(cond)
    except TypeError as error:
        raise InputError(
            f"{name} is not made by make(cond): {str(error).splitlines()[0]}; of a plain denoiser (x, t) give "
            "noise_predictor.always(denoise)"
        ) from error


def _factor(process, row, weight, t):
    """w (a - b alpha / sigma)^2, what a squared error of the data counts for."""
    alpha, sigma = process.scales(t)
    a, b = row(process, t)
    return weight(process, t) * (a - b * alpha / sigma) ** 2


def _believe(name, denoise, x, t):
    try:
        belief = as_array(denoise(x, t))
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # shapes that do not broadcast
        raise InputError(f"{name} cannot take an example of shape {x.shape}: {str(error).splitlines()[0]}") from error
    if belief.shape != x.shape:
        raise InputError(f"{name} returned shape {belief.shape} for an example of shape {x.shape}; expected the same")
    return belief.astype(x.dtype)


def _times(process: Gaussian, ts: Any) -> Array:
    ts = as_array(ts)
    if ts.ndim != 1 or ts.size == 0:
        raise InputError(f"the times have shape {ts.shape}, expected (times,), at least one")
    if not (np.all((ts >= 0) & (ts <= 1)) and np.all(process.scales(ts)[1] > 0)):
        raise InputError(f"the times are {np.asarray(ts)}, expected each in (0, 1]: at sigma = 0 there is no noise")
    return ts


def _curve(values):
    """The curve of (examples, times) independent rows."""
    over = values.mean(1)
    root = np.sqrt(len(values))
    stderr = values.std(0, ddof=1) / root
    return Curve(values.mean(0), stderr, float(over.mean()), float(over.std(ddof=1) / root))
