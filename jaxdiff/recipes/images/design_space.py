"""The design space of Karras et al. (2022), Table 1, as plain values: four samplers and four trainings, row by row.

    design_space.training("vp")                      # the fields of a config that make VP's training
    design_space.training("vp", weight="edm")        # the same with EDM's loss weight alone
    design_space.sampler("ve", solver="edm")         # VE's sampler with EDM's solver alone

Rows of the training: `process` (the noise levels that it can reach), `preconditioning`, `noise` (the distribution of
noise levels) and `weight`. Rows of the sampler: `solver`, `grid`, `schedule` and `scaling`."""

import copy
from collections.abc import Mapping
from typing import Any

from jaxdiff.errors import InputError

Spec = dict[str, Any]

TRAINING: dict[str, dict[str, Spec]] = {
    "vp": {
        "process": {"process": {"name": "vp"}},
        "preconditioning": {"row": {"name": "noise"}, "c_in": {"name": "unit_scale"}, "c_noise": {"name": "vp_time"}},
        "noise": {"times": {"name": "vp_times", "low": 1e-5}},
        "weight": {"weight": {"name": "snr"}},
    },
    "ve": {
        "process": {"process": {"name": "ve"}},
        "preconditioning": {
            "row": {"name": "scaled_score"},
            "c_in": {"name": "data_scale"},
            "c_noise": {"name": "log_half"},
        },
        "noise": {"times": {"name": "ve_times", "sigma_min": 0.02, "sigma_max": 100.0}},
        "weight": {"weight": {"name": "snr"}},
    },
    "iddpm": {
        "process": {"process": {"name": "iddpm"}},
        "preconditioning": {
            "row": {"name": "noise"},
            "c_in": {"name": "unit_scale"},
            "c_noise": {"name": "iddpm_index"},
        },
        "noise": {"times": {"name": "iddpm_times"}},
        "weight": {"weight": {"name": "snr"}},
    },
    "edm": {
        "process": {"process": {"name": "edm"}},
        "preconditioning": {
            "row": {"name": "edm", "sigma_data": 0.5},
            "c_in": {"name": "own"},
            "c_noise": {"name": "log_ratio"},
        },
        "noise": {"times": {"name": "lognormal_times", "mean": -1.2, "std": 1.2}},
        "weight": {"weight": {"name": "edm", "sigma_data": 0.5}},
    },
}
"""Column -> row -> the fields of a config. All weights are those of |D - x0|^2, as the table has them."""

SAMPLING: dict[str, dict[str, Spec]] = {
    "vp": {
        "solver": {"alpha": None},
        "grid": {"grid": {"name": "vp"}},
        "schedule": {"schedule": {"name": "vp"}},
        "scaling": {"scaling": {"name": "preserving"}},
    },
    "ve": {
        "solver": {"alpha": None},
        "grid": {"grid": {"name": "ve"}},
        "schedule": {"schedule": {"name": "ve"}},
        "scaling": {"scaling": {"name": "unscaled"}},
    },
    "iddpm": {
        "solver": {"alpha": None},
        "grid": {"grid": {"name": "iddpm"}},
        "schedule": {"schedule": {"name": "linear"}},
        "scaling": {"scaling": {"name": "unscaled"}},
    },
    "edm": {
        "solver": {"alpha": 1.0},
        "grid": {"grid": {"name": "karras"}},
        "schedule": {"schedule": {"name": "linear"}},
        "scaling": {"scaling": {"name": "unscaled"}},
    },
}
"""Column -> row -> options of the sampler `generalised`; alpha is None for Euler and 1 for Heun."""


def training(column: str, **rows: str) -> Spec:
    """The fields of a config that make a column's training, each of `rows` taken from another column.

    Raises InputError for an unknown column or row."""
    return {"loss_row": {"name": "data"}} | _mixed(TRAINING, column, rows)


def sampler(column: str, *, steps: int = 18, **rows: str) -> Spec:
    """The spec of a column's sampler, each of `rows` taken from another column; `steps` are noise levels before 0.

    Raises InputError for an unknown column or row."""
    return {"name": "generalised", "steps": steps} | _mixed(SAMPLING, column, rows)


def _mixed(table: Mapping[str, Mapping[str, Spec]], column: str, rows: Mapping[str, str]) -> Spec:
    for name in (column, *rows.values()):
        if name not in table:
            raise InputError(f"the design space has no column {name!r}; it has {', '.join(table)}")
    if unknown := sorted(rows.keys() - table[column].keys()):
        raise InputError(f"the design space has no row {unknown[0]!r} here; it has {', '.join(table[column])}")
    out: Spec = {}
    for row in table[column]:
        out |= copy.deepcopy(table[rows.get(row, column)][row])
    return out
