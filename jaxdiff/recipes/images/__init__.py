"""Class-conditional images: train, draw, measure, report."""

from jaxdiff.recipes.images.config import complete, default
from jaxdiff.recipes.images.drawing import sample, samples
from jaxdiff.recipes.images.evaluate import evaluate
from jaxdiff.recipes.images.experiment import Experiment, build
from jaxdiff.recipes.images.report import report
from jaxdiff.recipes.images.run import load, train

__all__ = ["Experiment", "build", "complete", "default", "evaluate", "load", "report", "sample", "samples", "train"]
