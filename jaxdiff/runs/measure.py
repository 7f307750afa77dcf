"""What can be measured of a run: a name, the flags that it takes, the file that it writes and its part of the report.

`jaxdiff evaluate --measure=NAME` is one of a recipe's list; the report walks over the results in the folder."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdiff.domains.domain import Say
from jaxdiff.numerics.files import plain, write_json
from jaxdiff.runs.folder import remember_domain
from jaxdiff.runs.model import Run


def untitled(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """The title and the lead of a page whose samples were not measured."""
    return found["data"].split("/")[0], f"Step {found['step']}, with averaged parameters."


class Measure(NamedTuple):
    """measure(run, seed=, say=, **flags) -> figures, which go to folder/`file`; of the report, page(found, folder,
    config) -> parts, and title(found, config) -> (title, lead). `needs` are the flags that it cannot do without."""

    name: str
    file: str
    takes: tuple[str, ...]
    measure: Callable[..., Mapping[str, Any]]
    page: Callable[[Mapping[str, Any], Path, Mapping[str, Any]], Iterable[str]]
    title: Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, str]] = untitled
    needs: tuple[str, ...] = ()


def evaluate(run: Run, measure: Measure, *, seed: int = 1, say: Say = print, **flags: Any) -> dict[str, Any]:
    """Measure the run and write the figures to its folder; what is not a finite number is None there.

    Raises InputError as the measure does."""
    remember_domain(run.folder, run.model.domain)
    found = plain(measure.measure(run, seed=seed, say=say, **flags))
    write_json(run.folder / measure.file, found)
    return found
