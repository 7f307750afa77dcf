"""Samplers of tokens as values, for `samplers.draw`."""

from typing import Literal

import jax.numpy as jnp

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.processes.categorical import Categorical
from jaxdiff.samplers.categorical.draws import draw, greedy
from jaxdiff.samplers.categorical.kernels import Kernel, ancestral
from jaxdiff.samplers.recipes import Sampler
from jaxdiff.samplers.stepper import Stepper

__all__ = ["sampler"]


def sampler(
    process: Categorical,
    steps: int,
    kernel: Kernel | Stepper | None = None,
    *,
    begin: float = 1.0,
    end: float = 0.0,
    final: Literal["posterior", "argmax", "none"] = "posterior",
) -> Sampler:
    """`steps` even steps from t = `begin` to `end`, drawn from a kernel (`ancestral` by default) or by a stepper.

    `final` says what becomes of tokens that are noisy at the end. "posterior": the last step goes to s = 0 and draws
    them from p(x0 | z_t), as kernels do there; with end > 0 that is one step more. "argmax": that last step takes each
    token's likeliest, which is greedy: less diverse than the data. "none": tokens are left as they are at `end`. Raises
    InputError for another word, steps below 1, unless 0 <= end < begin <= 1, and for a greedy step of a stepper."""
    if final not in ("posterior", "argmax", "none"):
        raise InputError(f"final={final!r} is not one of 'posterior', 'argmax', 'none'")
    if not 0 <= end < begin <= 1:
        raise InputError(f"a sampler got begin={begin} and end={end}, expected 0 <= end < begin <= 1")
    kernel = ancestral(process) if kernel is None else kernel
    ts = end + (begin - end) * grids.uniform(process, steps)
    if end > 0 and final != "none":
        ts = jnp.append(ts, 0.0)
    if isinstance(kernel, Stepper):
        if final == "argmax":
            raise InputError("final='argmax' needs a kernel, whose likeliest tokens it takes, and got a stepper")
        return Sampler(process, kernel, ts)
    return Sampler(process, draw(kernel), ts, last=greedy(kernel) if final == "argmax" else None)
