"""What a recipe leaves in its folder for the next command: the config, and results that are whole or not there."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.errors import InputError


def remember(workdir: Path, config: Mapping[str, Any]) -> None:
    """Write the config of the run to workdir/config.json."""
    write(workdir / "config.json", json.dumps(config, indent=2) + "\n")


def recall(workdir: str | Path) -> dict[str, Any]:
    """The config of the run in `workdir`; InputError where there is none, or it cannot be read."""
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(f"{workdir} holds no run (no config.json in it); give the --workdir of a `jaxdiff train`")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error}); run `jaxdiff train` there again to write it anew"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no config; run `jaxdiff train` there again to write it anew")
    return config


def write(path: Path, content: str | bytes) -> Path:
    """Put `content` at `path` in one move, so that a full disk or a kill leaves what was there before."""
    draft = path.with_name(path.name + ".tmp")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft.replace(path)


def npz(arrays: Mapping[str, Any]) -> bytes:
    """The arrays as the content of a compressed .npz file."""
    buffer, named = io.BytesIO(), dict(arrays)
    np.savez_compressed(buffer, allow_pickle=False, **named)
    return buffer.getvalue()


def plain(tree: Any) -> Any:
    """A tree of results as JSON can hold it, which has no word for what is not finite: that is None."""
    if isinstance(tree, Mapping):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, np.generic | np.ndarray):
        return plain(tree.tolist())
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
