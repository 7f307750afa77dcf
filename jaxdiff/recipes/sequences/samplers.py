"""Samplers of tokens by name: (noise, temper, ...) -> Sampler, where `noise` is the process and `temper` makes a guided
kernel of one."""

from collections.abc import Callable
from typing import Any

from jaxdiff.processes import Categorical
from jaxdiff.samplers import Sampler, categorical

Temper = Callable[[Any], Any]
"""Kernel -> Kernel: the identity, or D-CFG."""


def ancestral(noise: Categorical, temper: Temper, *, steps: int = 64, final: str = "posterior") -> Sampler:
    """Bayes' rule with the belief put in; D3PM's, MDLM's and UDLM's sampler."""
    return _made(noise, steps, temper(categorical.ancestral(noise)), final)


def euler(noise: Categorical, temper: Temper, *, steps: int = 64, final: str = "posterior") -> Sampler:
    """Euler steps of the reverse chain."""
    return _made(noise, steps, temper(categorical.euler(noise)), final)


def tau_leaping(noise: Categorical, temper: Temper, *, steps: int = 64, final: str = "posterior") -> Sampler:
    """Tau-leaping of the reverse chain (Campbell et al. 2022)."""
    return _made(noise, steps, temper(categorical.tau_leaping(noise)), final)


def remask(noise: Categorical, temper: Temper, *, steps: int = 64, cap: float = 0.05) -> Sampler:
    """ReMDM with its remasking probability capped (Wang et al. 2025), for absorbing noise."""
    return _made(noise, steps, temper(categorical.remask(noise, categorical.cap(cap))), "posterior")


def _made(noise, steps, kernel, final):
    return categorical.sampler(noise, steps, kernel, final=final)


SAMPLERS = {"ancestral": ancestral, "euler": euler, "tau_leaping": tau_leaping, "remask": remask}
