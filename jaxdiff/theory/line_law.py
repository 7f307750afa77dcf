"""The exact law of a walk on one-dimensional data: no samples, and so a KL without Monte Carlo error.

A step's transition is Gaussian whatever the network is, y' ~ N(mean(y), std^2), so the density goes from level to level
by one integral,

    p(y') = int N(y'; mean(y), std) p(y) dy,

which the trapezium rule does to rounding, smooth as everything is, on points a small part of std apart. NumPy, in
float64; the network is asked in JAX's default dtype."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.loop import check
from jaxdiff.samplers.stepper import believe
from jaxdiff.theory.walks import SCORE, Walk, level, stepper
from jaxdiff.types import Denoiser

__all__ = ["Line", "kl", "law"]

REACH = 9.0  # standard deviations, beyond which a normal has 2e-19 of its mass
LIMIT = 60_000


class Line(NamedTuple):
    """The law of y = x / alpha at the last time of a walk: `mass` at `means`, blurred by N(0, std^2)."""

    means: np.ndarray
    mass: np.ndarray
    std: float

    def density(self, y: Any, block: int = 2**22) -> np.ndarray:
        """sum_j mass_j N(y; means_j, std) at rising points."""
        y, found = np.asarray(y), np.zeros(len(y))
        order = np.argsort(self.means)
        means, mass = self.means[order], self.mass[order] / (self.std * np.sqrt(2 * np.pi))
        reach = 38 * self.std  # what is further is no float64
        rows = max(1, block // len(means))
        for begin in range(0, len(y), rows):
            part = y[begin : begin + rows]
            near = slice(*np.searchsorted(means, (part[0] - reach, part[-1] + reach)))
            found[begin : begin + rows] = np.exp(-0.5 * ((part[:, None] - means[near]) / self.std) ** 2) @ mass[near]
        return found


def law(process: Gaussian, denoise: Denoiser, ts: Any, *, walk: Walk = SCORE, fine: float = 5.0) -> Line:
    """The law of `walk` from N(0, sigma^2) at ts[0] down to ts[-1], of examples of shape (1,).

    `fine` points a standard deviation of the narrower of two steps' noise. Raises InputError for times that the walk
    cannot take, a last step without noise, and more points than 60,000."""
    ts = check(stepper(process, walk), ts)
    levels, denoise = level(process, ts), partial(denoise)
    stds = [levels[:1], walk.kernel(process, levels[:-1], levels[1:], 0 * levels[:-1], 0 * levels[:-1])[1]]
    levels, stds = np.asarray(levels, np.float64), np.concatenate(stds).astype(np.float64)
    if not np.all(stds > 0):
        raise InputError("the walk's last step adds no noise, so its law has no density; end the times before it")
    found = Line(np.zeros(1), np.ones(1), stds[0])
    for k, std in enumerate(stds[1:]):
        # As finely as this density and the next step's kernel change.
        y = _points(found, min(found.std, std) / fine, levels[k])
        density = found.density(y)
        seen = density > 1e-18 * density.max()
        means = _means(process, denoise, walk, ts[k], ts[k + 1], y[seen])
        found = Line(means, density[seen] * (y[1] - y[0]), std)
    return found


def kl(oracle: Any, denoise: Denoiser, ts: Any, *, walk: Walk = SCORE, fine: float = 5.0) -> float:
    """KL of the data's law at ts[-1] from the walk's, in nats, for one-dimensional data whose oracle has `sample` and
    `log_prob`.

    Where the walk's density is below the smallest float64 that stands for it. Raises InputError as `law`, and for data
    whose density at ts[-1] is too narrow for 60,000 points."""
    found, t = law(oracle.process, denoise, ts, walk=walk, fine=fine), as_array(ts)[-1]
    alpha, noise = float(oracle.process.scales(t)[0]), float(level(oracle.process, t))
    draws = np.asarray(oracle.sample(jax.random.key(0), 4096), np.float64)
    margin = 0.5 * (draws.max() - draws.min()) + REACH * noise
    low, high = draws.min() - margin, draws.max() + margin
    # Nothing in y = x0 + noise eps is narrower than its noise; without any, the data must be smooth by themselves.
    y = np.linspace(low, high, int(np.clip(np.ceil((high - low) * 4 / max(noise, 1e-9)), 2000, LIMIT)))
    log_q = np.asarray(_log_prob(oracle, alpha * jnp.asarray(y[:, None], t.dtype), t), np.float64) + np.log(alpha)
    q, width = np.exp(log_q), y[1] - y[0]
    if abs(q.sum() * width - 1) > 1e-5:
        raise InputError(
            f"the data's density at noise level {noise:.3g} cannot be integrated: it is too narrow, or part of it lies "
            "outside of what its draws show; end the times earlier, or give no part a tiny weight"
        )
    return float(np.sum(q * (log_q - np.log(np.maximum(found.density(y), 1e-300)))) * width)


def _points(found, apart, level):
    low, high = found.means.min() - REACH * found.std, found.means.max() + REACH * found.std
    count = int(np.ceil((high - low) / apart)) + 1
    if count > LIMIT:
        raise InputError(
            f"the law at noise level {level:.3g} needs {count} points, expected at most {LIMIT}; end the walk at a "
            "higher level, or take more steps"
        )
    return np.linspace(low, high, count)


def _means(process, denoise, walk, t, s, y):
    block = 4096  # of one shape, so that one program serves all
    padded = np.pad(y, (0, -len(y) % block), mode="edge").reshape(-1, block)
    found = [np.asarray(_mean(process, denoise, walk.kernel, t, s, jnp.asarray(part, t.dtype))) for part in padded]
    return np.concatenate(found).astype(np.float64)[: len(y)]


@eqx.filter_jit
def _mean(process, denoise, kernel, t, s, y):
    (alpha, sigma), low = process.scales(t), level(process, s)

    def one(y):
        x = alpha * y[None]
        score = alpha * (alpha * believe(denoise, x, t) - x) / sigma**2
        return kernel(process, sigma / alpha, low, y[None], score)[0][0]

    return jax.vmap(one)(y)


@eqx.filter_jit
def _log_prob(oracle, x, t):
    return jax.vmap(lambda x: oracle.log_prob(x, t))(x)
