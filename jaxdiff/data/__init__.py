"""Real data for the rest of the library: images as whole grey levels, `sequences` as whole tokens, batches that are a
function of (seed, step), and the numbers that a noise schedule needs to know about them. Importing it loads NumPy
alone; each reader loads its own, and `augment`, which moves images at random inside a compiled step, loads JAX."""

from importlib import import_module
from typing import Any

from jaxdiff.data import sequences
from jaxdiff.data.bundled import digits, mnist_5k
from jaxdiff.data.cifar import cifar10
from jaxdiff.data.folder import images
from jaxdiff.data.idx import fashion_mnist, mnist
from jaxdiff.data.pipeline import evaluation_batches, training_batches, training_stream
from jaxdiff.data.pixels import Images, to_model, to_pixels
from jaxdiff.data.sequences.tokeniser import Tokeniser
from jaxdiff.data.sequences.tokens import Tokens
from jaxdiff.data.statistics import (
    Advice,
    Spread,
    Suggestions,
    diameter,
    gaussian_mmse,
    prior_gap,
    sigma_data,
    spectrum,
    suggest,
)

__all__ = [
    "Advice",
    "Images",
    "Spread",
    "Suggestions",
    "Tokeniser",
    "Tokens",
    "augment",
    "cifar10",
    "diameter",
    "digits",
    "evaluation_batches",
    "fashion_mnist",
    "gaussian_mmse",
    "images",
    "mnist",
    "mnist_5k",
    "prior_gap",
    "sequences",
    "sigma_data",
    "spectrum",
    "suggest",
    "to_model",
    "to_pixels",
    "training_batches",
    "training_stream",
]


def __getattr__(name: str) -> Any:
    if name == "augment":
        return import_module("jaxdiff.data.augment")
    raise AttributeError(f"module 'jaxdiff.data' has no attribute {name!r}")
