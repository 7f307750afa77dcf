"""The samplers that a config or the command line can name: each is (process, steps, options) -> Sampler.

`steps` are intervals of the grid; `calls(spec)` says how many denoiser calls that is. `sigma_min` and `sigma_max` are
the noise levels that the grid goes through, by default those that the process and the published sampler share."""

from collections.abc import Mapping
from typing import Any

from jaxdiff import grids, processes, samplers
from jaxdiff.processes import Gaussian
from jaxdiff.runs.resolve import named, resolve
from jaxdiff.samplers import Sampler, edm

__all__ = [
    "ancestral",
    "ancestral_2s",
    "ddim",
    "deis",
    "dpm_fast",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_3m",
    "dpmpp_3m_sde",
    "dpmpp_3s",
    "dpmpp_sde",
    "edm",
    "euler",
    "generalised",
    "lms",
    "reverse_sde",
    "unipc",
]

Level = float | None
"""A noise level sigma / alpha; None for the published one."""

SECOND = ("ancestral_2s", "dpmpp_2s", "dpmpp_sde", "edm")
THIRD = ("dpmpp_3s",)


def calls(spec: Mapping[str, Any]) -> int:
    """Denoiser calls of a sampler's spec, {"name": ..., "steps": ...}: the last step is one where more would not do."""
    name, steps = spec["name"], spec["steps"]
    if name in SECOND or (name == "generalised" and spec.get("alpha", 1.0) is not None):
        return 2 * steps - 1
    return 3 * steps - 2 if name in THIRD else steps


def _sampler(process, stepper, ts, *, asks_between=False):
    """With Euler for a last step to sigma = 0, and a first one where there is no signal and the method asks between."""
    euler = samplers.euler(process)
    silent = asks_between and float(process.scales(ts[0])[0]) == 0
    return Sampler(process, stepper, ts, first=euler if silent else None, last=euler)


def euler(process: Gaussian, *, steps: int = 35, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """The probability flow by Euler steps on Karras's grid."""
    return _sampler(process, samplers.euler(process), _karras(process, steps, sigma_min, sigma_max))


def _karras(process, steps, sigma_min, sigma_max):
    return grids.karras(process, steps, sigma_min=sigma_min, sigma_max=sigma_max)


def dpmpp_2m(process: Gaussian, *, steps: int = 35, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """DPM-Solver++(2M) on Karras's grid."""
    return _sampler(process, samplers.dpmpp_2m(process), _karras(process, steps, sigma_min, sigma_max))


def dpmpp_3m(
    process: Gaussian, *, steps: int = 35, published: bool = False, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DPM-Solver++(3M) on Karras's grid; `published` is the form without the factor 2, of second order."""
    stepper = samplers.dpmpp_3m(process, published=published)
    return _sampler(process, stepper, _karras(process, steps, sigma_min, sigma_max))


def dpmpp_2s(process: Gaussian, *, steps: int = 18, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """DPM-Solver++(2S), two calls a step, on Karras's grid."""
    ts = _karras(process, steps, sigma_min, sigma_max)
    return _sampler(process, samplers.dpmpp_2s(process), ts, asks_between=True)


def dpmpp_3s(process: Gaussian, *, steps: int = 12, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """DPM-Solver++(3S), three calls a step, on Karras's grid."""
    ts = _karras(process, steps, sigma_min, sigma_max)
    return _sampler(process, samplers.dpmpp_3s(process), ts, asks_between=True)


def dpm_fast(process: Gaussian, *, steps: int = 35, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """DPM-Solver-fast: `steps` calls in steps of third, second and first order, uniform in log-SNR."""
    return samplers.dpm_fast(process, calls=steps, sigma_min=sigma_min, sigma_max=sigma_max)


def unipc(
    process: Gaussian, *, steps: int = 35, order: int = 2, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """UniPC of order 2 or 3 on Karras's grid."""
    return _sampler(process, samplers.unipc(process, order), _karras(process, steps, sigma_min, sigma_max))


def deis(
    process: Gaussian, *, steps: int = 35, order: int = 3, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DEIS of order 1 to 4 on Karras's grid."""
    return _sampler(process, samplers.deis(process, order), _karras(process, steps, sigma_min, sigma_max))


def lms(
    process: Gaussian, *, steps: int = 35, order: int = 4, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """Linear multistep of order 1 to 4 in sigma / alpha, on Karras's grid."""
    return _sampler(process, samplers.lms(process, order), _karras(process, steps, sigma_min, sigma_max))


def ddim(process: Gaussian, *, steps: int = 35, eta: float = 0.0) -> Sampler:
    """DDIM on improved DDPM's noise levels, the iDDPM + DDIM column of Karras et al. (2022), Table 1."""
    return Sampler(process, samplers.ddim(process, eta), grids.iddpm(process, steps))


def ancestral(process: Gaussian, *, steps: int = 1000, sigma_min: Level = None, sigma_max: Level = None) -> Sampler:
    """DDPM's ancestral sampling, on steps uniform in log-SNR."""
    ts = grids.logsnr(process, steps, sigma_min=sigma_min, sigma_max=sigma_max)
    return Sampler(process, samplers.ancestral(process), ts)


def ancestral_2s(
    process: Gaussian, *, steps: int = 35, eta: float = 1.0, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DPM-Solver++(2S) in the ancestral form, on Karras's grid."""
    stepper = samplers.ancestral_form(process, samplers.dpmpp_2s(process), eta)
    return _sampler(process, stepper, _karras(process, steps, sigma_min, sigma_max), asks_between=True)


def dpmpp_sde(
    process: Gaussian, *, steps: int = 35, eta: float = 1.0, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DPM-Solver++(SDE), two calls a step, on Karras's grid."""
    ts = _karras(process, steps, sigma_min, sigma_max)
    return _sampler(process, samplers.dpmpp_sde(process, eta), ts, asks_between=True)


def dpmpp_2m_sde(
    process: Gaussian, *, steps: int = 35, eta: float = 1.0, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DPM-Solver++(2M SDE) on Karras's grid."""
    return _sampler(process, samplers.dpmpp_2m_sde(process, eta), _karras(process, steps, sigma_min, sigma_max))


def dpmpp_3m_sde(
    process: Gaussian, *, steps: int = 35, eta: float = 1.0, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """DPM-Solver++(3M SDE) on Karras's grid."""
    return _sampler(process, samplers.dpmpp_3m_sde(process, eta), _karras(process, steps, sigma_min, sigma_max))


def reverse_sde(
    process: Gaussian, *, steps: int = 1000, eta: float = 1.0, sigma_min: Level = None, sigma_max: Level = None
) -> Sampler:
    """Euler-Maruyama on the reverse SDE; its first step is Euler's where alpha(1) = 0."""
    ts, first = grids.logsnr(process, steps, sigma_min=sigma_min, sigma_max=sigma_max), samplers.euler(process)
    return Sampler(process, samplers.reverse_sde(process, eta), ts, first=first)


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


SAMPLERS = {name: globals()[name] for name in __all__}
"""What config.sample.sampler can name."""
