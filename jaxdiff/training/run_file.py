"""Whose directory it is: `run.json` holds the config of the run that may write there, and a fingerprint of it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff.errors import InputError
from jaxdiff.numerics import files

FORMAT = 1


def fingerprint(config: Mapping[str, Any]) -> str:
    """16 hex digits that tell configs of plain values apart: SHA-256 of the sorted JSON; InputError if not plain."""
    return hashlib.sha256(_json(config).encode()).hexdigest()[:16]


def own(directory: Path, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config of the run in `directory`, written if it is new; InputError when it is another's or there is none."""
    path = directory / "run.json"
    if path.exists():
        try:
            run = json.loads(path.read_text())
            found, version = run["config"], run["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a run's description ({error}): give another directory") from error
        if version != FORMAT:
            raise InputError(f"{path} has format {version}, this version reads {FORMAT}: use the version that wrote it")
        if config is not None and fingerprint(found) != fingerprint(config):
            raise InputError(
                f"{directory} holds the run of another config ({_difference(found, json.loads(_json(config)))}): give "
                "the same config to continue that run, or another directory to start this one"
            )
        return found
    if config is None:
        raise InputError(f"{directory} holds no run (no run.json in it): give the directory of a run")
    if (directory / "checkpoints").exists():
        raise InputError(f"{directory} has checkpoints, but no run.json that says whose: give another directory")
    directory.mkdir(parents=True, exist_ok=True)
    plain = _json(config)
    files.write(path, f'{{"format": {FORMAT}, "fingerprint": "{fingerprint(config)}", "config": {plain}}}\n')
    return json.loads(plain)


def _difference(there, here):
    """The first entry in which two plain configs differ, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted(there.keys() | here.keys()):
            if name not in there or name not in here:
                return f"{name} is only {'there' if name in there else 'here'}"
            if there[name] != here[name]:
                inner = _difference(there[name], here[name])
                return (
                    f"{name}.{inner}"
                    if isinstance(there[name], dict) and isinstance(here[name], dict)
                    else name + inner
                )
    return f" is {there!r} there and {here!r} here"


def _json(config):
    try:
        return json.dumps(config, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"a config holds plain JSON values (numbers, strings, lists, dicts), got: {error}") from error
