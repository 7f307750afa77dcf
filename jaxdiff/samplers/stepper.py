"""One step back from t to s < t: a pair of pure functions, and what they demand of the times.

A stepper is a pytree of Partials, so one made anew inside a compiled caller compiles nothing. `step` gets the
denoiser, not its prediction, so a step may ask as often as its order needs; what a multistep method remembers is its
carry."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.process import about_numbers
from jaxdiff.types import Denoiser, State, Time


def no_carry(x, t):
    return ()


def no_demands(ts):
    return ()


ANY_TIMES = Partial(no_demands)


class Stepper(NamedTuple):
    """What a sampling method is; all three are pytrees of functions.

    init(x, t) -> carry; step(key, denoise, carry, x, t, s, *, noise) -> (x, carry); demands(ts) -> what must hold of
    the times for the method to be defined on them, as pairs (condition, message)."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    demands: Callable[..., Any] = ANY_TIMES


def one_step(body: Callable[..., Any], *args: Any, demands: Callable[..., Any] = ANY_TIMES) -> Stepper:
    """The stepper of body(*args, key, denoise, x, t, s, noise) -> x, which remembers nothing."""
    return Stepper(Partial(no_carry), Partial(_forgetful, Partial(body, *args)), demands)


def _forgetful(body, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
    return body(key, denoise, x, t, s, noise), carry


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
