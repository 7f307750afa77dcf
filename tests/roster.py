"""Everything that jaxdiff offers, once. The laws in tests/conformance run on every row of these tables, so a new
process, row, weight or stepper is proven by one line here."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxdiff as jd
from jaxdiff import alphas, grids, parameterizations, processes, samplers
from jaxdiff.losses import weights

PROCESSES = {
    "vp": processes.vp,
    "subvp": processes.subvp,
    "ve": processes.ve,
    "edm": processes.edm,
    "brownian": processes.brownian,
    "cosine": processes.cosine,
    "flow": processes.flow,
    "logsnr": processes.logsnr,
    "iddpm": processes.iddpm,
}

TOKEN_PROCESSES = {
    "absorbing": lambda vocab: processes.absorbing(vocab, alphas.cosine()),
    "uniform": processes.uniform,
    "hybrid": lambda vocab: processes.hybrid(vocab, 0.3),
    "gidd": processes.gidd,
    "ctmc": lambda vocab: processes.ctmc(processes.rates.gaussian(vocab, 1.0)),
}
"""Name -> the process on tokens of a vocabulary."""

LINEAR_PROCESSES = {
    "cld": processes.cld,
    "underdamped": lambda: processes.cld(friction=0.3),
    "linear": lambda: processes.linear([[-0.5]], [[1.0]], beta=8.0),
}

TOKENS = {name: lambda make=make: make(4) for name, make in TOKEN_PROCESSES.items()}
ANY_PROCESS = PROCESSES | LINEAR_PROCESSES | TOKENS
KINDS = ("vp", "edm", "cld", "absorbing", "hybrid", "ctmc")
"""Names in ANY_PROCESS of every kind of process, for what is proven of each two."""

ROWS = {
    "noise": parameterizations.noise,
    "data": parameterizations.data,
    "velocity": parameterizations.velocity,
    "v": parameterizations.v,
    "score": parameterizations.score,
    "scaled_score": parameterizations.scaled_score,
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


def squared_step(high, low):
    """A cost whose best grid is even in ln sigma."""
    return jnp.log(high / low) ** 2


GRIDS = {
    "uniform": grids.uniform,
    "karras": grids.karras,
    "logsnr": grids.logsnr,
    "vp": grids.vp,
    "ve": grids.ve,
    "iddpm": grids.iddpm,
    "optimal": lambda process, n: grids.optimal(process, n, squared_step, candidates=max(32, 2 * n)),
}

TRAINING_TIMES = {
    "uniform": grids.uniform_times,
    "stratified": grids.stratified_times,
    "lognormal": grids.lognormal_times,
    "lattice": grids.lattice_times,
    "importance": grids.importance_times,
    "debiased": grids.debiased_times,
    "vp": grids.vp_times,
    "ve": grids.ve_times,
    "iddpm": grids.iddpm_times,
}

# Rows that are parallel to x_t's own row, or have an infinite entry, at an end: (row, process, t).
ALPHA_ENDS_AT_0 = ("cosine", "flow")
SIGMA_STARTS_AT_0 = ("vp", "subvp", "edm", "brownian", "cosine", "flow", "iddpm")
UNDEFINED = (
    {("noise", process, 1.0) for process in ALPHA_ENDS_AT_0}
    | {("scaled_score", process, 1.0) for process in ALPHA_ENDS_AT_0}
    | {("score", process, 1.0) for process in ALPHA_ENDS_AT_0}
    | {("score", process, 0.0) for process in SIGMA_STARTS_AT_0}
    | {("velocity", process, 0.0) for process in ("vp", "brownian", "cosine", "iddpm")}
)


@dataclass(frozen=True)
class StepperRow:
    """A stepper, whose facts are its own, and where the laws are asked of it."""

    make: Callable[..., Any]
    steps: int = 64  # where, and at twice as many, the error falls at the order already
    walks: tuple[str, ...] = tuple(PROCESSES)

    @functools.cached_property
    def facts(self):
        return self.make(PROCESSES["vp"]())

    order = property(lambda self: self.facts.order)
    calls = property(lambda self: self.facts.calls)
    stochastic = property(lambda self: self.facts.stochastic)

    @property
    def needs_last(self):
        """Where sigma(0) = 0."""
        return ends(self, "edm", PROCESSES["edm"]())["last"] is not None

    @property
    def needs_first(self):
        """Where alpha(1) = 0."""
        return ends(self, "flow", PROCESSES["flow"]())["first"] is not None


def _stay(x, s):
    return x


# Kept noise at the data end, and no signal at the other: for what differs from a row above in its coefficients.
EXTREMES = ("ve", "flow")

COVERED = {"ddim", "runge_kutta_in_t", "unipc", "deis", "lms"}
"""Which stand below under names of their own."""


def found(door) -> dict[str, StepperRow]:
    """A row for every stepper that the door shows and that a process alone makes."""
    rows = {}
    for name in door.__all__:
        maker = getattr(door, name)
        if inspect.isfunction(maker) and inspect.signature(maker).return_annotation is samplers.Stepper:
            first, *others = inspect.signature(maker).parameters.values()
            if first.name == "process" and all(p.default is not p.empty for p in others):
                rows[name] = StepperRow(maker)
    return rows


STEPPERS = {name: row for name, row in found(samplers).items() if name not in COVERED} | {
    "heun_in_t": StepperRow(samplers.runge_kutta_in_t),
    "midpoint_in_t": StepperRow(lambda p: samplers.runge_kutta_in_t(p, 0.5)),
    "ralston_in_t": StepperRow(lambda p: samplers.runge_kutta_in_t(p, 2 / 3)),
    "ddim_0": StepperRow(lambda p: samplers.ddim(p, 0.0)),
    "ddim_half": StepperRow(lambda p: samplers.ddim(p, 0.5)),
    "reverse_sde_0": StepperRow(lambda p: samplers.reverse_sde(p, 0.0)),
    "reverse_sde_half": StepperRow(lambda p: samplers.reverse_sde(p, 0.5)),
    "churn_heun": StepperRow(lambda p: samplers.churn(p, samplers.heun(p), 0.2)),
    "churn_euler": StepperRow(lambda p: samplers.churn(p, samplers.euler(p), 0.2)),
    "langevin_euler": StepperRow(lambda p: samplers.langevin(p, samplers.euler(p), steps=2)),
    "project_euler": StepperRow(lambda p: samplers.project(samplers.euler(p), _stay)),
    "dpmpp_2s": StepperRow(samplers.dpmpp_2s, walks=EXTREMES),
    "dpm_3s": StepperRow(samplers.dpm_3s, walks=EXTREMES),
    "dpmpp_3s": StepperRow(samplers.dpmpp_3s, walks=EXTREMES),
    "dpm_2m": StepperRow(samplers.dpm_2m, steps=128, walks=EXTREMES),
    "dpmpp_3m_published": StepperRow(lambda p: samplers.dpmpp_3m(p, published=True), walks=EXTREMES),
    "dpmpp_3m": StepperRow(lambda p: samplers.warmed(samplers.dpmpp_3m(p), samplers.heun(p), 2), walks=EXTREMES),
    "dpm_3m": StepperRow(lambda p: samplers.warmed(samplers.dpm_3m(p), samplers.heun(p), 2), steps=128, walks=EXTREMES),
    "deis_4": StepperRow(lambda p: samplers.warmed(samplers.deis(p, 4), samplers.dpm_3s(p), 3), walks=EXTREMES),
    "lms_4": StepperRow(
        lambda p: samplers.warmed(samplers.lms(p, 4), samplers.dpm_3s(p), 3), steps=256, walks=EXTREMES
    ),
    "unipc_2": StepperRow(samplers.unipc),
    "unipc_3": StepperRow(lambda p: samplers.unipc(p, 3), walks=EXTREMES),
    "dpmpp_sde": StepperRow(samplers.dpmpp_sde, walks=EXTREMES),
    "dpmpp_3m_sde": StepperRow(lambda p: samplers.dpmpp_3m_sde(p, 0.5), walks=EXTREMES),
    "ancestral_form_dpm_2s": StepperRow(lambda p: samplers.ancestral_form(p, samplers.dpm_2s(p))),
    "ancestral_form_euler": StepperRow(lambda p: samplers.ancestral_form(p, samplers.euler(p), 0.5), walks=EXTREMES),
    "one_path": StepperRow(lambda p: samplers.one_path(p, samplers.ancestral(p), levels=11), walks=EXTREMES),
}
"""Every stepper that a process alone makes is found; these are others, and what differs in where the laws are asked."""


def ends(row: StepperRow, name: str, process: jd.processes.Gaussian) -> dict:
    """The `first` and `last` that let the stepper walk from t = 1 to t = 0 on this process, as its demands say."""
    return samplers.ends(row.make(process), samplers.euler(process), np.linspace(1.0, 0.0, 5, dtype=np.float32))
