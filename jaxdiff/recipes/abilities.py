"""Which recipe a config is of, and what that recipe can do: its functions, by the names of commands."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from jaxdiff import recipes
from jaxdiff.errors import InputError


def of_config(config: Any) -> Any:
    """The recipe that a config names; InputError for another name."""
    name = config.get("recipe")
    if name not in recipes.__all__:
        raise InputError(f"config.recipe is {name!r}, expected one of {', '.join(recipes.__all__)}")
    return getattr(recipes, name)


def ability(recipe: Any, name: str, commands: Iterable[str], flags: Mapping[str, Any] | Iterable[str] = ()) -> Any:
    """What the recipe does under this name; InputError where it does no such thing, or takes no such flags."""
    spoken = recipe.__name__.rpartition(".")[2]
    if not hasattr(recipe, name):
        known = [command for command in commands if hasattr(recipe, command)]
        raise InputError(f"a run of {spoken} has no `{name}`; it has {', '.join(known)}")
    found = getattr(recipe, name)
    strange = [word for word in flags if word not in inspect.signature(found).parameters]
    if strange:
        raise InputError(f"`{name}` of {spoken} takes no --{strange[0]}; leave it out")
    return found
