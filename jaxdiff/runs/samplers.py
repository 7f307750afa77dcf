"""The samplers that a config or the command line can name: those of `jaxdiff.samplers.named`, and Karras et al.'s
generalised one, whose schedule, scaling and grid are named too.

`steps` are intervals of the grid; a Sampler's `calls` says how many denoiser calls that is."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxdiff import grids, processes, samplers
from jaxdiff.processes import Gaussian
from jaxdiff.runs.resolve import named, resolve
from jaxdiff.samplers import Sampler
from jaxdiff.samplers.named import NAMED

__all__ = ["SAMPLERS", "generalised"]


# Karras et al.'s generalised sampler ---------------------------------------------------------------------------------

LEVELS = {
    "vp": (0.010485992786706403, 152.16697028394634),
    "ve": (0.02, 100.0),
    "iddpm": (0.002, 81.0),
    "karras": (0.002, 80.0),
}
"""From which to which noise level each published grid goes (Karras et al. 2022, Table 1)."""
GRIDS = named(grids, *LEVELS)
SCHEDULES = {
    "vp": lambda low, high: processes.vp_between(low, high),
    "ve": lambda low, high: processes.brownian(high),
    "linear": lambda low, high: processes.edm(high),
}
SCALINGS = {"preserving": lambda base: processes.preserving(base), "unscaled": lambda base: processes.unscaled(base)}


def generalised(
    process: Gaussian,
    *,
    steps: int = 18,
    grid: Mapping[str, Any] = {"name": "karras"},
    schedule: Mapping[str, Any] = {"name": "linear"},
    scaling: Mapping[str, Any] = {"name": "unscaled"},
    alpha: float | None = 1.0,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = float("inf"),
    noise_scale: float = 1.0,
) -> Sampler:
    """Any of the samplers of Karras et al. (2022), Table 1, on the network of any process; the noise levels are the
    grid's, held within those that the process reaches. `design_space.sampler` makes the spec of a column."""
    low, high = LEVELS[grid["name"]] if grid.get("name") in LEVELS else (0.0, 1.0)
    (alpha0, sigma0), (alpha1, sigma1) = process.scales(0.0), process.scales(1.0)
    low = max(low, float(sigma0 / alpha0))
    high = min(high, float(sigma1 / alpha1)) if float(alpha1) > 0 else high
    base = resolve("sample.sampler.schedule", SCHEDULES, schedule, low=low, high=high)
    walked = resolve("sample.sampler.scaling", SCALINGS, scaling, base=base)
    make = resolve("sample.sampler.grid", GRIDS, {"sigma_min": low, "sigma_max": high} | dict(grid))
    options = {"churn": churn, "churn_min": churn_min, "churn_max": churn_max, "noise_scale": noise_scale}
    return samplers.generalised(walked, make(walked, steps), alpha=alpha, network=process, **options)


SAMPLERS: dict[str, Callable[..., Sampler]] = NAMED | {"generalised": generalised}
