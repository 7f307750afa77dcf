"""CIFAR-10 from `cifar-10-python.tar.gz`, the file that its authors publish, read without trusting it.

Its batches are pickles, and a pickle may call anything that it names. This reader gives it five names, all of them
stand-ins that can only hold bytes of a uint8 array; any other name is refused, and said."""

import io
import math
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.bundled import check_split
from jaxdiff.data.pixels import Images
from jaxdiff.errors import InputError

MEMBERS = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
MEMBERS["all"] = MEMBERS["train"] + MEMBERS["test"]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST = 2**26  # bytes of one batch file; the true ones have 31 million
CURE = "download cifar-10-python.tar.gz again and compare its MD5, c58f30108f718f92721af3b95e74349a"


def cifar10(path: str | Path, split: str = "all") -> Images:
    """CIFAR-10, 50000 "train" and 10000 "test" images of 32 x 32 x 3 with 256 levels and 10 classes, from the archive
    `cifar-10-python.tar.gz` at `path`; "all" is train, then test.

    InputError if the file is missing or damaged, or asks for anything but arrays, bytes, text, numbers and containers.
    Source: Krizhevsky (2009)."""
    check_split(split)
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; expected CIFAR-10's archive; download cifar-10-python.tar.gz from "
            "https://www.cs.toronto.edu/~kriz/cifar.html and give its path."
        )
    pixels, labels = zip(*(_batch(path, name, data) for name, data in _members(path, split)), strict=True)
    name = "cifar10" if split == "all" else f"cifar10/{split}"
    return Images(name, np.concatenate(pixels), np.concatenate(labels), 10, class_names=CLASSES)


def _members(path: Path, split: str) -> list[tuple[str, bytes]]:
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in MEMBERS[split] and member.isfile():
                    if member.size > LARGEST:
                        raise InputError(
                            f"{path}: {member.name} has {member.size} bytes; expected at most {LARGEST}; {CURE}."
                        )
                    file = archive.extractfile(member)
                    found[name] = file.read() if file is not None else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}); expected a gzipped tar archive; {CURE}.") from error
    missing = [name for name in MEMBERS[split] if name not in found]
    if missing:
        raise InputError(f"{path} has no file {missing[0]}; expected CIFAR-10's python archive; {CURE}.")
    return [(name, found[name]) for name in MEMBERS[split]]


def _batch(path: Path, name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        table = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        rows, labels = table["data"].array(), np.asarray(table["labels"])
    except InputError as error:
        raise InputError(f"{path}: {name} {error}") from None
    except Exception as error:  # a hostile pickle can fail in any way that Python can
        raise InputError(f"{path}: {name} is damaged ({type(error).__name__}: {error}); {CURE}.") from error
    if rows.ndim != 2 or rows.shape[1] != 3072 or labels.shape != rows.shape[:1] or labels.dtype.kind != "i":
        raise InputError(
            f"{path}: {name} holds data of shape {rows.shape} and labels of shape {labels.shape}; expected (N, 3072) "
            f"and (N,) whole numbers; {CURE}."
        )
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


class _Type:
    """Stands for numpy.ndarray and numpy.dtype: remembers what it was called with, and does nothing."""

    code: Any = None
    state: Any = None

    def __init__(self, code: Any = None, *_: Any):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The uint8 array that this pickled state describes."""
        _, shape, dtype, fortran, data = self.state
        if not isinstance(dtype, _Type) or dtype.code not in ("u1", b"u1") or not isinstance(data, bytes):
            raise InputError(f"holds an array that is not plain uint8; expected pixels; {CURE}.")
        if len(data) != math.prod(shape):
            raise InputError(f"holds {len(data)} bytes for an array of shape {shape}; expected as many; {CURE}.")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Type:
    return _Type()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in an old pickle; other codecs than latin1 are refused."""
    if encoding not in ("latin1", b"latin1"):
        raise InputError(f"asks for the codec {encoding!r}; expected latin1; {CURE}.")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): _Type,
            ("numpy", "dtype"): _Type,
            ("_codecs", "encode"): _encode,
        }
        if (module_name, global_name) not in known:
            raise InputError(
                f"asks to run {module_name}.{global_name}, which is refused; expected arrays, bytes, text, numbers and "
                f"containers only; do not trust this file: {CURE}."
            )
        return known[module_name, global_name]
