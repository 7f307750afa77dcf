"""The probability flow as an ODE, solved by diffrax to a tolerance.

Time is the angle theta = atan(sigma / alpha), the state z = x / sqrt(alpha^2 + sigma^2) = cos(theta) x0 + sin(theta)
eps. Every process is the same ODE there, dz/dtheta = (cos(theta) z - D) / sin(theta), smooth up to both ends: it takes
a fraction of the solver steps that log(sigma / alpha) takes."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import believe
from jaxdiff.types import Denoiser, State, Time


class Flow(NamedTuple):
    """Where the flow arrived, how many denoiser calls that took, and diffrax's result code."""

    x: State
    calls: Int[Array, ""]
    result: Any


def flow(
    process: Gaussian,
    denoise: Denoiser,
    x: Array,
    t: Time = 1.0,
    s: Time = 0.0,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    solver: Any = None,
    controller: Any = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> Flow:
    """Carry `x` from time t to time s, either way, along dx/dt = alpha' D + sigma' E[eps | x_t].

    Tsit5 and a PID controller unless others are given. Under `jax.vmap` each example takes its own steps; given a
    batch and a denoiser of batches (`jax.vmap(denoise, (0, None))`) all share one. `result ==
    diffrax.RESULTS.successful` unless the solver gave up, in which case x is not to be used. Raises InputError for an
    implicit solver, whose calls nobody counts."""
    solver = diffrax.Tsit5() if solver is None else solver
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        raise InputError(
            f"flow got the implicit solver {type(solver).__name__}, whose inner iterations hide the number of denoiser "
            "calls; use an explicit one such as diffrax.Tsit5() or diffrax.Dopri8(): in the angle the flow is not stiff"
        )
    # (EDM and Song et al. use an I controller; these coefficients are diffrax's defaults.)
    controller = diffrax.PIDController(rtol=rtol, atol=atol) if controller is None else controller
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    return _solve(process, partial(denoise), x, t, s, solver, controller, max_steps, adjoint)


@eqx.filter_jit
def _solve(process, denoise, x, t, s, solver, controller, max_steps, adjoint):
    begin, end = (_polar(process, time, x.dtype) for time in (t, s))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_slope),
        solver,
        begin[0],
        end[0],
        (end[0] - begin[0]) / 10,
        x / begin[1],
        args=(process, denoise),
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    steps = jnp.asarray(solution.stats["num_steps"])
    return Flow(end[1] * solution.ys[-1], _calls(solver, steps), solution.result)  # type: ignore[index]


def _polar(process, t, dtype):
    alpha, sigma = process.scales(as_array(t).astype(dtype))
    return jnp.arctan2(sigma, alpha), jnp.hypot(alpha, sigma)


def _slope(theta, z, args):
    process, denoise = args
    # At theta = 0 the slope is 0 / 0. Held at `near`, the last sliver of the way is off by near^2, the rounding of z.
    near = jnp.sqrt(jnp.finfo(z.dtype).eps)
    theta = jnp.clip(theta, near, 0.5 * jnp.pi)
    cos, sin = jnp.clip(jnp.cos(theta), min=0), jnp.sin(theta)
    t = jnp.clip(process.time_of(sin / cos), 0, 1)
    alpha, sigma = process.scales(t)
    return (cos * z - believe(denoise, jnp.hypot(alpha, sigma) * z, t)) / sin


def _calls(solver, steps):
    """Denoiser calls of `steps` solver steps, rejected ones included: a first-same-as-last tableau saves one a step."""
    tableau = getattr(solver, "tableau", None)
    if tableau is None:
        return steps + int(isinstance(solver, diffrax.ReversibleHeun))  # which begins with one call more
    stages = tableau.num_stages
    return (stages - 1) * steps + 1 if tableau.fsal else stages * steps
