"""Files that are whole or not there, and what can be written to them."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


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
