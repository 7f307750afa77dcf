"""Examples from a trained model: as arrays, and as the file that `jaxdiff sample` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.domains import labels_in_turn
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import write
from jaxdiff.runs.model import AS_TRAINED, Plan, Progress, Request, Run
from jaxdiff.runs.progress import counter


def sample(
    run: Run,
    out: str | Path | None = None,
    *,
    n: int = 64,
    labels: Sequence[int] | None = None,
    request: Request = AS_TRAINED,
    seed: int = 0,
) -> Path:
    """Draw n examples into a file that their domain can be written to, folder/samples.* by default.

    `labels` (all classes by default) are drawn in turn, each a row of a picture. Example i depends on the seed, its
    label and i alone. Raises InputError for what cannot be drawn or written."""
    plan = run.model.plan(request)
    out = checked_output(run.folder, out, plan.domain)
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 {plan.domain.unit}")
    asked = None if labels is None else np.resize(np.asarray(labels), n)
    x, told = samples(plan, n, seed=seed, labels=asked, progress=counter(f"{plan.spoken} from {run.place}:"))
    period = len(plan.domain.classes) if labels is None else len(labels)
    content = plan.domain.content(out.suffix, x, told, period)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write(out, content)


def samples(
    plan: Plan, n: int, *, seed: int, labels: Any = None, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(n examples as they are stored, their labels (n,) or None), classes in turn unless `labels` says which.

    Raises InputError for a label that is none."""
    told = labels_in_turn(plan.domain, labels, n)
    return plan.draw(jax.random.key(seed), n, told, progress), told


def checked_output(folder: Path, out: str | Path | None, domain: Any) -> Path:
    """Where examples go; InputError for a kind of file that they cannot be written to."""
    out = folder / f"samples{domain.suffixes[0]}" if out is None else Path(out)
    if out.suffix not in domain.suffixes or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in {' or '.join(domain.suffixes)}")
    return out


def chosen_sampler(config: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The spec of the config's sampler, or of the one asked for, with that many steps."""
    asked = request.sampler
    spec = dict(config) if asked is None or asked == {"name": config["name"]} else dict(asked)
    return spec if request.steps is None else spec | {"steps": request.steps}


def guided(run: Run, guide: str | Path | None) -> Run | None:
    """The run that guides: of the folder `guide`, else of the config's `sample.guide`, if it names one."""
    folder = guide or run.config["sample"].get("guide")
    return run.beside(folder) if folder else None
