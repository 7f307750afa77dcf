"""From whole grey levels to a continuum, so that a density can speak of a probability.

Level k of L stands at x_k = low + (high - low) k / (L - 1), in a cell of width w = (high - low) / (L - 1) about it. A
dequantiser draws y in x's cell from q(y | x), and by Jensen's inequality

    log P(x) = log int_cell p(y) dy >= E_q[log p(y) - log q(y | x)].

`dequantize(key, x) -> (y, -log q(y | x))`, for one example. In the terms of x = a (k + U) / L + b with U in [0, 1):
w = a / L, so `uniform` adds D log(a / L) nats: bits/dim = -log2 p / D - log2(a) + log2(L), the familiar + 7 of 256
levels in [-1, 1) (Theis et al. 2016; Song et al. 2021)."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.types import PRNGKey, Scalar

__all__ = ["Dequantizer", "Uniform", "Variational", "uniform", "variational"]


@runtime_checkable
class Dequantizer(Protocol):
    """Draws y ~ q(y | x) in the cell of x; `check` refuses data that are no grey levels."""

    def __call__(self, key: PRNGKey, x: Array) -> tuple[Array, Scalar]: ...
    def check(self, x: np.ndarray) -> None: ...


class _Levels(eqx.Module):
    """L grey levels from `low` to `high`."""

    levels: int = eqx.field(static=True)
    low: Array = eqx.field(converter=as_array)
    high: Array = eqx.field(converter=as_array)

    def __check_init__(self):
        if self.levels < 2:
            raise InputError(f"levels is {self.levels}, expected at least 2 grey levels such as 256")

    def width(self, dtype: Any) -> Scalar:
        return (self.high - self.low).astype(dtype) / (self.levels - 1)

    def check(self, x: np.ndarray) -> None:
        """InputError where an element of `x` is none of the levels."""
        low, high, x = float(self.low), float(self.high), np.asarray(x)
        if not np.issubdtype(x.dtype, np.floating):
            raise InputError(
                f"the data have dtype {x.dtype}, expected floats from {low:g} to {high:g}; map grey levels there with "
                "jaxdiff.data.to_model"
            )
        level = (x.astype(np.float64) - low) / (high - low) * (self.levels - 1)
        # A level written in float32 is off by up to 1e-7 of the range.
        wrong = ~(np.abs(level - np.clip(np.rint(level), 0, self.levels - 1)) < 1e-6 * self.levels)
        if wrong.any():
            raise InputError(
                f"{int(wrong.sum())} of {x.size} values, such as {x[wrong].flat[0]:g}, are none of the {self.levels} "
                f"levels from {low:g} to {high:g}; give the levels, low and high that the data were scaled with"
            )


class Uniform(_Levels):
    """See `uniform`."""

    def __call__(self, key: PRNGKey, x: Array) -> tuple[Array, Scalar]:
        width = self.width(x.dtype)
        return x + width * (jax.random.uniform(key, x.shape, x.dtype) - 0.5), x.size * jnp.log(width)


class Variational(_Levels):
    """See `variational`."""

    apply: Any
    params: PyTree[Any]

    def __call__(self, key: PRNGKey, x: Array) -> tuple[Array, Scalar]:
        width, eps = self.width(x.dtype), jax.random.normal(key, x.shape, x.dtype)
        mean, log_std = self.apply(self.params, x)
        for name, value in (("mean", mean), ("log_std", log_std)):
            if jnp.shape(value) not in (x.shape, ()):
                raise InputError(f"the dequantiser's {name} has shape {jnp.shape(value)}, expected {x.shape}, x's own")
        z = mean + jnp.exp(log_std) * eps
        # -log q: of eps, of its scaling, and of z -> sigmoid(z), whose slope is sigmoid(z) sigmoid(-z).
        terms = 0.5 * (eps**2 + jnp.log(2 * jnp.pi).astype(x.dtype)) + log_std
        terms = terms + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) + jnp.log(width)
        return x + width * (jax.nn.sigmoid(z) - 0.5), jnp.sum(terms)


def uniform(levels: int = 256, *, low: float = -1.0, high: float = 1.0) -> Uniform:
    """y = x + w (U - 1/2), U uniform in [0, 1): -log q = D log w."""
    return Uniform(levels, low, high)


def variational(
    apply: Callable[..., Any], params: PyTree[Any], levels: int = 256, *, low: float = -1.0, high: float = 1.0
) -> Variational:
    """y = x + w (sigmoid(m + e^s eps) - 1/2) with (m, s) = apply(params, x), in x's shape: a logistic-normal q whose
    parameters learn from the bound (Ho et al. 2019, variational dequantisation).

    m = 0 and s = .56 come nearest to the uniform one, .0095 nats an element away."""
    return Variational(levels, low, high, partial(apply), params)
