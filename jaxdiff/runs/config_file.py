"""An experiment is a Python file with get_config(), and the command line changes its fields one by one."""

import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxdiff.errors import InputError


def read(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """What get_config() of the file returns, with `overrides` ("--config.train.steps=500") made in it.

    InputError when there is no such file, its code raises, or a value does not fit the field's type. A field that the
    file does not name may be given: the recipe knows which there are."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no config file {path}; give a Python file with get_config(), as in configs/")
    try:
        members = runpy.run_path(str(path))
        if "get_config" not in members:
            raise InputError(f"{path} has no get_config(), expected a function of that name that returns a ConfigDict")
        config = members["get_config"]()
    except InputError:
        raise
    except Exception as error:  # the file is the user's program: anything can be wrong with it
        raise InputError(f"{path} failed{_line(error, path)}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict | dict):
        raise InputError(f"get_config() of {path} returned {config!r}, expected a ConfigDict")
    config: Any = config if isinstance(config, ConfigDict) else ConfigDict(config)
    for flag in _flags(overrides):
        _override(config, flag)
    return config


def _line(error, path):
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" at line {lines[-1]}" if lines else ""


def _flags(words):
    """The words of each flag: "--config.a=1" alone, "--config.a" with the value behind it."""
    grouped: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            grouped.append([])
        grouped[-1].append(word)
    return grouped


def _override(config, flag):
    """Change one field in place, parsed by ml_collections as what is there now, or as a literal where nothing is."""
    path = flag[0].split("=", 1)[0].split(".", 1)[1]
    *parents, _ = names = path.split(".")
    holder, where = config, "config"
    for name in parents:
        if name not in holder:
            raise InputError(f"{flag[0]}: {where} has no {name!r}; it has {', '.join(holder)}")
        if not isinstance(holder[name], ConfigDict):
            raise InputError(f"{flag[0]}: {where}.{name} is {holder[name]!r}, a value without fields of its own")
        holder, where = holder[name], f"{where}.{name}"
    if not all(name.isidentifier() for name in names):
        raise InputError(f"{flag[0]} names no field; write it as --config.train.steps=500")
    values, now = flags.FlagValues(), holder.get(names[-1])
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, lock_config=False, accept_new_attributes=True, sys_argv=flag
        )
        if values(["jaxdiff", *flag])[1:]:  # a switch takes no word behind it
            raise flags.Error("a word is left over")
    except flags.Error as error:
        like = now.to_dict() if isinstance(now, ConfigDict) else now
        raise InputError(f"{' '.join(flag)} does not fit config.{path}, expected a value such as {like!r}") from error
