"""Where the sampling error comes from: the KL of a sampler's law from the data's, as three terms (Wang, He and Tao
2024; Chen et al. 2023).

    KL(q_end | p_end) <= E_I + factor (E_D + E_S)
    E_I   initialisation, KL of q at the first time from the prior that the sampler starts from
    E_D   discretisation, the sum over steps of what freezing the score (or the belief) costs when it is exact
    E_S   score, the sum over steps of what the network's error at the grid points costs

of a walk of `theory.walks`, in nats, for the law at the grid's last time: where noise is left there (sigma(0) > 0, or a
grid that stops short of 0) it says nothing of cleaner data. For SCORE and BELIEF the factor is 1 and the right side is
the KL of the whole paths, on every process, so only what the earlier states tell beyond the last is slack.

`gaussian` is exact, `monte_carlo` unbiased with standard errors. What both are sums of is a profile of the data and the
network by noise level s = sigma / alpha: share(s) = E|E[eps | x_s]|^2 / D, the part of the noise that can be told from
the data, and square(s) = E|eps_hat - E[eps | x_s]|^2 / D, the network's error. A measured profile makes the cost of any
step, and so the best grid (`grids.optimal`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, chunks, known, partial, require
from jaxdiff.oracles import GaussianOracle
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.loop import check
from jaxdiff.samplers.stepper import believe
from jaxdiff.theory.inputs import counts, examples, rising
from jaxdiff.theory.walks import SCORE, Walk, level, stepper
from jaxdiff.types import Denoiser, PRNGKey, Scalar

__all__ = ["Budget", "Profile", "gaussian", "held_out", "monte_carlo", "normal_profile", "profile", "step_cost"]


class Budget(NamedTuple):
    """The three terms in nats, the last two step by step, and the standard error of each and of `bound` (0 where
    exact)."""

    levels: Float[Array, " n_1"]
    initialisation: Scalar
    discretisation: Float[Array, " n"]
    score: Float[Array, " n"]
    factor: float
    stderr: dict[str, Scalar]

    @property
    def bound(self) -> Scalar:
        """E_I + factor (E_D + E_S), no less than the KL of the sampler's law from the data's at the last time."""
        return self.initialisation + self.factor * (self.discretisation.sum() + self.score.sum())


def gaussian(oracle: GaussianOracle, ts: Any, *, error: Any = 0.0, walk: Walk = SCORE) -> Budget:
    """The exact budget of Gaussian data N(m, U diag(l) U') on the times `ts`, whose prior is N(0, sigma^2) at ts[0].

    `error` is the root mean square of eps_hat - E[eps | x_t] in each dimension, at each of the n levels that a step
    starts from: a number, (n,) numbers or a function of levels. With s_k the levels, per eigenvalue,

        E_I = ((m^2 + l) / s_0^2 - ln(1 + l / s_0^2)) / 2
        E_D = sum ln((l + s_k^2) / (l + s_k+1^2)) / 2 - (s_k^2 - s_k+1^2) / (l + s_k^2) / 2        (SCORE)
        E_S = sum (1 - s_k+1^2 / s_k^2) error_k^2 / 2

    Raises InputError for times that do not fall, fewer than two, alpha = 0 at the first, and a bad error."""
    process = oracle.process
    ts, levels = _levels(process, ts, walk)
    error = error(levels[:-1]) if callable(error) else as_array(error).astype(levels.dtype)
    if error.shape not in ((), (len(ts) - 1,)):
        raise InputError(f"the error has shape {error.shape}, expected one number or {len(ts) - 1}, one for each step")
    ok = known(lambda e: jnp.isfinite(e) & (e >= 0), error)
    error = require(error, ok, "the error of the noise must be finite numbers of at least 0 at every level")
    values = oracle.law.values.astype(levels.dtype)
    return _of_normal(process, levels, values, jnp.sum(oracle.law.mean**2).astype(levels.dtype), error**2, walk)


def _of_normal(process, levels, values, square_mean, square, walk):
    law = Normal(values, jnp.zeros((), values.dtype))
    steps = _steps(process, law, levels[:-1], levels[1:], walk)
    score = _times(walk.price(process, levels[:-1], levels[1:]), square)
    ratio = values / levels[0] ** 2
    start = 0.5 * (jnp.sum(ratio - jnp.log1p(ratio)) + square_mean / levels[0] ** 2)
    zero = jnp.zeros_like(start)
    stderr = {name: zero for name in ("initialisation", "discretisation", "score", "bound")}
    return Budget(levels, start, values.size * steps, values.size * score, walk.factor, stderr)


def _times(price, square):
    """price x square, where an infinite price of no error is 0."""
    return jnp.where(square == 0, 0, price * square)


def _steps(process, profile, high, low, walk):
    return walk.steps(process, high, low, profile.share(high), profile.integral(high, low))


def _levels(process, ts, walk):
    ts = check(stepper(process, walk), ts)
    return ts, known(level, process, ts)


# By Monte Carlo ------------------------------------------------------------------------------------------------------


def monte_carlo(
    key: PRNGKey,
    oracle: Any,
    ts: Any,
    *,
    denoise: Denoiser | None = None,
    walk: Walk = SCORE,
    draws: int = 4096,
    chunk: int = 256,
) -> Budget:
    """The budget of any data whose oracle has `process`, `sample`, `noise` and `log_prob` (Gaussian, mixture,
    empirical), with `denoise` as the network (none: the oracle's own, and E_S = 0), from independent draws of the data.

    Each draw follows one pair of points a step, y at a random level v in it and y_k at its start, and adds up
    |drift(y_k, v) - score(y, v)|^2 dv / 2, whose mean is the step's E_D: no large numbers are subtracted. A training
    set's `oracles.empirical` is an oracle of the training set, not of the law that it came from. Float64 tells terms
    below 1e-6 apart. Raises InputError as `gaussian`, for counts below 2, and for a belief of another shape."""
    if draws < 2 or chunk < 1:
        raise InputError(f"monte_carlo got draws={draws} and chunk={chunk}, expected at least 2 draws and chunk >= 1")
    ts, levels = _levels(oracle.process, ts, walk)
    guess = None if denoise is None else partial(denoise)
    return _monte_carlo(key, oracle, guess, ts, levels, walk, draws, min(chunk, draws))


@eqx.filter_jit
def _monte_carlo(key, oracle, denoise, ts, levels, walk, draws, chunk):
    process = oracle.process

    def draw(index):
        data_key, start_key, walk_key = jax.random.split(jax.random.fold_in(key, index), 3)
        x0 = oracle.sample(data_key, 1)[0].astype(ts.dtype)
        x = process.perturb(start_key, x0, ts[0])
        start = oracle.log_prob(x, ts[0]) - process.log_prior(x, ts[0])

        def step(k):
            return _one_step(
                jax.random.fold_in(walk_key, k), oracle, denoise, x0, ts[k], levels[k], levels[k + 1], walk
            )

        return (start, *jax.lax.map(step, jnp.arange(len(ts) - 1)))

    start, discretisation, miss = chunks.within(draw, draws, chunk)
    price = walk.price(process, levels[:-1], levels[1:])
    # No draw can show what is infinite: a belief frozen until no noise is left.
    score, discretisation = _times(price, miss), jnp.where(jnp.isinf(price), jnp.inf, discretisation)
    sums = {"initialisation": start, "discretisation": discretisation.sum(1), "score": score.sum(1)}
    sums["bound"] = start + walk.factor * (sums["discretisation"] + sums["score"])
    stderr = {name: _stderr(values) for name, values in sums.items()}
    return Budget(levels, start.mean(), discretisation.mean(0), score.mean(0), walk.factor, stderr)


def _stderr(values):
    return jnp.std(values, axis=0, ddof=1) / jnp.sqrt(jnp.asarray(len(values), values.dtype))


def _one_step(key, oracle, denoise, x0, t, high, low, walk):
    """(one draw of a step's E_D, |eps_hat - E[eps | x_t]|^2 at its start)."""
    process = oracle.process
    place_key, noise_key = jax.random.split(key)
    u = jax.random.uniform(place_key, (), x0.dtype)
    # v even in its logarithm, from where a step to no noise at all begins to matter.
    floor = jnp.where(low > 0, low, 1e-3 * high) ** 2
    shift = jnp.where(low > 0, 0, floor)
    between = floor * jnp.exp(u * jnp.log((high**2 + shift) / floor)) - shift
    t_between = jnp.clip(process.time_of(jnp.sqrt(jnp.maximum(between, jnp.finfo(u.dtype).tiny))), 0, t)
    there = level(process, t_between)
    width = (there**2 + shift) * jnp.log((high**2 + shift) / floor)
    early, late = jax.random.normal(noise_key, (2, *x0.shape), x0.dtype)
    y = x0 + there * early
    y_high = y + jnp.sqrt(jnp.maximum(high**2 - there**2, 0)) * late
    noise, truth = _noise(oracle, y_high, t), _noise(oracle, y, t_between)
    drift = walk.drift(process, high, y_high, -noise / high, there, y)
    cost = 0.5 * width * jnp.sum((drift + truth / there) ** 2)
    if denoise is None:
        return cost, jnp.zeros_like(cost)
    return cost, _miss(process, denoise, y_high, t, noise)


def _noise(oracle, y, t):
    return oracle.noise(oracle.process.scales(t)[0] * y, t)


def _miss(process, denoise, y, t, noise):
    """|eps_hat - noise|^2."""
    alpha, sigma = process.scales(t)
    x = alpha * y
    return jnp.sum(((x - alpha * believe(denoise, x, t)) / sigma - noise) ** 2)


# Profiles by noise level ---------------------------------------------------------------------------------------------


class Normal(eqx.Module):
    """The profile of Gaussian data with variances `values`, and of a network of mean squared error `error`."""

    values: Float[Array, " dim"]
    error: Array

    def share(self, level: Any) -> Scalar:
        level = as_array(level)[..., None]
        return jnp.mean(level**2 / (self.values + level**2), axis=-1)

    def integral(self, high: Any, low: Any) -> Scalar:
        high, low = as_array(high)[..., None], as_array(low)[..., None]
        return jnp.mean(-0.5 * jnp.log1p(-(high**2 - low**2) / (self.values + high**2)), axis=-1)

    def square(self, level: Any) -> Scalar:
        return self.error * jnp.ones_like(as_array(level))


def normal_profile(values: Any, error: float = 0.0) -> Normal:
    """The exact profile of data with the variances `values` and of a network whose noise is off by `error` (root mean
    square a dimension) at every level."""
    values = jnp.atleast_1d(as_array(values))
    ok = known(lambda values: jnp.isfinite(values) & (values >= 0), values)
    values = require(values, ok, "a variance of normal_profile is below 0 or not finite; expected those of the data")
    return Normal(values, as_array(error) ** 2)


class Profile(eqx.Module):
    """What was measured at rising noise levels, with its standard errors; between them linear in ln s, beyond them
    constant.

    `shares` is nan where no oracle could say (`held_out`)."""

    levels: Float[Array, " levels"]
    shares: Float[Array, " levels"]
    squares: Float[Array, " levels"]
    share_stderr: Float[Array, " levels"]
    square_stderr: Float[Array, " levels"]

    def _at(self, values, level):
        return jnp.interp(jnp.log(as_array(level)), jnp.log(self.levels), values)

    def share(self, level: Any) -> Scalar:
        """E|E[eps | x_s]|^2 / D."""
        return self._at(self.shares, level)

    def square(self, level: Any) -> Scalar:
        """E|eps_hat - E[eps | x_s]|^2 / D."""
        return self._at(self.squares, level)

    def error(self, level: Any) -> Scalar:
        """The root of `square`."""
        return jnp.sqrt(self.square(level))

    def integral(self, high: Any, low: Any) -> Scalar:
        """int share dln s."""
        return self._integral(high) - self._integral(low)

    def _integral(self, level):
        place, nodes = jnp.log(as_array(level)), jnp.log(self.levels)
        cells = 0.5 * (self.shares[1:] + self.shares[:-1]) * jnp.diff(nodes)
        below = jnp.concatenate([jnp.zeros_like(nodes[:1]), jnp.cumsum(cells)])
        i = jnp.clip(jnp.searchsorted(nodes, place, side="right") - 1, 0, len(nodes) - 2)
        # The trapezium from the cell's start to here; past the ends, a rectangle.
        inside = jnp.clip(place, nodes[0], nodes[-1])
        area = 0.5 * (self.shares[i] + self.share(jnp.exp(inside))) * (inside - nodes[i])
        return below[i] + area + (place - inside) * self.share(level)


def profile(
    key: PRNGKey, oracle: Any, levels: Any, *, denoise: Denoiser | None = None, draws: int = 4096, chunk: int = 256
) -> Profile:
    """The profile of an oracle's data, and of `denoise` against it, at rising noise levels sigma / alpha > 0."""
    levels = rising(levels, oracle.process)
    counts(chunk=chunk)
    guess = None if denoise is None else partial(denoise)
    return _profile(key, oracle, guess, levels, _counted(draws), min(chunk, draws))


@eqx.filter_jit
def _profile(key, oracle, denoise, levels, draws, chunk):
    process = oracle.process

    def at(level):
        t = jnp.clip(process.time_of(level), 0, 1)

        def draw(index):
            data_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
            x0 = oracle.sample(data_key, 1)[0].astype(t.dtype)
            y = x0 + level * jax.random.normal(noise_key, x0.shape, x0.dtype)
            noise = _noise(oracle, y, t)
            miss = jnp.zeros_like(t) if denoise is None else _miss(process, denoise, y, t, noise)
            return jnp.sum(noise**2) / x0.size, miss / x0.size

        shares, misses = chunks.within(draw, draws, chunk)
        return shares.mean(), misses.mean(), _stderr(shares), _stderr(misses)

    return Profile(levels, *jax.lax.map(at, levels))


def held_out(
    key: PRNGKey, process: Gaussian, denoise: Denoiser, data: Any, levels: Any, *, draws: int = 1, chunk: int = 256
) -> Profile:
    """The denoising loss E|eps_hat - eps|^2 / D on examples (n, ...) that were not trained on, as `squares`; `draws`
    noises each, standard errors over examples.

    It is the network's error plus the noise's own variance 1 - share(s), which no network removes: an upper bound of
    the error, loose where noise is faint. Only an oracle tells the two apart, so `shares` is nan. The difference of two
    networks' losses is that of their errors."""
    levels, data = rising(levels, process), examples(data)
    counts(draws=draws, chunk=chunk)
    return _held_out(key, process, partial(denoise), data, levels, draws, min(chunk, len(data)))


@eqx.filter_jit
def _held_out(key, process, denoise, data, levels, draws, chunk):
    def at(level):
        t = jnp.clip(process.time_of(level), 0, 1)

        def example(i):
            x0 = data[i].astype(t.dtype)

            def draw(key):
                eps = jax.random.normal(key, x0.shape, x0.dtype)
                return _miss(process, denoise, x0 + level * eps, t, eps)

            return jax.vmap(draw)(jax.random.split(jax.random.fold_in(key, i), draws)).mean() / x0.size

        losses = chunks.within(example, len(data), chunk)
        return losses.mean(), _stderr(losses)

    squares, stderr = jax.lax.map(at, levels)
    unknown = jnp.full_like(squares, jnp.nan)
    return Profile(levels, unknown, squares, unknown, stderr)


def _counted(draws):
    if draws < 2:
        raise InputError(f"a profile got draws={draws}, expected at least 2")
    return draws


def step_cost(process: Gaussian, profile: Normal | Profile, walk: Walk = SCORE) -> Callable[..., Any]:
    """cost(high, low): E_D + E_S of a step between two noise levels, a dimension; what `grids.optimal` adds up.

    Raises InputError where the profile is not finite."""
    ok = known(lambda p: jnp.all(jnp.isfinite(p.share(1.0)) & jnp.isfinite(p.square(1.0))) & _finite(p), profile)
    profile = require(profile, ok, "the profile is not finite at every level; an oracle's `profile` is, `held_out` not")
    return Partial(_cost, process, profile, walk)


def _finite(tree):
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def _cost(process, profile, walk, high, low):
    square = profile.square(high)
    return _steps(process, profile, high, low, walk) + _times(walk.price(process, high, low), square)
