"""Linear SDEs with matrix coefficients: dX = beta(t) A X dt + sqrt(beta(t)) G dW on k coupled copies of the data
(position and velocity, say); A and G mix the copies, the same way at every element of the data.

A state is an array (k, *shape) whose first copy x[0] is the data. The other copies start from N(0, start) and are
integrated out (hybrid score matching, Dockhorn et al. 2022). So, with B the integral of beta and (Phi, S_B) its motion,

    p(X_t | x0) = N(m x0, S),    m = Phi e_0,    S = S_B + Phi start Phi',

a denoiser is E[x0 | X_t] of the data alone, and the score is -S^-1 (x - m E[x0 | X_t]). k = 1 is a Gaussian process."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdiff.errors import InputError
from jaxdiff.numerics import aligned, as_array, cast, concrete, known, partial
from jaxdiff.numerics.small import act, carry, outer, root, solve, times, whiten
from jaxdiff.processes.motion import REACH, Critical, Matrices, Motion, matrix_of, symmetric
from jaxdiff.processes.process import about_numbers, as_struct
from jaxdiff.types import Belief, Noise, PRNGKey, Scalar, State, Time


class Linear(eqx.Module):
    """The process of a `Motion`: `start` is the covariance (k, k) of X_0 given the data, `integral` is B(t).

    A `processes.Process`, `Diffusing` and `Augmented`. The shapes given to `prior` and `perturb` are the data's; states
    have one axis more, in front. The k x k algebra is done in float32 at least. The score subtracts m E[x0 | X_t]
    from x, which are close at small t: below t = 1e-3 states of several copies want float64."""

    motion: Motion
    start: Array = eqx.field(converter=as_array)
    integral: Callable[..., Any]

    def __check_init__(self):
        shape = self.motion.A.shape
        if self.start.shape != shape:
            raise InputError(f"start has shape {self.start.shape}, expected {shape}: a covariance of the copies at 0")
        if concrete(self):
            _check(*(np.asarray(value, float) for value in (self.start, *known(_ends, self))))

    @property
    def copies(self) -> int:
        """k."""
        return len(self.start)

    def kernel(self, t: Time) -> tuple[Float[Array, "... k"], Float[Array, "... k k"]]:
        """(m, S) of p(X_t | x0) = N(m x0, S), the same at every element of the data; `t` may be an array."""
        return cast(self._kernel(t), as_array(t).dtype)

    def log_snr(self, t: Time) -> Scalar:
        """log m' S^-1 m, what all copies together know of x0: log(alpha^2 / sigma^2) for k = 1."""
        mean, total = self._kernel(t)
        square = jnp.sum(whiten(root(total), jnp.moveaxis(mean, -1, 0)) ** 2, 0)
        return jnp.log(square).astype(as_array(t).dtype)

    def data(self, x: State) -> State:
        """The data in a state: its first copy."""
        return x[0]

    def drift(self, x: State, t: Time) -> State:
        """beta A x."""
        x, t = self._state(x, t)
        process, rate = self._rate(t)
        return act(rate * process.motion.A, x)

    def diffuse(self, z: State, t: Time) -> State:
        """sqrt(beta) G z."""
        z, t = self._state(z, t)
        process, rate = self._rate(t)
        return act(jnp.sqrt(rate) * process.motion.G, z)

    def score(self, x: State, belief: Belief, t: Time) -> State:
        """grad log p_t(x) = -S^-1 (x - m E[x0 | X_t = x]); `belief` has the data's shape, x.shape[1:]."""
        x, t = self._state(x, t)
        if jnp.shape(belief) != x.shape[1:]:
            raise InputError(
                f"the belief has shape {jnp.shape(belief)} for a state of shape {x.shape}, expected {x.shape[1:]}: the "
                f"first axis holds {self.copies} coupled copies, and a denoiser gives E[x0 | x_t] of the data alone"
            )
        mean, total = self._kernel(t)
        return -solve(root(total), (x - outer(mean, jnp.asarray(belief))).astype(total.dtype)).astype(x.dtype)

    def posterior(self, x: State, x0: State, t: Time, s: Time) -> tuple[State, Float[Array, "k k"]]:
        """Mean and lower triangular root of the covariance (k, k) of p(X_s | X_t = x, x0), s < t.

        With (F, Q) the motion from s to t and K = S_s F' S_t^-1, the mean is m_s x0 + K (x - m_t x0), the covariance
        (1 - K F) S_s (1 - K F)' + K Q K'."""
        x, t = self._state(x, t)
        (mean, total), (mean_s, total_s) = self._kernel(t), self._kernel(cast(as_array(s), t.dtype))
        process, t = self._at(t)
        forth, fresh = process.motion(process.integral(t) - process.integral(as_array(s).astype(t.dtype)))
        gain = solve(root(total), times(forth, total_s)).T
        rest = jnp.eye(self.copies, dtype=t.dtype) - times(gain, forth)
        spread = root(carry(rest, total_s) + carry(gain, fresh))
        x0 = jnp.asarray(x0)
        return outer(mean_s, x0) + act(gain, x - outer(mean, x0)), spread.astype(x.dtype)

    def bridge(self, key: PRNGKey, x: State, x0: State, t: Time, s: Time, *, noise: Noise = jax.random.normal) -> State:
        """X_s ~ p(X_s | X_t = x, x0), s < t, with fresh noise: a draw from `posterior`."""
        x, t = self._state(x, t)
        mean, spread = self.posterior(x, x0, t, s)
        return mean + act(spread, noise(key, x.shape, x.dtype))

    def believed(self, belief: Any, x: State) -> Belief:
        """`belief`, refused when it is not an array like the data in x."""
        return about_numbers(belief, x, self.data(x), "the data in x")

    def like(self, shape_like: Any) -> jax.ShapeDtypeStruct:
        """The shape and dtype of one example's data, those of `shape_like`; a state has an axis of copies in front."""
        return as_struct(shape_like)

    def prior(self, key: PRNGKey, like: Any, t: Time = 1.0, *, noise: Noise = jax.random.normal) -> State:
        """A state drawn from N(0, S(t)), for data of the shape and dtype of `like`.

        At t = 1 that is the stationary law but for what the motion still remembers (1e-5 in the default `cld`)."""
        like = self.like(like)
        return act(root(self._kernel(t)[1]), noise(key, (self.copies, *like.shape), like.dtype))

    def log_prior(self, x: State, t: Time = 1.0) -> Scalar:
        """log density of `prior` at the state `x`, summed over the data's axes."""
        x, t = self._state(x, t)
        spread = root(self._kernel(t)[1])
        squares = jnp.sum(whiten(spread, x.astype(spread.dtype)) ** 2)
        volume = jnp.sum(jnp.log(jnp.diagonal(spread))) + 0.5 * self.copies * math.log(2 * math.pi)
        return (-0.5 * squares - math.prod(x.shape[1:]) * volume).astype(x.dtype)

    def perturb(self, key: PRNGKey, x0: State, t: Time, *, noise: Noise = jax.random.normal) -> State:
        """X_t = m x0 + L eps with L L' = S, lower triangular, and fresh eps of shape (k, *shape)."""
        x0, t = aligned(x0, t)
        mean, total = self._kernel(t)
        return outer(mean, x0) + act(root(total), noise(key, (self.copies, *x0.shape), x0.dtype))

    def _at(self, t):
        t = as_array(t)
        t = t.astype(t.dtype if t.dtype == jnp.float64 else jnp.float32)
        return cast(self, t.dtype), t

    def _rate(self, t):
        process, t = self._at(t)
        return process, jax.jvp(process.integral, (t,), (jnp.ones_like(t),))[1]

    def _kernel(self, t):
        process, t = self._at(t)
        transition, noise = process.motion(process.integral(t))
        return transition[..., 0], noise + carry(transition, process.start)

    def _state(self, x, t):
        x, t = aligned(x, t)
        if x.shape[:1] != (self.copies,):
            raise InputError(
                f"a state has shape {x.shape}, expected ({self.copies}, ...): {self.copies} coupled copies of the data"
            )
        return x, t


@jax.jit
def _ends(process):
    b0, b1 = (process.integral(as_array(t)) for t in (0.0, 1.0))
    mean, total = process.kernel(1.0)
    return b0, b1, mean, total, jnp.diagonal(root(total)) ** 2 / jnp.diagonal(total)


def _check(start, b0, b1, mean, total, fresh):
    if not symmetric(start) or not (np.linalg.eigvalsh(start) >= -1e-6 * abs(start).max()).all():
        raise InputError(f"start is {start.tolist()}, expected a covariance: symmetric, without negative eigenvalues")
    if not (abs(b0) <= 1e-6 * abs(b1) and b1 > 0):
        raise InputError(f"B(0) = {b0} and B(1) = {b1}, expected an integral of beta, which rises from 0")
    if not (np.isfinite(total).all() and np.isfinite(mean).all()):
        raise InputError(
            f"the kernel at t = 1 is not finite: A is unstable, or |A| B(1) is larger than {REACH:g}; give a stable "
            "A, or a smaller beta"
        )
    if not (fresh > 1e-6).all():
        raise InputError(
            "noise does not reach every copy of the data: the covariance at t = 1 is singular; let A couple each copy "
            "to one that G or start makes noisy"
        )


def linear(A: Any, G: Any, *, beta: float | Scalar | Callable[..., Any] = 1.0, start: Any = None) -> Linear:
    """The process of dX = beta A X dt + sqrt(beta) G dW, each (k, k); by default X_0 = (x0, 0, ..., 0).

    `beta` is a constant, or its integral B(t) as a function (`schedules.LinearVP(0.1, 20.0).integral` for a linear
    beta; a pytree can be learned). `start` is the covariance (k, k) of X_0 given x0. Raises InputError for matrices
    that are not square, a G that is not symmetric, a kernel that overflows, and noise that does not reach a copy."""
    motion = Matrices(A, G)
    return Linear(motion, jnp.zeros_like(motion.A) if start is None else start, _integral(beta))


def cld(
    beta: float | Scalar | Callable[..., Any] = 4.0,
    mass: float | Scalar = 0.25,
    friction: float | Scalar | None = None,
    velocity: float | Scalar = 0.04,
) -> Linear:
    """Critically damped Langevin diffusion (Dockhorn et al. 2022): dx = beta v / M dt, dv = -beta (x + F v / M) dt +
    sqrt(2 F beta) dW. States are (position, velocity), their stationary law N(0, 1) x N(0, M).

    `mass` is M, `friction` F (by default 2 sqrt(M), critical), and the velocity starts from N(0, velocity M); `beta`
    is as for `linear`. Raises InputError for a mass, friction or beta that is not positive, or a negative velocity."""
    mass, velocity = as_array(mass), as_array(velocity)
    _require("mass", mass, mass > 0, "a positive number")
    _require("velocity", velocity, velocity >= 0, "a variance of at least 0, in units of the mass")
    zero = jnp.zeros_like(mass)
    motion = Critical(mass)
    if friction is not None:
        friction = as_array(friction)
        _require("friction", friction, friction > 0, "a positive number")
        A = matrix_of(zero, 1 / mass, zero - 1, -friction / mass)
        motion = Matrices(A, matrix_of(zero, zero, zero, jnp.sqrt(2 * friction)))
    return Linear(motion, matrix_of(zero, zero, zero, velocity * mass), _integral(beta))


def _integral(beta):
    if callable(beta):
        return partial(beta)
    beta = as_array(beta)
    _require("beta", beta, beta > 0, "a positive number, or its integral B(t) as a function")
    return partial(_steady, beta)


def _steady(beta, t):
    return beta * t


def _require(name, value, ok, expected):
    if concrete(ok) and not bool(ok):
        raise InputError(f"{name} is {value}, expected {expected}")
