"""One self-contained page of a run, made of the results that lie in its folder, and of nothing else."""

from collections.abc import Iterable
from pathlib import Path

from jaxdiff.domains import page
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import write
from jaxdiff.runs.folder import recall, results
from jaxdiff.runs.measure import Measure


def report(folder: str | Path, measures: Iterable[Measure], per: str) -> Path:
    """Write folder/report.html: the part of each measure that has been taken, then the training, whose loss is `per`
    what it says, and the config. The first measure taken names the page.

    InputError where nothing has been measured."""
    folder = Path(folder)
    config = recall(folder)
    taken = [(measure, found) for measure in measures if (found := results(folder, measure.file)) is not None]
    if not taken:
        raise InputError(f"{folder} has not been evaluated; run: jaxdiff evaluate --workdir={folder}")
    title, lead = taken[0][0].title(taken[0][1], config)
    parts = [part for measure, found in taken for part in measure.page(found, folder, config)]
    whole = [page.head(title, lead), *parts, page.training(folder, per), page.config(config)]
    return write(folder / "report.html", page.page(title, whole))
