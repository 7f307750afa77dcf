"""One step back from t to s < t: a pure step, its memory, and what it demands of the times.

A stepper is a pytree whose static fields are part of the program, so one made anew inside a compiled caller compiles
nothing. `step` gets the denoiser, not its prediction, so a step may ask as often as its order needs; what a multistep
method remembers is its carry."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.random import normal
from jax.tree_util import Partial

from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, concrete, known
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.process import about_numbers
from jaxdiff.types import Denoiser, Noise, PRNGKey, State, Time


class Stepper(eqx.Module):
    """What a sampling method is: its facts, a step, what it remembers (nothing), and what must hold of the times for it
    to be defined on them, as pairs (condition, message).

    `order` is that of the error in the step size, of a stochastic stepper's law, with its memory filled; `calls` the
    denoiser calls of a step, at most; `stochastic` whether a step draws noise, or may where that is not known yet."""

    order = 1
    calls = 1
    stochastic = False

    def init(self, x: State, t: Time) -> Any:
        return ()

    @abstractmethod
    def step(
        self, key: PRNGKey, denoise: Denoiser, carry: Any, x: State, t: Time, s: Time, *, noise: Noise = normal
    ) -> tuple[State, Any]: ...

    def demands(self, ts: Any) -> tuple[Any, ...]:
        return ()

    def calls_of(self, steps: int) -> int:
        """Denoiser calls of so many steps."""
        return self.calls * steps


def no_demands(ts):
    return ()


ANY_TIMES = Partial(no_demands)


class _OneStep(Stepper):
    body: Any
    eta: Any
    needs: Any
    order: int = eqx.field(static=True)
    calls: int = eqx.field(static=True)
    draws: bool = eqx.field(static=True)

    @property
    def stochastic(self):
        return self.draws or (self.eta is not None and positive(self.eta))

    def step(self, key, denoise, carry, x, t, s, *, noise=normal):
        given = () if self.eta is None else (self.eta,)
        return self.body(*given, key, denoise, x, t, s, noise), carry

    def demands(self, ts):
        return self.needs(ts)


def one_step(
    body: Callable[..., Any],
    *args: Any,
    order: int = 1,
    calls: int = 1,
    eta: Any = None,
    stochastic: bool = False,
    demands: Callable[..., Any] = ANY_TIMES,
) -> Stepper:
    """The stepper of body(*args, key, denoise, x, t, s, noise) -> x, which remembers nothing.

    With `eta`, the size of its noise, it is body(*args, eta, key, ...), and stochastic where eta > 0."""
    return _OneStep(Partial(body, *args), eta, demands, order, calls, stochastic)


def positive(size: Any) -> bool:
    """Whether noise of this size is any: it is where the size is not known."""
    return not concrete(size) or bool(np.any(np.asarray(size) > 0))


class Around(Stepper):
    """A stepper made of another, whose facts, memory and demands it has."""

    inner: Stepper

    @property
    def order(self):
        return self.inner.order

    @property
    def calls(self):
        return self.inner.calls

    @property
    def stochastic(self):
        return self.inner.stochastic

    def init(self, x, t):
        return self.inner.init(x, t)

    def demands(self, ts):
        return self.inner.demands(ts)


def memoryless(name: str, inner: Stepper, x: State, t: Time, *, why: str, role: str = "stepper") -> Any:
    """The empty carry of `inner`; InputError where it remembers steps, which `name` cannot have, and `why`."""
    carry = inner.init(x, t)
    if jax.tree.leaves(carry):
        raise InputError(f"{name} got a multistep {role}, {why}")
    return carry


def ends(stepper: Stepper, other: Stepper, ts: Any) -> dict[str, Stepper | None]:
    """The `first` and `last` of `sample`: `other` on the intervals at the ends of `ts` that the stepper cannot walk."""

    def walks(part):
        return all(bool(ok) for ok, _ in known(stepper.demands, known(lambda: as_array(ts)[part])))

    return {
        "first": None if walks(slice(2)) or len(ts) == 2 else other,
        "last": None if walks(slice(-2, None)) else other,
    }


def believe(denoise: Denoiser, x: State, t: Time, process: Any = None) -> State:
    """denoise(x, t), refused when it is no belief about a state of `process`, or without one no array like `x`."""
    belief = denoise(x, t)
    return about_numbers(belief, x, x) if process is None else process.believed(belief, x)


def ends_noisy(process: Gaussian, ts: Any) -> tuple[Any, ...]:
    """The demand of a step that divides by sigma at its end."""
    message = (
        "a second-order step divides by sigma at its end, and sigma is 0 at the last time; give the last step to a "
        "first-order stepper: sample(..., last=euler(process))"
    )
    return ((process.scales(ts[-1])[1] > 0, message),)


def starts_with_signal(process: Any, ts: Any) -> tuple[Any, ...]:
    """The demand of a step whose drift f = alpha' / alpha is infinite where alpha is 0; drifts of other processes are
    finite."""
    if not isinstance(process, Gaussian):
        return ()
    message = (
        "the reverse SDE's drift is infinite at alpha = 0, and alpha is 0 at the first time; give the first step to "
        "another stepper: sample(..., first=euler(process))"
    )
    return ((process.scales(ts[0])[0] > 0, message),)
