"""Exponential integrators: the noise scales exactly, the belief as a polynomial.

Along the flow x = p f + q g, where f is the belief that a method interpolates and p its scale, g the other one and q
its scale: (alpha, D, sigma, eps) in data form (DPM-Solver++), (sigma, eps, alpha, D) in noise form (DPM-Solver, DEIS).
From time t to s the flow is, exactly,

    x_s = (q_s / q) x + r E[f(v)],    r = p_s - p q_s / q,    l = log(p / q),    z = l_s - l_t,

with f at the place v = (l - l_t) / z and the mean over v in [0, 1] with density proportional to e^(z v). A method is a
choice of places whose f it interpolates, and of the density that it takes for this one. The sum is written p_s f + q_s
g + r (E[f(v)] - f), which is finite where q = 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.types import Scalar, State, Time

ABSENT = jnp.inf
"""The place of a belief that is not known (yet); such ones come last."""

# Exact for polynomials times e^(z v), |z| < 1, to the rounding of float64.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2

Density = Callable[[Any, int], list[Any]]
"""(z, n) -> [E 1, E v, ..., E v^n]."""


def exact(z: Scalar, n: int) -> list[Any]:
    """E v^k under the density e^(z v): E v^k = 1 / (1 - e^-z) - (k / z) E v^(k-1), which cancels at small z."""
    small = abs(z) < 1
    near, far = jnp.where(small, z, 0), jnp.where(small, 1, z)
    nodes, weights = (jnp.asarray(a, z.dtype) for a in (_NODES, _WEIGHTS))
    mass = weights * jnp.exp(near * nodes)
    moments: list[Any] = [1.0]
    last = jnp.ones_like(z)
    for k in range(1, n + 1):
        last = -1 / jnp.expm1(-far) - k / far * last
        moments.append(jnp.where(small, jnp.sum(mass * nodes**k) / jnp.sum(mass), last))
    return moments


def flat(z: Scalar, n: int) -> list[Any]:
    """E v^k under the uniform density: right to the leading order in z, or for l that is no logarithm."""
    return [1 / (k + 1) for k in range(n + 1)]


def halved(z: Scalar, n: int) -> list[Any]:
    """The published third-order multistep forms, which halve E v^2 (they take f''/2 for f''), and so are of order 2."""
    moments = exact(z, n)
    return [*moments[:2], 0.5 * moments[2], *moments[3:]]


@dataclass(frozen=True)
class Form:
    """Which belief is interpolated, the noise or the data."""

    of_noise: bool

    def pair(self, data: Any, noise: Any) -> tuple[Any, Any]:
        """(what belongs to the interpolated belief, what belongs to the other)."""
        return (noise, data) if self.of_noise else (data, noise)

    def level(self, process: Gaussian, t: Time) -> Scalar:
        """l = log(p / q); infinite at an end where alpha or sigma is 0."""
        p, q = self.pair(*process.scales(t))
        return jnp.log(p) - jnp.log(q)

    def beliefs(self, process: Gaussian, data: State, x: State, t: Time) -> tuple[State, State]:
        """(f, g) from D."""
        alpha, sigma = process.scales(t)
        return self.pair(data, (x - alpha * data) / sigma)

    def travel(
        self,
        process: Gaussian,
        beliefs: tuple[State, State],
        t: Time,
        s: Time,
        others: Sequence[State] = (),
        places: Sequence[Any] = (),
        density: Density = exact,
    ) -> State:
        """x_s from the (f, g) of x_t, with f through `others` at `places` v too."""
        (p, q), (p_s, q_s) = self.pair(*process.scales(t)), self.pair(*process.scales(s))
        f, g = beliefs
        z = finite(self.level(process, s) - self.level(process, t))
        reach = finite(p_s - p * q_s / q)
        return p_s * f + q_s * g + reach * bend((f, *others), places, density(z, len(places)))


DATA, NOISE = Form(of_noise=False), Form(of_noise=True)


def finite(value: Array) -> Array:
    """`value`, or 0 in place of infinity and NaN: what multiplies an absent difference."""
    return jnp.where(jnp.isfinite(value), value, 0)


def bend(beliefs: Sequence[State], places: Sequence[Any], moments: Sequence[Any]) -> State:
    """E[f(v)] - f(0), f the polynomial through `beliefs` at 0 and at `places`, in Newton's divided differences."""
    there = [True, *(jnp.isfinite(place) for place in places)]
    at = [0.0, *(finite(place) for place in places)]
    differences, basis, total = list(beliefs), [1.0], jnp.zeros_like(beliefs[0])
    for k in range(1, len(beliefs)):
        # [v_0 ... v_k] f, and the coefficients of (v - v_0) ... (v - v_(k-1)) from the lowest.
        differences = [
            jnp.where(
                there[j + k], (differences[j + 1] - differences[j]) / jnp.where(there[j + k], at[j + k] - at[j], 1), 0
            )
            for j in range(len(differences) - 1)
        ]
        basis = [up - at[k - 1] * here for up, here in zip([0.0, *basis], [*basis, 0.0], strict=True)]
        total += sum(c * m for c, m in zip(basis, moments, strict=False)) * differences[0]
    return total
