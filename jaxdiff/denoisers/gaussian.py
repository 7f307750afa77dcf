"""A denoiser says what it believes of the clean data: denoise(x, t) = E[x0 | x_t = x] for Gaussian noise.

A network becomes one by a row (what it predicts) and a process (what noise did). Score, noise and velocity are views of
a denoiser: each is a x0 + b eps with E[x0 | x_t] and E[eps | x_t] put in."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxdiff import parameterizations
from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, partial
from jaxdiff.parameterizations import InputScaled, Row, to_data
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Denoiser, PRNGKey, Scalar, Time


def log_ratio(process: Gaussian, t: Time) -> Scalar:
    """ln(sigma / alpha) / 4, EDM's c_noise.

    The ratio is held in [1e-3, 1e3]: its limits 0 and infinity (sigma = 0, alpha = 0) are no input for a network, and
    beyond them x_t is all data or all noise."""
    alpha, sigma = process.scales(t)
    return 0.25 * jnp.log(jnp.clip(sigma / alpha, 1e-3, 1e3))


def unit_scale(process: Gaussian, t: Time) -> Scalar:
    """1 / sqrt(alpha^2 + sigma^2), which gives the network an input of variance 1 when the data have it."""
    alpha, sigma = process.scales(t)
    return 1 / jnp.sqrt(alpha**2 + sigma**2)


class Network(eqx.Module):
    """A network with all that makes it a denoiser but its parameters: `network(params, cond)` is a Denoiser."""

    apply: Callable[..., Any]
    row: Any
    process: Gaussian
    c_in: Callable[..., Any]
    c_noise: Callable[..., Any]

    def __call__(self, params: PyTree[Any], cond: PyTree[Any] = None, *, key: PRNGKey | None = None) -> Denoiser:
        """The denoiser of one example, given parameters and that example's own conditioning; `key` turns dropout on."""
        return partial(_denoise, self, params, cond, key)

    def bind(self, params: PyTree[Any]) -> Callable[..., Denoiser]:
        """cond -> Denoiser, the form that `samplers.draw` maps over examples."""
        return partial(_bind, self, params)


def from_network(
    apply: Callable[..., Any],
    row: Row,
    process: Gaussian,
    *,
    c_in: Callable[..., Any] | None = None,
    c_noise: Callable[..., Any] = log_ratio,
) -> Network:
    """Join `apply(params, x, c_noise, cond, *, key=None)`, written for a batch, to the one-example world.

    The network sees c_in(process, t) x (by default the row's own scale, else unit variance), and c_noise(process, t).
    It computes in the dtype of its parameters; the result has x's dtype."""
    row_tree: Any = partial(row)
    own_scale = partial(_row_scale, row_tree) if isinstance(row_tree, InputScaled) else unit_scale
    return Network(partial(apply), row_tree, process, partial(c_in or own_scale), partial(c_noise))


def _row_scale(row, process, t):
    return row.input_scale(process, t)


def _bind(network, params, cond):
    return network(params, cond)


def _denoise(network, params, cond, key, x, t):
    x, t = aligned(x, t)
    floats = [leaf.dtype for leaf in jax.tree.leaves(params) if eqx.is_inexact_array(leaf)]
    dtype = jnp.result_type(*floats) if floats else x.dtype
    x_in = (network.c_in(network.process, t) * x).astype(dtype)[None]
    c_noise = network.c_noise(network.process, t).astype(dtype)[None]
    cond = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], cond)
    # Without a key no network needs to know the word: Linen and Equinox functions plug in as they are.
    options = {} if key is None else {"key": key}
    y = network.apply(params, x_in, c_noise, cond, **options)
    if not hasattr(y, "shape") or y.shape != x_in.shape:
        raise InputError(
            f"the network returned {_describe(y)}, expected an array of its input's shape {x_in.shape}: "
            "one example in, one of the same shape out"
        )
    return to_data(network.row, network.process, y[0].astype(x.dtype), x, t)


def _describe(value):
    return f"shape {value.shape}" if hasattr(value, "shape") else f"a {type(value).__name__}"


def recast(denoise: Denoiser, source: Gaussian, target: Gaussian) -> Denoiser:
    """What a denoiser of `source` believes of the noisy data of `target`: the same, at the same noise level sigma /
    alpha.

    So a sampler may walk another process than the network was trained on. Levels that `source` does not reach are held
    at its ends."""
    return partial(_recast, source, target, partial(denoise))


def _recast(source, target, denoise, x, t):
    x, t = aligned(x, t)
    alpha, sigma = target.scales(t)
    ends = source.scales(jnp.array([0, 1], x.dtype))
    level = jnp.clip(sigma / alpha, *(ends[1] / ends[0]))
    t_source = jnp.clip(source.time_of(level), 0, 1)
    # At equal levels the scales are proportional; their lengths have no 0 / 0 at either end.
    return denoise(jnp.hypot(*source.scales(t_source)) / jnp.hypot(alpha, sigma) * x, t_source)


def score(process: Gaussian, denoise: Denoiser) -> Callable[[Array, Time], Array]:
    """grad log p_t(x) = (alpha D - x) / sigma^2 (Tweedie), as a function of (x, t)."""
    return _view(parameterizations.score, process, denoise)


def noise(process: Gaussian, denoise: Denoiser) -> Callable[[Array, Time], Array]:
    """E[eps | x_t] = (x - alpha D) / sigma, as a function of (x, t)."""
    return _view(parameterizations.noise, process, denoise)


def velocity(process: Gaussian, denoise: Denoiser) -> Callable[[Array, Time], Array]:
    """alpha' D + sigma' E[eps | x_t], the right-hand side of the probability flow dx/dt, as a function of (x, t)."""
    return _view(parameterizations.velocity, process, denoise)


def _view(row, process, denoise):
    return partial(_seen, partial(row), process, partial(denoise))


def _seen(row, process, denoise, x, t):
    return parameterizations.from_data(row, process, denoise(x, t), x, t)
