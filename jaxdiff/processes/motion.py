"""Where dX = A X dB + G dW carries a known state in the time B: to N(Phi x, S), with

    Phi = exp(A B),    S = the integral of exp(A b) G G' exp(A' b) over b in [0, B].

Near B = 0 each entry of both keeps its relative precision, in float32 too (there a critically damped S has entries of
order B, B^2 and B^3): none is a difference of larger numbers."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete
from jaxdiff.numerics.small import carry, times
from jaxdiff.types import Scalar

DOUBLINGS = 16
"""A series as far as |A| B = 1/2, doubled at most so often."""
REACH = 2.0 ** (DOUBLINGS - 1)
"""The largest |A| B, beyond which (Phi, S) is NaN."""


@runtime_checkable
class Motion(Protocol):
    """A, G, and motion(B) -> (Phi, S), for an array of B too."""

    @property
    def A(self) -> Any: ...
    @property
    def G(self) -> Any: ...
    def __call__(self, b: Scalar) -> tuple[Array, Array]: ...


class Matrices(eqx.Module):
    """Any A and symmetric G, (k, k): the series in B, then doubling, (Phi, S) -> (Phi^2, S + Phi S Phi').

    Raises InputError for matrices that are not square or not of one size, and for a G that is not symmetric."""

    A: Array = eqx.field(converter=as_array)
    G: Array = eqx.field(converter=as_array)

    def __check_init__(self):
        k = self.A.shape[0] if self.A.ndim else 0
        if k == 0 or not self.A.shape == self.G.shape == (k, k):
            raise InputError(
                f"a linear SDE got A of shape {self.A.shape} and G of shape {self.G.shape}, expected two square "
                "matrices (k, k) for k coupled copies of the data"
            )
        if concrete(self.G) and not symmetric(self.G):
            raise InputError(
                "a linear SDE got a G that is not symmetric; give the symmetric square root of its diffusion matrix "
                "G G', which makes the same process"
            )

    def __call__(self, b):
        return _exponential(self.A, self.G, b)


@jax.jit
def _exponential(A, G, b):
    norm = jax.lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(A), 0)) * b)
    doublings = jnp.clip(jnp.ceil(jnp.log2(norm)) + 1, 0, DOUBLINGS)
    h = (b * jnp.exp2(-doublings))[..., None, None]
    eye = jnp.broadcast_to(jnp.eye(len(A), dtype=b.dtype), (*b.shape, *A.shape))
    heat = h * times(G, G)
    terms = 20 if b.dtype == jnp.float64 else 12

    def add(state, j):
        power, heat, transition, noise = state
        power = (h / j) * times(A, power)
        step = times(A, heat)
        heat = (h / (j + 1)) * (step + jnp.swapaxes(step, -1, -2))
        return (power, heat, transition + power, noise + heat), None

    def double(state, i):
        transition, noise = state
        doubled = times(transition, transition), noise + carry(transition, noise)
        goes_on = (i < doublings)[..., None, None]
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), doubled, state), None

    (*_, transition, noise), _ = jax.lax.scan(add, (eye, heat, eye, heat), jnp.arange(1, terms, dtype=b.dtype))
    both, _ = jax.lax.scan(double, (transition, noise), jnp.arange(DOUBLINGS, dtype=b.dtype))
    within = (norm <= REACH)[..., None, None]
    return jax.tree.map(lambda matrix: jnp.where(within, matrix, jnp.nan), both)


class Critical(eqx.Module):
    """dx = v / M, dv = -x - (2 / sqrt(M)) v, and noise of variance 4 sqrt(M) on v: critical damping (Dockhorn et al.
    2022, App. B).

    With y = B / sqrt(M) and P(3, z) = 1 - e^-z (1 + z + z^2 / 2), per unit of w = v / sqrt(M), Phi = e^-y [[1 + y, y],
    [-y, 1 - y]], S_xx = P(3, 2y), S_xw = 2 y^2 e^-2y and S_ww = S_xx + 4 y e^-2y."""

    mass: Array = eqx.field(converter=as_array)

    @property
    def A(self):
        zero = jnp.zeros_like(self.mass)
        return matrix_of(zero, 1 / self.mass, zero - 1, -2 / jnp.sqrt(self.mass))

    @property
    def G(self):
        zero = jnp.zeros_like(self.mass)
        return matrix_of(zero, zero, zero, 2 * jnp.sqrt(jnp.sqrt(self.mass)))

    def __call__(self, b):
        unit = jnp.sqrt(self.mass)
        y = b / unit
        fade, settled = jnp.exp(-2 * y), _third_gamma(2 * y)
        transition = jnp.exp(-y)[..., None, None] * matrix_of(1 + y, y / unit, -y * unit, 1 - y)
        cross = 2 * y**2 * fade * unit
        return transition, matrix_of(settled, cross, cross, self.mass * (settled + 4 * y * fade))


def _third_gamma(z):
    """P(3, z), the regularised incomplete gamma function: z^3 / 6 near 0, where a series of positive terms is exact."""
    small = z < 2
    near = jnp.where(small, z, 0)
    series = jnp.ones_like(z)
    for j in range(24, 3, -1):
        series = 1 + near / j * series
    return jnp.where(small, near**3 / 6 * series * jnp.exp(-near), 1 - jnp.exp(-z) * (1 + z + 0.5 * z**2))


def matrix_of(a: Scalar, b: Scalar, c: Scalar, d: Scalar) -> Array:
    """[[a, b], [c, d]]."""
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)


def symmetric(matrix: Array | np.ndarray) -> bool:
    """Whether a known matrix is symmetric to rounding."""
    known = np.asarray(matrix, float)  # NumPy's own: JAX would compile each step of a check
    return bool(abs(known - known.T).max() <= 1e-6 * abs(known).max())
