"""Walks back from noise to data whose law can be compared with the data's exactly: one thing is frozen over each step,
and the rest of the reverse SDE is integrated as it is.

In y = x / alpha every Gaussian process is VE, y = x0 + s eps with s = sigma / alpha, and its reverse SDE, in the time v
= s^2 that falls, is dy = score(y, v) (-dv) + dW. From the level h to the level l < h a walk has in the score's place

    SCORE        score(y_h, h)                            y + (h^2 - l^2) score + sqrt(h^2 - l^2) z
    BELIEF       (D(y_h, h) - y_v) / v                    (l/h)^2 y + (1 - (l/h)^2) D + l sqrt(1 - (l/h)^2) z
    PLAIN_SCORE  (alpha_v / alpha_h) score(y_h, h)        y + R score + sqrt(h^2 - l^2) z, R = int alpha_v / alpha_h dv

BELIEF is DDPM's ancestral step (`samplers.ancestral`). PLAIN_SCORE freezes the score of x itself, as papers on VP do;
it is SCORE wherever alpha is constant. The score and the belief of the true reverse process are martingales, so by
Girsanov's theorem the KL of its path from the walk's is a sum: the prior's, the steps', the network's, without a cross
term. The score of x is none; there |a + b|^2 <= 2 |a|^2 + 2 |b|^2 leaves a bound with the last two doubled.

Per dimension and in nats, with share(s) = E|E[eps | x_s]|^2 / D, which goes from 0 (noise that cannot be told from
data) to 1 (pure noise), and e^2 the mean squared error of the predicted noise at h, a step of SCORE and one of BELIEF
cost

    int_l^h share dln s - (1 - (l/h)^2) share(h) / 2                  + (1 - (l/h)^2) e^2 / 2
    ((h/l)^2 - 1) (1 - share(h)) / 2 - int_l^h (1 - share) dln s      + ((h/l)^2 - 1) e^2 / 2

so SCORE's steps are free where share = 0, in noise too faint to be seen, and BELIEF's where share = 1, of data that are
known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.numerics import as_array
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.brownian import increment
from jaxdiff.samplers.stepper import Stepper, believe, one_step
from jaxdiff.types import Scalar

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)


class Walk(NamedTuple):
    """What is frozen, as functions of noise levels s = sigma / alpha that work element by element.

    drift(process, high, y, score, level, there) -> what stands for the score at `there`, on the way at `level`;
    kernel(process, high, low, y, score) -> mean and standard deviation of y at `low`;
    steps(process, high, low, share, integral) -> a step's discretisation error, given share(high) and int share dln s;
    price(process, high, low) -> what a unit of the squared error of the noise costs. The last two per dimension, in
    nats. `factor` multiplies both: 2 where a cross term had to be bounded."""

    drift: Callable[..., Any]
    kernel: Callable[..., Any]
    steps: Callable[..., Any]
    price: Callable[..., Any]
    factor: float = 1.0


def stepper(process: Gaussian, walk: Walk) -> Stepper:
    """The walk for `samplers.sample`; its first time must have alpha > 0."""
    return one_step(_step, process, walk.kernel, stochastic=True, demands=Partial(signal, process))


def signal(process: Gaussian, ts: Array) -> tuple[Any, ...]:
    """The demand of a walk: a finite first level."""
    message = (
        "alpha is 0 at the first time, where the noise level sigma / alpha is infinite, and so is the error of a step "
        "from there; start lower, such as at grids.karras(process, 18, sigma_max=80.0)"
    )
    return ((process.scales(ts[0])[0] > 0, message),)


def level(process: Gaussian, t: Any) -> Scalar:
    """sigma / alpha at `t`."""
    alpha, sigma = process.scales(t)
    return sigma / alpha


def _step(process, kernel, key, denoise, x, t, s, noise):
    (alpha, sigma), (alpha_s, sigma_s) = process.scales(t), process.scales(s)
    score = alpha * (alpha * believe(denoise, x, t) - x) / sigma**2
    mean, std = kernel(process, sigma / alpha, sigma_s / alpha_s, x / alpha, score)
    return alpha_s * (mean + std * increment(noise, key, x, t, s))


# The score of y ------------------------------------------------------------------------------------------------------


def _score_drift(process, high, y, score, level, there):
    return score


def _score_kernel(process, high, low, y, score):
    span = high**2 - low**2
    return y + span * score, jnp.sqrt(span)


def _score_steps(process, high, low, share, integral):
    return integral - _score_price(process, high, low) * share


def _score_price(process, high, low):
    return 0.5 * (1 - (low / high) ** 2)


SCORE = Walk(Partial(_score_drift), Partial(_score_kernel), Partial(_score_steps), Partial(_score_price))


# The belief ----------------------------------------------------------------------------------------------------------


def _belief_drift(process, high, y, score, level, there):
    return (y + high**2 * score - there) / level**2


def _belief_kernel(process, high, low, y, score):
    fresh = 1 - (low / high) ** 2
    return y + fresh * high**2 * score, low * jnp.sqrt(fresh)


def _belief_steps(process, high, low, share, integral):
    # With no noise left the walk ends in points, whose law is infinitely far from any density.
    spent = _belief_price(process, high, low) * (1 - share) - (jnp.log(high / low) - integral)
    return jnp.where(low > 0, spent, jnp.inf)


def _belief_price(process, high, low):
    return 0.5 * ((high / low) ** 2 - 1)


BELIEF = Walk(Partial(_belief_drift), Partial(_belief_kernel), Partial(_belief_steps), Partial(_belief_price))


# The score of x ------------------------------------------------------------------------------------------------------


def _alpha(process, level):
    return process.scales(jnp.clip(process.time_of(level), 0, 1))[0]


def _stretch(process, high, low, power):
    """int power(alpha_v / alpha_h) dv from low^2 to high^2, by Gauss and Legendre in asinh(s)."""
    high, low = (as_array(value)[..., None] for value in (high, low))
    nodes, weights = (jnp.asarray(table, high.dtype) for table in (NODES, WEIGHTS))
    start, end = jnp.arcsinh(low), jnp.arcsinh(high)
    place = start + 0.5 * (end - start) * (nodes + 1)
    ratio = _alpha(process, jnp.sinh(place)) / _alpha(process, high)
    return jnp.sum(0.5 * (end - start) * weights * power(ratio) * jnp.sinh(2 * place), axis=-1)


def _plain_drift(process, high, y, score, level, there):
    return _alpha(process, level) / _alpha(process, high) * score


def _plain_kernel(process, high, low, y, score):
    reach = _stretch(process, high, low, lambda ratio: ratio)
    return y + reach * score, jnp.sqrt(high**2 - low**2)


def _plain_steps(process, high, low, share, integral):
    drawn_out = _stretch(process, high, low, lambda ratio: (ratio - 1) ** 2)
    return _score_steps(process, high, low, share, integral) + 0.5 * drawn_out / high**2 * share


def _plain_price(process, high, low):
    return 0.5 * _stretch(process, high, low, lambda ratio: ratio**2) / high**2


PLAIN_SCORE = Walk(Partial(_plain_drift), Partial(_plain_kernel), Partial(_plain_steps), Partial(_plain_price), 2.0)
