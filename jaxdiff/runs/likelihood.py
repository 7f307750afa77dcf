"""How likely a trained model finds held-out data, in bits per dimension or per token.

folder/likelihood.json holds it; what is done is kept in folder/likelihood/, so that the same command after an
interruption goes on."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdiff.domains.domain import Say
from jaxdiff.errors import InputError
from jaxdiff.runs.model import Asked, Run, Scored
from jaxdiff.runs.progress import counter


def likelihood(run: Run, *, n: int | None = None, draws: int | None = None, seed: int = 1, say: Say = print) -> Any:
    """The figures of n held-out examples (the config's number by default), `draws` of noise each.

    Raises InputError for a model that cannot say, and n or draws that cannot be."""
    if not isinstance(run.model, Scored):
        raise InputError(f"the model in {run.folder} says no likelihood; measure its samples")
    unit = f"{run.domain.unit}s"
    settings, held_out = run.config["likelihood"], run.data()[1]
    draws = int(settings["draws"] if draws is None else draws)
    n = int(min(settings[unit] or len(held_out), len(held_out)) if n is None else n)
    if not 1 <= n <= len(held_out):
        raise InputError(f"n is {n}, expected from 1 to {len(held_out)}, the number of held-out {unit}")
    if draws < 1:
        raise InputError(f"draws is {draws}, expected at least 1")
    mark = _mark(run.step, n, draws, seed, settings)
    asked = Asked(
        jax.random.key(seed),
        draws,
        resume=lambda name: run.folder / "likelihood" / f"{name}-{mark}.npz",
        progress=lambda name: counter(f"{name}, {n} {unit}:"),
        say=say,
    )
    some = spread(held_out, n)
    found = run.model.bits(some, settings, asked)
    return {"step": run.step, "data": held_out.name, unit: n, "draws": draws} | found


def spread(data: Any, n: int) -> Any:
    """n examples all along a data set, which may be sorted by class."""
    return data.take(np.arange(n) * len(data) // n)


def _mark(step: int | None, n: int, draws: int, seed: int, settings: Mapping[str, Any]) -> str:
    """Figures of other settings are other figures, and must not be gone on with."""
    return f"step{step}-{n}x{draws}-seed{seed}-{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"
