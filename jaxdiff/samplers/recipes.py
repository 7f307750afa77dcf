"""A sampler is a value: where it starts, on which times, by which steppers. Called, it turns noise into data."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.numerics import concrete, known
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.processes.process import Process
from jaxdiff.samplers.loop import check, run_counted, sample
from jaxdiff.samplers.modifiers import churn as churned
from jaxdiff.samplers.modifiers import recasting
from jaxdiff.samplers.ode import euler, heun
from jaxdiff.samplers.runge_kutta import euler_in_t, runge_kutta_in_t
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

    @property
    def calls(self) -> int:
        """Denoiser calls of one sample."""
        ends = [end for end in (self.first, self.last) if end is not None]
        middle = self.stepper.calls_of(len(self.ts) - 1 - len(ends))
        return middle + sum(end.calls_of(1) for end in ends) + self.denoise_last

    def like(self, shape_like: Any) -> Any:
        """One example's shape and dtype, of `shape_like`; tokens are int32 whatever it says."""
        return self.process.like(shape_like)

    def start(self, key: PRNGKey, shape_like: Any) -> State:
        """Noise at ts[0] for data of the shape of `shape_like`.

        Raises InputError for tokens of which data are left at ts[0]: `renoise` starts there."""
        return self.process.prior(key, shape_like, self._first())

    def renoise(self, key: PRNGKey, x0: State, *, noise: Noise = jax.random.normal) -> State:
        """Data `x0` noised to ts[0], to start from in the place of pure noise (SDEdit, Meng et al. 2022)."""
        return self.process.perturb(key, x0, self._first(), noise=noise)

    def _first(self):
        return known(lambda ts: ts[0], self.ts)  # known in a traced caller too, so that a process can refuse it

    def begin(self, level: float) -> "Sampler":
        """This sampler from the first of its times whose noise level sigma / alpha is at most `level`.

        With `renoise`, or `draw(..., x0=images)`, it makes images from images: the lower the level, the more of them
        is kept. Raises InputError when no step would be left."""
        process = self.process
        if not isinstance(process, Gaussian) or not concrete(process, self.ts, level):
            raise InputError("begin needs a Gaussian process and known times: call it outside of jit, on one process")
        alpha, sigma = known(lambda: process.scales(self.ts))
        start = int((sigma > level * alpha).sum())
        steps = len(self.ts) - 1 - start
        if steps < 1 + (self.last is not None):
            least = float(sigma[-2] / alpha[-2])
            raise InputError(f"begin got level={level}, below the sampler's last steps; expected at least {least:.3g}")
        ends = (self.first if start == 0 else None, self.last)
        return Sampler(process, self.stepper, self.ts[start:], *ends, denoise_last=self.denoise_last)

    def checked(self) -> "Sampler":
        """This sampler, or the InputError that its call would raise."""
        ts = check(self.stepper, self.ts, self.first, self.last)
        return eqx.tree_at(lambda s: s.ts, self, ts)

    def run(self, key, denoise, x, noise, n=None):
        """The walk without its checks, down the first n of the intervals, all unless given; n may be traced."""
        n = len(self.ts) - 1 if n is None else n
        return run_counted(key, self.stepper, denoise, x, self.ts, n, self.first, self.last, self.denoise_last, noise)


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


def generalised(
    process: Gaussian,
    ts: Array,
    *,
    alpha: float | None = 1.0,
    network: Gaussian | None = None,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = float("inf"),
    noise_scale: float = 1.0,
) -> Sampler:
    """Karras et al. (2022), Algorithm 3 with the stochasticity of Algorithm 2: any schedule, scaling, grid and solver.

    `process` is the schedule and the scaling (`processes.unscaled`, `processes.preserving`), `ts` the grid in its time.
    alpha = 1 is Heun, 1/2 the midpoint rule, 2/3 Ralston, None Euler; the last step is Euler's. `network` is the
    process that the denoiser is of, when it is another. `churn` and the rest are S_churn, S_min, S_max, S_noise."""
    last = euler_in_t(process)
    stepper = last if alpha is None else runge_kutta_in_t(process, alpha)
    if churn:
        amount = min(churn / (len(ts) - 1), 2**0.5 - 1)
        options = {"low": churn_min, "high": churn_max, "noise_scale": noise_scale}
        stepper, last = (churned(process, inner, amount, **options) for inner in (stepper, last))
    if network is not None:
        stepper, last = (recasting(inner, network, process) for inner in (stepper, last))
    return Sampler(process, stepper, ts, last=last)
