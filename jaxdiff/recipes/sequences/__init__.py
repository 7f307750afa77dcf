"""Sequences of tokens: molecules, DNA, text, images as tokens. Train, draw, measure."""

from jaxdiff.recipes.sequences.config import complete, default
from jaxdiff.recipes.sequences.drawing import sample, samples
from jaxdiff.recipes.sequences.evaluate import by_guidance, evaluate
from jaxdiff.recipes.sequences.experiment import Experiment, build
from jaxdiff.recipes.sequences.likelihood import likelihood
from jaxdiff.recipes.sequences.report import report
from jaxdiff.recipes.sequences.run import load, train

__all__ = [
    "Experiment",
    "build",
    "by_guidance",
    "complete",
    "default",
    "evaluate",
    "likelihood",
    "load",
    "report",
    "sample",
    "samples",
    "train",
]
