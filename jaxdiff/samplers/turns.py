"""Steppers in turn: another method for some of the steps."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.ode import euler
from jaxdiff.samplers.recipes import Sampler
from jaxdiff.samplers.singlestep import dpm_2s, dpm_3s
from jaxdiff.samplers.stepper import Around, Stepper, memoryless


def warmed(inner: Stepper, start: Stepper, steps: int) -> Stepper:
    """`start` takes the first `steps` steps while the multistep `inner` fills its memory.

    A method of order k has it from any noise level when a start of order k - 1 takes k - 1 steps (not UniPC, which
    would correct the start's steps)."""
    if steps < 1:
        raise InputError(f"warmed got steps={steps}, expected at least 1: the order of the multistep method less one")
    return _Warmed(inner, start, steps)


class _Warmed(Around):
    start: Stepper
    steps: int = eqx.field(static=True)

    @property
    def stochastic(self):
        return self.inner.stochastic or self.start.stochastic

    def init(self, x, t):
        why = "which is cold itself; start with a one-step one"
        memoryless("warmed", self.start, x, t, why=why, role="start")
        return self.inner.init(x, t), jnp.zeros((), jnp.int32)

    def demands(self, ts):
        return (*self.inner.demands(ts), *self.start.demands(ts))

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        memory, taken = carry
        start = self.start
        ahead, memory = self.inner.step(key, denoise, memory, x, t, s, noise=noise)
        # A real branch, also in a batch, since `taken` is the same for all.
        warming = lambda x: start.step(key, denoise, start.init(x, t), x, t, s, noise=noise)[0]  # noqa: E731
        x = jax.lax.cond(taken < self.steps, warming, lambda _: ahead, x)
        return x, (memory, taken + 1)


def in_turn(steppers: Sequence[Stepper], turns: Sequence[int]) -> Stepper:
    """Interval i of the grid is walked by steppers[turns[i]], in one scan.

    Raises InputError for a multistep stepper, whose memory the others would not fill, and for a grid that has not
    len(turns) intervals."""
    if not all(0 <= turn < len(steppers) for turn in turns):
        raise InputError(f"in_turn got turns={tuple(turns)} for {len(steppers)} steppers, expected indices of them")
    return _InTurn(tuple(steppers), tuple(turns))


class _InTurn(Stepper):
    steppers: tuple[Stepper, ...]
    turns: tuple[int, ...] = eqx.field(static=True)

    @property
    def order(self):
        return min(self.steppers[turn].order for turn in self.turns)

    @property
    def calls(self):
        return max(self.steppers[turn].calls for turn in self.turns)

    def calls_of(self, steps):
        return sum(self.steppers[turn].calls for turn in self.turns[:steps])

    @property
    def stochastic(self):
        return any(self.steppers[turn].stochastic for turn in self.turns)

    def init(self, x, t):
        for stepper in self.steppers:
            memoryless("in_turn", stepper, x, t, why="whose memory the other steppers would not fill")
        return jnp.zeros((), jnp.int32)

    def step(self, key, denoise, taken, x, t, s, *, noise=jax.random.normal):
        def arm(stepper):
            return lambda x: stepper.step(key, denoise, stepper.init(x, t), x, t, s, noise=noise)[0]

        x = jax.lax.switch(jnp.asarray(self.turns)[taken], [arm(stepper) for stepper in self.steppers], x)
        return x, taken + 1

    def demands(self, ts):
        count = len(self.turns)
        message = f"in_turn has {count} turns, but walks {len(ts) - 1} intervals; give it one turn an interval"
        walks = (self.steppers[turn].demands(ts[i : i + 2]) for i, turn in enumerate(self.turns[: len(ts) - 1]))
        return sum(walks, ((len(ts) - 1 == count, message),))


def dpm_fast(
    process: Gaussian, *, calls: int = 20, sigma_min: float | None = None, sigma_max: float | None = None
) -> Sampler:
    """DPM-Solver-fast (Lu et al. 2022a, Alg. 6; k-diffusion's dpm_fast): `calls` denoiser calls in DPM-Solver steps of
    order 3, with one of order 2, 1, or 2 and 1 for the rest, on steps uniform in log(sigma / alpha).

    From sigma_max to sigma_min (.002 and the process's own unless given), where it ends, with noise. Raises InputError
    for fewer than 3 calls."""
    if calls < 3:
        raise InputError(f"dpm_fast got calls={calls}, expected at least 3")
    threes, rest = divmod(calls, 3)
    orders = [3] * threes + [rest] if rest else [3] * (threes - 1) + [2, 1]
    # The grid's own last interval goes from sigma_min to sigma = 0.
    ts = grids.logsnr(process, len(orders) + 1, sigma_min=sigma_min, sigma_max=sigma_max)[:-1]
    steppers = euler(process), dpm_2s(process), dpm_3s(process)
    return Sampler(process, in_turn(steppers, [order - 1 for order in orders]), ts)
