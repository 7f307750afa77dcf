"""Whole experiments, built from the same functions that you would compose by hand.

A recipe is a module with `train(config, workdir)`, `load(workdir) -> Run` and MEASURES, the list of what can be
measured of a run (PER says what its loss is per); a config names it, and the command line runs it. It imports no other
recipe: what recipes share is in `jaxdiff.runs`, and what kinds of data are in `jaxdiff.domains`."""

from importlib import import_module
from typing import Any

__all__ = ["images", "pretrained", "sequences"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"jaxdiff.recipes.{name}")
    raise AttributeError(f"jaxdiff has no recipe {name!r}; it has {', '.join(__all__)}")
