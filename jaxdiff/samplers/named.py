"""The samplers that a command line or a config can name, as a table: a stepper, the grid that it walks, and its steps.

Which ends a stepper cannot walk, and how often it asks, the stepper says itself. `sigma_min` and `sigma_max` are the
noise levels that a grid goes through, by default those that the process and the published sampler share."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxdiff import grids
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.ancestral_form import ancestral_form
from jaxdiff.samplers.multistep import deis, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, lms
from jaxdiff.samplers.ode import euler
from jaxdiff.samplers.recipes import Sampler, edm
from jaxdiff.samplers.sde import ancestral, ddim, dpmpp_sde, reverse_sde
from jaxdiff.samplers.singlestep import dpmpp_2s, dpmpp_3s
from jaxdiff.samplers.stepper import Stepper, ends
from jaxdiff.samplers.turns import dpm_fast
from jaxdiff.samplers.unipc import unipc

__all__ = ["NAMED", "Named"]

Level = float | None
"""A noise level sigma / alpha; None for the published one."""


@dataclass(frozen=True, eq=False)
class Named:
    """A row of the table: (process, *, steps, **options) -> Sampler, whose signature says the options."""

    doc: str
    stepper: Callable[..., Stepper]
    steps: int = 35
    options: Mapping[str, Any] = field(default_factory=dict)  # of the stepper, with their defaults
    grid: Callable[..., Any] = grids.karras
    first: bool = False  # Euler takes the first step in any case, not only where the stepper can't
    last: bool = True  # and the last one: on Karras's grid the jump from sigma_min to the data

    @property
    def __signature__(self) -> inspect.Signature:
        levels = {} if self.grid is grids.iddpm else {"sigma_min": Level, "sigma_max": Level}
        options = {word: (type(value), value) for word, value in ({"steps": self.steps} | dict(self.options)).items()}
        options |= {word: (kind, None) for word, kind in levels.items()}
        kind = inspect.Parameter.KEYWORD_ONLY
        words = [inspect.Parameter(w, kind, default=value, annotation=type_) for w, (type_, value) in options.items()]
        process = inspect.Parameter("process", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Gaussian)
        return inspect.Signature([process, *words], return_annotation=Sampler)

    def __call__(self, process: Gaussian, **options: Any) -> Sampler:
        words = self.__signature__.bind(process, **options)
        words.apply_defaults()
        given = {word: value for word, value in words.arguments.items() if word != "process"}
        steps, own = given.pop("steps"), {word: given.pop(word) for word in self.options}
        stepper, other = self.stepper(process, **own), euler(process)
        ts = self.grid(process, steps, **given)
        found = ends(stepper, other, ts)
        first, last = other if self.first else found["first"], other if self.last else found["last"]
        return Sampler(process, stepper, ts, first=first, last=last)


def _fast(
    process: Gaussian, *, steps: int = 35, sigma_min: float | None = None, sigma_max: float | None = None
) -> Sampler:
    """DPM-Solver-fast: `steps` calls in steps of third, second and first order, uniform in log-SNR."""
    return dpm_fast(process, calls=steps, sigma_min=sigma_min, sigma_max=sigma_max)


def _ancestral_2s(process, eta):
    return ancestral_form(process, dpmpp_2s(process), eta)


ETA = {"eta": 1.0}

NAMED: dict[str, Callable[..., Sampler]] = {
    "ancestral": Named("DDPM's ancestral sampling", ancestral, 1000, grid=grids.logsnr, last=False),
    "ancestral_2s": Named("DPM-Solver++(2S) in the ancestral form", _ancestral_2s, options=ETA),
    "ddim": Named("DDIM", ddim, options={"eta": 0.0}, grid=grids.iddpm, last=False),
    "deis": Named("DEIS of order 1 to 4", deis, options={"order": 3}),
    "dpm_fast": _fast,
    "dpmpp_2m": Named("DPM-Solver++(2M)", dpmpp_2m),
    "dpmpp_2m_sde": Named("DPM-Solver++(2M SDE)", dpmpp_2m_sde, options=ETA),
    "dpmpp_2s": Named("DPM-Solver++(2S)", dpmpp_2s, 18),
    "dpmpp_3m": Named("DPM-Solver++(3M)", dpmpp_3m, options={"published": False}),
    "dpmpp_3m_sde": Named("DPM-Solver++(3M SDE)", dpmpp_3m_sde, options=ETA),
    "dpmpp_3s": Named("DPM-Solver++(3S)", dpmpp_3s, 12),
    "dpmpp_sde": Named("DPM-Solver++(SDE)", dpmpp_sde, options=ETA),
    "edm": edm,
    "euler": Named("Euler", euler),
    "lms": Named("linear multistep of order 1 to 4 in sigma / alpha", lms, options={"order": 4}),
    "reverse_sde": Named(
        "Euler-Maruyama on the reverse SDE", reverse_sde, 1000, ETA, grid=grids.logsnr, first=True, last=False
    ),
    "unipc": Named("UniPC of order 2 or 3", unipc, options={"order": 2}),
}
"""The named samplers of any Gaussian process."""
