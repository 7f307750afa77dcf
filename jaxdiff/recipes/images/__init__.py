"""Class-conditional images: train, draw, measure, report."""

from jaxdiff.recipes.images import design_space
from jaxdiff.recipes.images.config import complete, default
from jaxdiff.recipes.images.drawing import sample, samples
from jaxdiff.recipes.images.evaluate import evaluate
from jaxdiff.recipes.images.experiment import Experiment, build
from jaxdiff.recipes.images.likelihood import likelihood
from jaxdiff.recipes.images.report import report
from jaxdiff.recipes.images.run import load, train
from jaxdiff.recipes.images.statistics import compare, statistics
from jaxdiff.recipes.images.theory import theory

__all__ = [
    "Experiment",
    "build",
    "compare",
    "complete",
    "default",
    "design_space",
    "evaluate",
    "likelihood",
    "load",
    "report",
    "sample",
    "samples",
    "statistics",
    "theory",
    "train",
]
