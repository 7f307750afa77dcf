"""A sampler is a value: where it starts, on which times, by which steppers. Called, it turns noise into data."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from jaxdiff import grids
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.product import Process
from jaxdiff.samplers.loop import check, run, sample
from jaxdiff.samplers.modifiers import churn as churned
from jaxdiff.samplers.ode import euler, heun
from jaxdiff.samplers.stepper import Stepper
from jaxdiff.types import Denoiser, Noise, PRNGKey, State


class Sampler(eqx.Module):
    """Everything `sample` needs but the key, the denoiser and the noise to start from."""

    process: Process
    stepper: Stepper
    ts: Array
    first: Stepper | None = None
    last: Stepper | None = None
    denoise_last: bool = eqx.field(static=True, default=False)

    def __call__(self, key: PRNGKey, denoise: Denoiser, x: State, *, noise: Noise = jax.random.normal) -> State:
        """One example, from `x` at ts[0]; `start` draws that x."""
        return sample(
            key, self.stepper, denoise, x, self.ts,
            first=self.first, last=self.last, denoise_last=self.denoise_last, noise=noise,
        )  # fmt: skip

    def start(self, key: PRNGKey, shape_like: Any) -> State:
        """Noise at ts[0] in the shape of `shape_like`."""
        if isinstance(self.process, Gaussian):
            return self.process.prior(key, shape_like, self.ts[0])
        return self.process.prior(key, shape_like)

    def checked(self) -> "Sampler":
        """This sampler, or the InputError that its call would raise."""
        ts = check(self.stepper, self.ts, self.first, self.last)
        return eqx.tree_at(lambda s: s.ts, self, ts)

    def run(self, key, denoise, x, noise):
        return run(key, self.stepper, denoise, x, self.ts, self.first, self.last, self.denoise_last, False, noise)


def edm(
    process: Gaussian,
    *,
    steps: int = 18,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 7.0,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = float("inf"),
    noise_scale: float = 1.0,
) -> Sampler:
    """Karras et al. (2022), Algorithm 2: Heun on the Karras grid, an Euler step at the end, 2 steps - 1 denoiser calls.

    `churn`, `churn_min`, `churn_max`, `noise_scale` are S_churn, S_min, S_max, S_noise; churn = 0 is the deterministic
    Algorithm 1. sigma_min is .002 and sigma_max the process's own unless given. Raises InputError for an empty
    range."""
    stepper, last = heun(process), euler(process)
    if churn:
        amount = min(churn / steps, 2**0.5 - 1)
        options = {"low": churn_min, "high": churn_max, "noise_scale": noise_scale}
        stepper, last = (churned(process, inner, amount, **options) for inner in (stepper, last))
    ts = grids.karras(process, steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    return Sampler(process, stepper, ts, last=last)
