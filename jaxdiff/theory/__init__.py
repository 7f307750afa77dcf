"""What a diffusion model learns and where its error comes from, as measurements: exact where exactness is possible.

| module | question |
|---|---|
| `noise_predictor` | what is the best prediction of the noise, and how far is a network from it? (Yun 2025) |
| `error_budget` | how much of the sampling error is the prior's, the steps', the network's? (Wang, He, Tao 2024) |
| `walks` | the samplers that the budget is of: what a step freezes, and what that costs |
| `line_law` | the exact law of such a sampler on one-dimensional data, and its KL |
| `balance` | what does a noise distribution times a weight ask of each noise level? (the same) |
| `memorization` | are the samples nearer to the training set than to the law that it came from? (Halder 2024) |
| `one_step` | the linear one-step model, whose memorisation has a closed form (the same) |"""

from importlib import import_module
from typing import Any

__all__ = ["balance", "error_budget", "line_law", "memorization", "noise_predictor", "one_step", "walks"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"jaxdiff.theory.{name}")
    raise AttributeError(f"module 'jaxdiff.theory' has no module {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
