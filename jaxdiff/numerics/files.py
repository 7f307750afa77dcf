"""Files that are whole or not there: written beside their place, then moved there at once.

A full disk, a mistake or a kill leaves what was there before. The folder must exist: where a file may appear is for the
caller to say."""

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside `path` to write to, moved there at the end; removed if the writing raises.

    For content that is too large to stand in memory once more; `write` is for all other. The draft's name ends in
    ".tmp" and has the process's id, so that two processes that write the same file don't write into one another's."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write(path: Path, content: str | bytes) -> Path:
    """Put `content` (text as UTF-8) at `path` in one move; OSError leaves what was there before."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, result: Any) -> Path:
    """Put a tree of results at `path` as JSON, `plain`, two spaces a level and a line's end."""
    return write(path, json.dumps(plain(result), indent=2, allow_nan=False) + "\n")


def npz(arrays: Mapping[str, Any]) -> bytes:
    """The arrays as the content of a compressed .npz file; ValueError for objects, which only a pickle could hold."""
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
