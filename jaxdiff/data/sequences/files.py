"""Finding and opening the files of a data set: in an installed package, or where the caller says."""

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxdiff.errors import InputError


def locate(package: str, inside: str, folder: str | Path | None, cure: str) -> Path:
    """The file `inside` a package that is installed, or that lies in `folder`; `folder` may be the file itself, the
    folder that holds it, the package, or where packages were put by `pip install --target`.

    Nothing is imported. InputError, with the command that gets the file, if it is not there."""
    if folder is not None:
        folder = Path(folder).expanduser()
        tries = [folder, folder / Path(inside).name, folder / inside, folder / package / inside]
    else:
        spec = find_spec(package)
        tries = [Path(place) / inside for place in (spec.submodule_search_locations or [])] if spec else []
    for path in tries:
        if path.is_file():
            return path
    where = f"{folder} has no" if folder is not None else f"the package {package} is not installed, which has the"
    raise InputError(f"{where} file {Path(inside).name}; run: {cure} and give folder= if it went elsewhere")


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The file as UTF-8 text, unpacked where its name ends in .gz or .bz2; InputError if it is missing or damaged."""
    path = Path(path).expanduser()
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf8", newline=None) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start} of a block); convert it first"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again") from error


def check_split(split: str, known: tuple[str, ...]) -> None:
    """Raise InputError unless `split` is one of the known ones."""
    if split not in known:
        raise InputError(f"the split is {split!r}; expected one of {', '.join(known)}")
