"""Anyone's own images: a folder or a zip of pictures, read by Pillow into one set of one size.

Labels come from `dataset.json`, {"labels": [["name.png", 3], ...]} as EDM's tools write it, or else from the first
folder in each picture's path. Every problem names the file that has it: nothing is skipped, guessed or converted with
loss."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.pixels import Images
from jaxdiff.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
GREY, COLOUR = ("1", "L"), ("RGB", "P", "RGBA", "LA", "CMYK", "YCbCr")
DAMAGE = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile)


def images(path: str | Path, *, size: int | tuple[int, int] | None = None) -> Images:
    """All pictures of a folder or zip, in the order of their names, as (N, H, W, C) with 256 levels.

    C is 1 if every picture is grey, else 3. `size`, a side or (height, width) in pixels, crops the largest centred
    box of that shape and resizes it with Lanczos' filter; without it all pictures must have one size. Labels:
    `dataset.json` ({"labels": null} for none), else the first sub-folder's name if there are two or more, else None.
    InputError if the path or a picture is missing, damaged, 16-bit or transparent, sizes differ, or labels do not fit
    the pictures."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Reading pictures needs Pillow, which is not installed; expected Pillow 11 or newer; "
            "run: pip install 'jaxdiff[data]'."
        ) from error
    path, size = Path(path), _box(size)
    names, pictures, index = [], [], None
    for name, data in _files(path):
        if name == "dataset.json":
            index = _index(path, data)
        else:
            names.append(name)
            pictures.append(_decode(path, name, data, size))
    if not names:
        raise InputError(f"{path} holds no pictures; expected files ending in {', '.join(SUFFIXES)}; check the path.")
    for name, picture in zip(names, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            (h, w), (h1, w1) = pictures[0].shape[:2], picture.shape[:2]
            raise InputError(
                f"{path}: {names[0]} is {h} x {w} pixels and {name} is {h1} x {w1}; expected one size; "
                f"give size={min(h, w, h1, w1)}, for example, to crop and resize them all."
            )
    channels = max(picture.shape[2] for picture in pictures)
    pixels = np.empty((len(pictures), *pictures[0].shape[:2], channels), np.uint8)
    for row, picture in zip(pixels, pictures, strict=True):
        row[:] = picture  # a grey picture among coloured ones has three equal channels
    labels, class_names = _from_folders(path, names) if index is None else _from_index(path, names, index[0])
    count = 0 if labels is None else len(class_names) or int(labels.max()) + 1
    return Images(path.stem, pixels, labels, count, class_names=class_names)


def _box(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    box = size if isinstance(size, tuple) else (size, size)
    if min(box) < 1:
        raise InputError(
            f"The size is {size!r}; expected a side or (height, width) of 1 pixel or more; give one such as 32."
        )
    return box


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name inside the source, content) of `dataset.json` and of every picture, sorted by name; hidden ones are left
    out."""

    def wanted(name: str) -> bool:
        parts = name.split("/")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        return not hidden and (name == "dataset.json" or name.lower().endswith(SUFFIXES))

    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        for name in sorted(filter(wanted, files)):
            yield name, files[name].read_bytes()
    elif path.is_file():
        try:
            archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise InputError(
                f"{path} is damaged or no zip ({error}); expected a folder or a zip; copy it again."
            ) from error
        with archive:
            for name in sorted(filter(wanted, archive.namelist())):
                try:
                    data = archive.read(name)
                except DAMAGE as error:
                    raise InputError(
                        f"{path}: {name} cannot be unpacked ({error}); expected an undamaged zip without a password; "
                        "copy it again."
                    ) from error
                yield name, data
    else:
        raise InputError(f"{path} does not exist; expected a folder or a zip of pictures; check the path.")


def _decode(path: Path, name: str, data: bytes, size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            opaque = not picture.has_transparency_data or picture.convert("RGBA").getchannel("A").getextrema()[0] == 255
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: {name} is damaged ({error}); expected a picture; replace or remove it.") from error
    if picture.mode not in GREY + COLOUR:
        raise InputError(
            f"{path}: {name} has pixels of kind {picture.mode!r}; expected 8-bit grey or colour; convert it, or build "
            "jaxdiff.data.Images from your own uint16 array."
        )
    if not opaque:
        raise InputError(
            f"{path}: {name} has transparent pixels; expected opaque ones; paste it on a background first."
        )
    picture = picture.convert("L" if picture.mode in GREY else "RGB")
    if size is not None:
        height, width = size
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS, centering=(0.5, 0.5))
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def _index(path: Path, data: bytes) -> tuple[Any]:
    try:
        return (json.loads(data)["labels"],)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path}: dataset.json cannot be read ({error!r}); expected {{"labels": [["name.png", 3], ...]}} or '
            '{"labels": null}; repair or remove it.'
        ) from error


def _from_index(path: Path, names: list[str], entries: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if entries is None:
        return None, ()
    try:
        by_name = {str(name): label for name, label in entries}
    except (TypeError, ValueError):
        by_name = {}
    if not by_name or any(type(label) is not int or not 0 <= label < 2**31 for label in by_name.values()):
        raise InputError(
            f'{path}: dataset.json holds labels of another form; expected {{"labels": [["name.png", 3], ...]}} with '
            "one whole number, 0 or more, for each picture; write it so."
        )
    known = set(names)
    for name in (*names, *by_name):
        if name not in by_name or name not in known:
            what = "a picture without a label" if name not in by_name else "a label without a picture"
            raise InputError(
                f"{path}: dataset.json leaves {name}, {what}; expected one label a picture; add or remove it."
            )
    return np.array([by_name[name] for name in names], np.int32), ()


def _from_folders(path: Path, names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    folders = [name.split("/")[0] if "/" in name else None for name in names]
    classes = tuple(sorted({folder for folder in folders if folder is not None}))
    if len(classes) < 2:
        return None, ()
    if None in folders:
        raise InputError(
            f"{path}: {names[folders.index(None)]} lies beside the class folders {classes[0]} and {classes[1]}; "
            "expected every picture in the folder of its class; move or remove it."
        )
    return np.array([classes.index(folder) for folder in folders if folder is not None], np.int32), classes
