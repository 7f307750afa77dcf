"""Class-conditional images: train, draw, measure, report."""

from pathlib import Path
from typing import Any

from jaxdiff import metrics
from jaxdiff.recipes.images import bits_page, design_space, names, theory_page
from jaxdiff.recipes.images import samples as drawn
from jaxdiff.recipes.images.config import complete, default
from jaxdiff.recipes.images.experiment import build, load, train
from jaxdiff.recipes.images.theory import theory
from jaxdiff.runs import statistics as stored
from jaxdiff.runs.likelihood import likelihood
from jaxdiff.runs.measure import Measure
from jaxdiff.runs.resolve import resolve

__all__ = ["MEASURES", "PER", "build", "complete", "default", "design_space", "load", "statistics", "train"]

PER = "pixel"
MEASURES = (
    Measure("samples", "metrics.json", (), drawn.measure, drawn.parts, drawn.title),
    Measure("likelihood", "likelihood.json", ("n", "draws"), likelihood, bits_page.parts),
    Measure("theory", "theory.json", ("n",), theory, theory_page.parts),
    stored.REFERENCE,
)


def statistics(images: Any, features: str, out: str | Path) -> metrics.Moments:
    """`runs.statistics.statistics` of a spec as config.data, {"name": "digits"}; InputError for data that cannot be
    read."""
    stored.feature_function(features)
    stored.checked_file(out)
    return stored.statistics(resolve("data", names.DATA, images), features, out)
