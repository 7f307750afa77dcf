"""What a run leaves in its folder for the next command: its config, and the domain of what it draws, so that drawing
needs no data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdiff import domains
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import write

CONFIG, DOMAIN = "config.json", "domain.json"


def remember(folder: Path, config: Mapping[str, Any], domain: Any = None) -> None:
    """Write the config of the run to folder/config.json, and where it is given its domain to folder/domain.json."""
    write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if domain is not None:
        remember_domain(folder, domain)


def remember_domain(folder: Path, domain: Any) -> None:
    """Write folder/domain.json, as a run of an earlier version lacks it."""
    if not (folder / DOMAIN).exists():
        write(folder / DOMAIN, json.dumps(domains.plain(domain)) + "\n")


def recall(folder: str | Path) -> dict[str, Any]:
    """The config of the run in `folder`; InputError where there is none, or it cannot be read."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} holds no run (no {CONFIG} in it); give the --workdir of a `jaxdiff train`")
    config = _read(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no config; run `jaxdiff train` there again to write it anew")
    return config


def recall_domain(folder: str | Path) -> Any:
    """The domain of the run in `folder`, None where an earlier version has not written it."""
    path = Path(folder) / DOMAIN
    return domains.read(_read(path)) if path.is_file() else None


def results(folder: str | Path, name: str) -> dict[str, Any] | None:
    """What a measure wrote to folder/name; None where it has not."""
    path = Path(folder) / name
    return json.loads(path.read_text()) if path.is_file() else None


def checked(folder: str | Path) -> Path:
    """The folder of a run to be made, refused where a file is in its way."""
    folder = Path(folder)
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise InputError(f"{there} is a file, expected a folder for the run; give another --workdir")
    return folder


def _read(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error}); run `jaxdiff train` there again to write it anew"
        ) from error
