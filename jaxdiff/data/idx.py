"""The IDX format of MNIST and Fashion-MNIST: two zero bytes, a type (8: unsigned byte), the number of axes, each axis
as a big-endian 32-bit number, then the bytes; usually gzipped."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxdiff.data.bundled import TEN, check_split
from jaxdiff.data.pixels import Images
from jaxdiff.errors import InputError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def fashion_mnist(split: str = "all", *, folder: str | Path = FASHION_MNIST) -> Images:
    """Fashion-MNIST, 60000 "train" and 10000 "test" images of 28 x 28 x 1 with 256 levels and 10 classes of clothes.

    "all" is train, then test. `folder` holds its four idx files, gzipped or not; the default is Debian's package
    dataset-fashion-mnist. InputError if a file is missing or damaged, or the split is unknown."""
    cure = "run: apt install dataset-fashion-mnist, or give folder= a folder with its four files"
    return _idx("fashion_mnist", Path(folder), split, FASHION, cure)


def mnist(folder: str | Path, split: str = "all") -> Images:
    """MNIST, 60000 "train" and 10000 "test" images of 28 x 28 x 1 with 256 levels and 10 classes, from its four idx
    files, gzipped or not, in `folder`; "all" is train, then test; InputError if one is missing or damaged."""
    return _idx(
        "mnist", Path(folder), split, TEN, "give a folder with MNIST's four files, such as train-images-idx3-ubyte.gz"
    )


def _idx(name: str, folder: Path, split: str, class_names: tuple[str, ...], cure: str) -> Images:
    check_split(split)
    parts = [
        (_read(folder, f"{stem}-images-idx3-ubyte", 3, cure), _read(folder, f"{stem}-labels-idx1-ubyte", 1, cure))
        for stem in {"all": ("train", "t10k"), "train": ("train",), "test": ("t10k",)}[split]
    ]
    shapes = [pixels.shape[1:] for pixels, _ in parts]
    if len(set(shapes)) > 1:
        raise InputError(
            f"{folder}: train images are {shapes[0]} and test images {shapes[1]}; expected one size; {cure}."
        )
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    full = name if split == "all" else f"{name}/{split}"
    return Images(full, pixels[..., None], labels, len(class_names), class_names=class_names)


def _read(folder: Path, stem: str, axes: int, cure: str) -> UInt8[np.ndarray, "..."]:
    path = next((p for p in (folder / f"{stem}.gz", folder / stem) if p.is_file()), None)
    if path is None:
        raise InputError(f"{folder} has no {stem}.gz; expected the four idx files of the data set; {cure}.")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is damaged ({error}); expected a gzipped idx file; copy or download it again."
        ) from error
    start = 4 + 4 * axes
    if len(data) < start or data[:4] != bytes([0, 0, 8, axes]):
        raise InputError(
            f"{path} begins with bytes {data[:4].hex()}; expected {bytes([0, 0, 8, axes]).hex()}, an idx file of "
            f"unsigned bytes with {axes} axes; copy or download it again."
        )
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise InputError(
            f"{path} holds {len(data) - start} bytes of data; expected {math.prod(shape)} for its shape {shape}; "
            "copy or download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
