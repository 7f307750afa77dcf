"""jaxdiff: functional diffusion models in JAX.

A diffusion model is a process (what noise does), a denoiser (what you believe about the clean data), and a stepper (how
you walk back). Each is a pure function of pytrees: `jd.processes`, `jd.denoisers`, `jd.samplers`. What noise does to a
belief is scored by `jd.losses`; exact answers to test against are in `jd.oracles`."""

from importlib import import_module
from typing import Any

__all__ = [
    "alphas",
    "beliefs",
    "data",
    "denoisers",
    "domains",
    "errors",
    "gammas",
    "grids",
    "guidance",
    "likelihood",
    "losses",
    "metrics",
    "networks",
    "oracles",
    "parameterizations",
    "preconditioning",
    "pretrained",
    "processes",
    "recipes",
    "samplers",
    "schedules",
    "theory",
    "training",
    "types",
]


def __getattr__(name: str) -> Any:
    # Namespaces load on first use, so that `import jaxdiff` costs no more than JAX itself and needs no extras.
    if name in __all__:
        return import_module(f"jaxdiff.{name}")
    raise AttributeError(f"module 'jaxdiff' has no namespace {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
