"""The probability flow as an ODE, solved by diffrax to a tolerance.

By default its time is the angle theta = atan(sigma / alpha), its state z = x / sqrt(alpha^2 + sigma^2) = cos(theta) x0
+ sin(theta) eps. Every Gaussian process is the same ODE there, dz/dtheta = (cos(theta) z - D) / sin(theta), smooth up
to both ends: it takes a fraction of the solver steps that log(sigma / alpha) takes. `clocks` has the others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known, partial, require
from jaxdiff.samplers.clocks import Clock, suited
from jaxdiff.types import Denoiser, State, Time


class Flow(NamedTuple):
    """Where the flow arrived, how many denoiser calls that took, and diffrax's result code."""

    x: State
    calls: Int[Array, ""]
    result: Any


def flow(
    process: Any,
    denoise: Denoiser,
    x: Array,
    t: Time = 1.0,
    s: Time = 0.0,
    *,
    clock: Clock | None = None,
    rtol: Any = 1e-5,
    atol: Any = 1e-5,
    solver: Any = None,
    controller: Any = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> Flow:
    """Carry `x` from time t to time s, either way, along dx/dt = alpha' D + sigma' E[eps | x_t], or that of any linear
    SDE, dx/dt = drift - G G' score / 2.

    Tsit5 and a PID controller unless others are given, on the clock that suits the process. Under `jax.vmap` each
    example takes its own steps; given a batch and a denoiser of batches (`jax.vmap(denoise, (0, None))`) all share one.
    `result == diffrax.RESULTS.successful` unless the solver gave up, in which case x is not to be used. Raises
    InputError for an implicit solver, whose calls nobody counts, for an SDE's, for a tolerance that x's dtype cannot
    hold, and for an end that the clock does not reach."""
    clock = suited(process, clock)
    means = Means.of("flow", x.dtype, rtol, atol, solver, controller, max_steps, adjoint)
    begin, end = (known(clock.at, process, as_array(time).astype(x.dtype)) for time in (t, s))
    return _solve(process, partial(denoise), x, begin, end, clock, means)


@eqx.filter_jit
def _solve(process, denoise, x, begin, end, clock, means):
    z, calls, result = means.solve(_slope, begin[0], end[0], x / begin[1], (clock, process, denoise))
    return Flow(end[1] * z, calls, result)


def _slope(u, z, args):
    clock, process, denoise = args
    return clock.slope(process, denoise, u, z)


class Means(eqx.Module):
    """By what an ODE is solved: a diffrax solver whose calls can be counted, a step size controller, an adjoint."""

    solver: Any
    controller: Any
    max_steps: int = eqx.field(static=True)
    adjoint: Any

    @classmethod
    def of(cls, name, dtype, rtol, atol, solver, controller, max_steps, adjoint, norm=None) -> "Means":
        """The means with their defaults, refused with InputError where `name` could not keep its word with them."""
        solver = diffrax.Tsit5() if solver is None else solver
        if isinstance(solver, diffrax.AbstractImplicitSolver):
            raise InputError(
                f"{name} got the implicit solver {type(solver).__name__}, whose inner iterations hide the number of "
                "denoiser calls; use an explicit one such as diffrax.Tsit5() or diffrax.Dopri8(): in the angle the "
                "flow is not stiff"
            )
        # An allowlist, so that no solver of SDEs is among them: in diffrax 0.7.2 most walk those wrongly from 1 to 0.
        # (A wrapped solver passes for the one that it wraps.)
        countable = diffrax.AbstractERK | diffrax.Euler | diffrax.ReversibleHeun | diffrax.LeapfrogMidpoint
        if not isinstance(solver, countable) or isinstance(solver, diffrax.AbstractWrappedSolver):
            raise InputError(
                f"{name} got the solver {solver!r}, expected one of ODEs whose denoiser calls are known: an explicit "
                "Runge-Kutta method (diffrax.Tsit5(), Dopri5(), Dopri8(), Bosh3(), Heun(), Midpoint(), Ralston()), "
                "Euler(), ReversibleHeun() or LeapfrogMidpoint(); the samplers for SDEs are samplers.sample's"
            )
        if controller is None:
            if isinstance(solver, diffrax.Euler | diffrax.LeapfrogMidpoint):
                raise InputError(
                    f"{name} got {type(solver).__name__}, which estimates no error by which to choose its steps; give "
                    "them, or controller=diffrax.ConstantStepSize(), or another solver"
                )
            # (EDM and Song et al. use an I controller; these coefficients are diffrax's defaults.)
            rtol, atol = _tolerances(name, rtol, atol, dtype)
            controller = diffrax.PIDController(rtol, atol, **({} if norm is None else {"norm": norm}))
        adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        return cls(solver, controller, max_steps, adjoint)

    def solve(self, slope: Callable[..., Any], u: Any, v: Any, y: Any, args: Any) -> tuple[Any, Any, Any]:
        """Carry `y` from u to v along dy/du = slope(u, y, args): (y, denoiser calls, result code)."""
        fixed = isinstance(self.controller, diffrax.StepTo)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),  # pyright: ignore[reportArgumentType]
            self.solver,
            u,
            v,
            None,  # `_Watched` says the first step: diffrax would check its direction by a callback to the host
            y,
            args=args,
            saveat=diffrax.SaveAt(t1=True, controller_state=True),
            stepsize_controller=self.controller if fixed else _Watched(self.controller),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=False,
        )
        missed = 0 if fixed else solution.controller_state[1]  # pyright: ignore[reportOptionalSubscript]
        calls = _calls(self.solver, jnp.asarray(solution.stats["num_steps"]), missed)
        return jax.tree.map(lambda leaf: leaf[-1], solution.ys), calls, solution.result


class _Watched(diffrax.AbstractStepSizeController):
    """A controller that tries a tenth of the way first, and how many steps it rejected before the first that it kept:
    diffrax asks for the first slope anew at each of them, and does not count that."""

    inner: Any

    def wrap(self, direction):
        return _Watched(self.inner.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t, state = self.inner.init(terms, t0, t1, y0, (t1 - t0) / 10, args, func, error_order)
        return t, (state, jnp.asarray(0), jnp.asarray(False))

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        state, missed, begun = controller_state
        keep, *times, state, result = self.inner.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, state
        )
        begun = begun | keep
        return keep, *times, (state, missed + jnp.where(begun, 0, 1), begun), result


def _tolerances(name, rtol, atol, dtype):
    """Both as arrays of x's dtype, so that others compile nothing anew."""
    floor = 10 * float(jnp.finfo(dtype).eps)
    cure = "" if dtype == jnp.float64 else ", or give x in float64 (jax.config.update('jax_enable_x64', True))"
    got = f"rtol={rtol} and atol={atol}" if concrete(rtol, atol) else "tolerances"
    message = (
        f"{name} got {got}, expected numbers of at least 0 whose sum is at least {floor:.1e}: in {dtype} rounding is "
        f"larger than a smaller error, and steps would be rejected for ever; raise them{cure}"
    )
    rtol, atol = as_array(rtol), as_array(atol)
    ok = known(lambda rtol, atol: (rtol >= 0) & (atol >= 0) & (rtol + atol >= floor), rtol, atol)
    return require(rtol, ok, message).astype(dtype), atol.astype(dtype)


def _calls(solver, steps, missed):
    """Denoiser calls of `steps` solver steps, rejected ones included: a first-same-as-last tableau saves one a step
    after the first that was kept, before which `missed` were not."""
    tableau = getattr(solver, "tableau", None)
    if tableau is None:
        return steps + int(isinstance(solver, diffrax.ReversibleHeun))  # which begins with one call more
    stages = tableau.num_stages
    return (stages - 1) * steps + 1 + missed if tableau.fsal else stages * steps
