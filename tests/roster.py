"""Everything that jaxdiff offers, once. The laws in tests/conformance run on every row of these tables, so a new
process, row, weight or stepper is proven by one line here."""

from dataclasses import dataclass

import jaxdiff as jd
from jaxdiff import grids, parameterizations, processes, samplers
from jaxdiff.losses import weights

PROCESSES = {
    "vp": processes.vp,
    "subvp": processes.subvp,
    "ve": processes.ve,
    "edm": processes.edm,
    "cosine": processes.cosine,
    "flow": processes.flow,
    "logsnr": processes.logsnr,
    "iddpm": processes.iddpm,
}

ROWS = {
    "noise": parameterizations.noise,
    "data": parameterizations.data,
    "velocity": parameterizations.velocity,
    "v": parameterizations.v,
    "score": parameterizations.score,
    "edm": parameterizations.edm(0.5),
}

WEIGHTS = {
    "unit": weights.unit,
    "snr": weights.snr,
    "edm": weights.edm(0.5),
    "min_snr": weights.min_snr(5.0),
    "sigmoid": weights.sigmoid(1.0),
    "likelihood": weights.likelihood,
}

GRIDS = {
    "uniform": grids.uniform,
    "karras": grids.karras,
    "logsnr": grids.logsnr,
    "vp": grids.vp,
    "ve": grids.ve,
    "iddpm": grids.iddpm,
}

TRAINING_TIMES = {
    "uniform": grids.uniform_times,
    "stratified": grids.stratified_times,
    "lognormal": grids.lognormal_times,
    "importance": grids.importance_times,
}

# Rows that are parallel to x_t's own row, or have an infinite entry, at an end: (row, process, t).
ALPHA_ENDS_AT_0 = ("cosine", "flow")
SIGMA_STARTS_AT_0 = ("vp", "subvp", "edm", "cosine", "flow", "iddpm")
UNDEFINED = (
    {("noise", process, 1.0) for process in ALPHA_ENDS_AT_0}
    | {("score", process, 1.0) for process in ALPHA_ENDS_AT_0}
    | {("score", process, 0.0) for process in SIGMA_STARTS_AT_0}
    | {("velocity", process, 0.0) for process in ("vp", "cosine", "iddpm")}
)


@dataclass(frozen=True)
class StepperRow:
    """A stepper with its order in the step size and what it needs at the ends."""

    make: object
    order: int
    stochastic: bool = False
    needs_last: bool = False  # where sigma(0) = 0
    needs_first: bool = False  # where alpha(1) = 0


def _stay(x, s):
    return x


STEPPERS = {
    "euler": StepperRow(samplers.euler, 1),
    "heun": StepperRow(samplers.heun, 2, needs_last=True),
    "dpmpp_2m": StepperRow(samplers.dpmpp_2m, 2, needs_last=True),
    "ddim_0": StepperRow(lambda p: samplers.ddim(p, 0.0), 1),
    "ddim_half": StepperRow(lambda p: samplers.ddim(p, 0.5), 1, stochastic=True),
    "ancestral": StepperRow(samplers.ancestral, 1, stochastic=True),
    "reverse_sde_0": StepperRow(lambda p: samplers.reverse_sde(p, 0.0), 1, needs_first=True),
    "reverse_sde": StepperRow(lambda p: samplers.reverse_sde(p, 1.0), 1, stochastic=True, needs_first=True),
    "reverse_sde_half": StepperRow(lambda p: samplers.reverse_sde(p, 0.5), 1, stochastic=True, needs_first=True),
    "churn_heun": StepperRow(lambda p: samplers.churn(p, samplers.heun(p), 0.2), 2, stochastic=True, needs_last=True),
    "churn_euler": StepperRow(lambda p: samplers.churn(p, samplers.euler(p), 0.2), 1, stochastic=True),
    "langevin_euler": StepperRow(lambda p: samplers.langevin(p, samplers.euler(p), steps=2), 1, stochastic=True),
    "project_euler": StepperRow(lambda p: samplers.project(samplers.euler(p), _stay), 1),
}


def ends(row: StepperRow, name: str, process: jd.processes.Gaussian) -> dict:
    """The `first` and `last` that let the stepper walk from t = 1 to t = 0 on this process."""
    return {
        "first": samplers.euler(process) if row.needs_first and name in ALPHA_ENDS_AT_0 else None,
        "last": samplers.euler(process) if row.needs_last and name in SIGMA_STARTS_AT_0 else None,
    }
