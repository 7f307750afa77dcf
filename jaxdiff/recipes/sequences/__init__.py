"""Sequences of tokens: molecules, DNA, text, images as tokens. Train, draw, measure, report."""

from jaxdiff.recipes.sequences import samples as drawn
from jaxdiff.recipes.sequences.config import complete, default
from jaxdiff.recipes.sequences.experiment import build, load, train
from jaxdiff.runs.likelihood import likelihood
from jaxdiff.runs.measure import Measure

__all__ = ["MEASURES", "PER", "build", "complete", "default", "load", "train"]

PER = "token, in nats"
MEASURES = (
    Measure("samples", "metrics.json", ("guide", "steering"), drawn.measure, drawn.parts, drawn.title),
    Measure("likelihood", "likelihood.json", ("n", "draws"), likelihood, drawn.bits_parts),
)
