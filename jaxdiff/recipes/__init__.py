"""Whole experiments, built from the same functions that you would compose by hand.

A recipe is a module with `train`, `sample`, `evaluate` and `report`, or with those of them that make sense; a config
names it, and the command line runs it."""

from importlib import import_module
from typing import Any

__all__ = ["images", "pretrained", "sequences"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"jaxdiff.recipes.{name}")
    raise AttributeError(f"jaxdiff has no recipe {name!r}; it has {', '.join(__all__)}")
