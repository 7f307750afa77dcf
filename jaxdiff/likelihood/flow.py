"""The density of the probability flow: log q at t0 is the prior's log-density where the flow arrives, and the integral
of the flow's divergence on the way (Chen et al. 2018; Song et al. 2021).

Both are solved together on a clock u, in units z = x / c(u):

    d/du (z, l) = (v, div v),    log q_t0(x) = log prior(x_t1) + l + dim log(c_t1 / c_t0).

It is the density of x_t0 = alpha x0 + sigma eps, data with the noise of t0, not of the clean data x0."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxdiff.errors import InputError
from jaxdiff.likelihood.ends import shown, start
from jaxdiff.numerics import as_array, concrete, known, partial, require
from jaxdiff.numerics.divergence import exact, hutchinson, rademacher
from jaxdiff.samplers import clocks
from jaxdiff.samplers.flow import Means
from jaxdiff.types import Denoiser, PRNGKey, Scalar, Time


class FlowLikelihood(NamedTuple):
    """log q_t0(x) in nats, its standard error over the probes (0 for the exact divergence, NaN for one probe), the
    latent x_t1, the denoiser calls that it took, and diffrax's result code.

    The first three are NaN unless `result == diffrax.RESULTS.successful`: `max_steps_reached` where the solver gave
    up, `nonfinite` where x or the answer is not finite."""

    log_prob: Scalar
    stderr: Scalar
    latent: Array
    calls: Int[Array, ""]
    result: Any


class FlowSample(NamedTuple):
    """x_t0 with its log q_t0; the other fields are those of `FlowLikelihood`, NaN alike."""

    x: Array
    log_prob: Scalar
    stderr: Scalar
    calls: Int[Array, ""]
    result: Any


class Trace(NamedTuple):
    """How the divergence of the flow is taken: "exact" (as many tangents as x has numbers, a call) or "hutchinson",
    `probes` draws of `law`, the same through the whole solve."""

    divergence: str = "exact"
    probes: int = 1
    law: Callable[..., Any] = rademacher


class Solve(NamedTuple):
    """How the flow is solved by diffrax, on a `clock` that suits the process unless given.

    The solver's steps keep the errors of z and of log q to `rtol` and `atol` (`flow_norm`); or `steps` gives them: a
    number of equal ones on the clock, or the times themselves, in the order of the walk. A `controller` of your own
    wants `norm=flow_norm`. With `lockstep`, x is a batch (B, ...) whose examples share every step, so that it runs on a
    mesh of devices."""

    clock: clocks.Clock | None = None
    rtol: Any = 1e-5
    atol: Any = 1e-5
    solver: Any = None
    steps: Any = None
    controller: Any = None
    max_steps: int = 4096
    adjoint: Any = None
    lockstep: bool = False


EXACT, ADAPTIVE = Trace(), Solve()


def flow_log_prob(
    key: PRNGKey,
    process: Any,
    denoise: Denoiser,
    x: Array,
    *,
    solve: Solve = ADAPTIVE,
    trace: Trace = EXACT,
    prior: Callable[[Array], Any] | None = None,
    t0: Time | None = None,
    t1: Time | None = None,
) -> FlowLikelihood:
    """log q_t0(x) of one example `x`, which is taken to have the noise of `t0` (by default sigma / alpha = .002).

    `prior` is the log-density at `t1` = 1, by default the process's own. Under `jax.vmap` each example takes its own
    steps; in lock-step example i draws its probes from fold_in(key, i), and `calls` is one number for all.
    Differentiable in x and in parameters; it computes in x's dtype.

    Raises InputError for an x that is no array of finite floats, times out of order, a denoiser or prior of the wrong
    shape, a tolerance that x's dtype cannot hold, probes < 1, and a solver whose calls cannot be counted."""
    return _log_prob(_problem("flow_log_prob", key, process, denoise, x, solve, trace, (prior, t0, t1), rises=True))


def flow_sample(
    key: PRNGKey,
    process: Any,
    denoise: Denoiser,
    latent: Array,
    *,
    solve: Solve = ADAPTIVE,
    trace: Trace = EXACT,
    prior: Callable[[Array], Any] | None = None,
    t0: Time | None = None,
    t1: Time | None = None,
) -> FlowSample:
    """The sample that the flow makes of `latent`, such as `process.prior(key, shape)`, with its log q_t0.

    It is `flow_log_prob` walked down, from t1 = 1 to t0, with its options and errors; times in `solve.steps` fall."""
    return _sample(_problem("flow_sample", key, process, denoise, latent, solve, trace, (prior, t0, t1), rises=False))


def flow_norm(error: PyTree[Array]) -> Scalar:
    """How large the scaled error of (z, l) is, z (..., *shape) and l (..., probes): max(root mean square over z, |l| of
    each probe), the largest over a batch. One root mean square over all would let D pixels hide an error of log q up to
    sqrt(D + 1) times the tolerance."""
    z, integral = (jax.lax.stop_gradient(part) for part in error)
    z = z.reshape(*integral.shape[:-1], -1)
    return jnp.maximum(jnp.sqrt(jnp.max(jnp.mean(z**2, -1))), jnp.max(abs(integral)))


@eqx.filter_jit
def _log_prob(problem):
    latent, change, calls, result = problem.carried()
    log_prob, stderr = problem.summary(problem.log_prior(latent), -change)
    (log_prob, stderr, latent), result = problem.sealed(result, log_prob, stderr, latent)
    return FlowLikelihood(log_prob, stderr, latent, calls, result)


@eqx.filter_jit
def _sample(problem):
    x, change, calls, result = problem.carried()
    log_prob, stderr = problem.summary(problem.log_prior(problem.x), change)
    (log_prob, stderr, x), result = problem.sealed(result, log_prob, stderr, x)
    return FlowSample(x, log_prob, stderr, calls, result)


def _sealed(x, result, values):
    """One example's code, and NaN in place of its numbers where it failed."""
    codes = diffrax.RESULTS
    known_x, solved = jnp.isfinite(x).all(), result == codes.successful
    good = known_x & solved & jnp.isfinite(values[0])
    result = codes.where(known_x & ~solved, result, codes.where(good, codes.successful, codes.nonfinite))  # pyright: ignore
    return [jnp.where(good, value, jnp.nan) for value in values], result


class _Problem(eqx.Module):
    """A walk along the flow with its divergence: the state x, the clock's (u, c) at both ends, and the means."""

    key: PRNGKey
    process: Any
    denoise: Any
    x: Array
    begin: tuple[Array, Array]
    end: tuple[Array, Array]
    clock: clocks.Clock
    law: Any
    prior: Any
    means: Means
    probes: int | None = eqx.field(static=True)  # None for the exact divergence
    lockstep: bool = eqx.field(static=True)

    def carried(self) -> tuple[Array, Float[Array, "... probes"], Any, Any]:
        """x at the end, and what log q of it is above log q of x, by each probe."""
        args = self.clock, self.process, self.denoise
        (u, c), (v, d) = self.begin, self.end
        slope, vectors = _slope, None
        if self.lockstep:
            slope = jax.vmap(_slope, (None, 0, (None, None if self.probes is None else 0)))
        if self.probes is not None:
            vectors = self._mapped(lambda key, x: self.law(key, x.shape, x.dtype, self.probes))
        lead = self.x.shape[: int(self.lockstep)]
        zero = jnp.zeros((*lead, self.probes or 1), self.x.dtype)
        # From an x that is not finite the solver would reject steps until max_steps, with a whole batch waiting.
        x = jnp.where(jnp.isfinite(self.x), self.x, 0)
        (z, integral), calls, result = self.means.solve(slope, u, v, (x / c, zero), (args, vectors))
        size = self.x[0].size if self.lockstep else self.x.size
        return d * z, -integral - size * (jnp.log(d) - jnp.log(c)), calls, result

    def _mapped(self, draw):
        if not self.lockstep:
            return draw(self.key, self.x)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.key, jnp.arange(len(self.x), dtype=jnp.uint32))
        return jax.vmap(draw)(keys, self.x)

    def sealed(self, result, *values):
        return (jax.vmap(_sealed, (0, None, 0)) if self.lockstep else _sealed)(self.x, result, values)

    def log_prior(self, x: Array) -> Scalar:
        value = (jax.vmap(self.prior) if self.lockstep else self.prior)(x)
        if jnp.shape(value) != x.shape[: int(self.lockstep)]:
            raise InputError(
                f"the prior returned shape {jnp.shape(value)[int(self.lockstep) :]} for one example, expected one "
                "number, its log-density summed over x's axes"
            )
        return value

    def summary(self, at_prior: Scalar, change: Array) -> tuple[Scalar, Scalar]:
        """(log q, its standard error) from the estimate of each probe."""
        n = change.shape[-1]
        log_prob = at_prior + jnp.mean(change, -1)
        if self.probes is None:
            return log_prob, jnp.zeros_like(log_prob)
        if n == 1:
            return log_prob, jnp.full_like(log_prob, jnp.nan)
        return log_prob, jnp.std(change, -1, ddof=1) / jnp.sqrt(jnp.asarray(n, change.dtype))


def _problem(name, key, process, denoise, x, solve, trace, ends, *, rises) -> _Problem:
    """What a door was given, checked."""
    prior, t0, t1 = ends
    if trace.divergence not in ("exact", "hutchinson"):
        raise InputError(f"{name} got divergence={trace.divergence!r}, expected 'exact' or 'hutchinson'")
    if trace.probes < 1:
        raise InputError(f"{name} got probes={trace.probes}, expected at least 1")
    x, steps = _finite(name, x, solve.lockstep), solve.steps
    clock, controller, max_steps = clocks.suited(process, solve.clock), solve.controller, solve.max_steps
    t0, t1, grid = _times(name, process, x.dtype, clock, steps, t0, t1, rises)
    begin, end = (known(clock.at, process, t) for t in ((t0, t1) if rises else (t1, t0)))
    if steps is not None:
        if controller is not None:
            raise InputError(f"{name} got both steps and a controller, which chooses them; give one of the two")
        us = jnp.linspace(begin[0], end[0], steps + 1) if grid is None else known(clock.at, process, grid)[0]
        begin, end = (us[0], begin[1]), (us[-1], end[1])
        controller, max_steps = diffrax.StepTo(us), len(us) - 1
    tolerances = name, x.dtype, solve.rtol, solve.atol
    means = Means.of(*tolerances, solve.solver, controller, max_steps, solve.adjoint, flow_norm)
    prior = partial(_own_prior, process, t1) if prior is None else partial(prior)
    probes = None if trace.divergence == "exact" else trace.probes
    walk = key, process, partial(denoise), x, begin, end, clock
    return _Problem(*walk, partial(trace.law), prior, means, probes, solve.lockstep)


def _slope(u, state, args):
    """d(z, l)/du of one example."""
    (clock, process, denoise), probes = args
    field = partial(clock.slope, process, denoise, u)
    if probes is None:
        velocity, trace = exact(field, state[0])
        return velocity, trace[None]
    return hutchinson(field, state[0], probes)


def _own_prior(process, t1, x):
    return process.log_prior(x, t1)


def _finite(name, x, lockstep):
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{name} got x of {x.dtype}, expected floats: a density is one of real numbers, so dequantise counts first "
            "and scale them as the model's data were"
        )
    if lockstep and x.ndim == 0:
        raise InputError(f"{name} got one number for x with lockstep, expected a batch of examples, (B, ...)")
    # A traced x that is not finite has a result code: a compiled check would stop one device of a mesh, and hang it.
    if concrete(x) and not known(lambda x: bool(jnp.isfinite(x).all()), x):
        raise InputError(f"{name} got an x that is not finite; drop or repair such examples first")
    return x


def _times(name, process, dtype, clock, steps, t0, t1, rises):
    """(t0, t1, the times of a grid that gives them or None), in x's dtype."""
    grid, given = None, t0 is not None or t1 is not None
    if steps is not None and jnp.ndim(steps) > 0:
        if given:
            raise InputError(f"{name} got times in steps, and t0 or t1 beside them; leave those out")
        grid = as_array(steps).astype(dtype)
        ok = grid.ndim == 1 and len(grid) > 1 and known(_monotone, grid if rises else -grid)
        word, cure = ("rise", "; turn a sampling grid round, ts[::-1]") if rises else ("fall", "")
        grid = require(grid, ok, f"{name} got times in steps that do not {word} (shape {grid.shape}){cure}")
        given, (t0, t1) = True, (grid[0], grid[-1]) if rises else (grid[-1], grid[0])
    elif steps is not None and (not isinstance(steps, int) or steps < 1):
        raise InputError(f"{name} got steps={steps!r}, expected a whole number of at least 1, or an array of times")
    t0, t1 = start(process, t0).astype(dtype), as_array(1.0 if t1 is None else t1).astype(dtype)
    if given:
        message = f"{name} got t0={shown(t0)} and t1={shown(t1)}, expected 0 <= t0 < t1 <= 1: data at 0, noise at 1"
        t1 = require(t1, known(lambda t0, t1: (t0 < t1) & (t1 <= 1), t0, t1), message)
        if jax.tree.structure(clock) == jax.tree.structure(clocks.angle()):
            t0 = _above_the_hold(process, t0, dtype)
    return t0, t1, grid


def _monotone(ts):
    return jnp.all(jnp.diff(ts) > 0)


def _above_the_hold(process, t0, dtype):
    """The angle's flow stands still below a noise level; a density from there would be another one's."""
    level, hold = known(lambda p, t: jnp.divide(*p.scales(t)[::-1]), process, t0), clocks.nearest(dtype)
    message = (
        f"at t0={shown(t0)} sigma / alpha is {shown(level)}, and the angle's flow in {dtype} is held below "
        f"{hold:.1e}; give a later t0, clock=clocks.log_snr(), or x in float64"
    )
    return require(t0, known(lambda level: level >= hold, level), message)
