"""PyTorch's tensors out of a pickle that was read as data, without PyTorch.

A tensor is `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, and its storage a file within the file: five
pickles (magic number, version, machine, the storage's kind and key, the list of keys), the number of elements as an
int64, and the elements."""

import io
import math
from typing import Any

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.pretrained.pickles import Made, Name, Persistent, read

REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Name("torch._utils", "_rebuild_parameter")
LOAD = Name("torch.storage", "_load_from_bytes")
ORDERED = Name("collections", "OrderedDict")
ENCODE = Name("_codecs", "encode")  # how pickle protocols before 3 write bytes
MAGIC = 0x1950A86A20F9469CFC6C

STORAGES: dict[Name, Any] = {
    Name("torch", f"{kind}Storage"): np.dtype(dtype)
    for kind, dtype in {
        "Double": "<f8",
        "Float": "<f4",
        "Half": "<f2",
        "BFloat16": "<u2",  # the upper half of a float32
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
BFLOAT16 = Name("torch", "BFloat16Storage")

KNOWN = frozenset({REBUILD, PARAMETER, LOAD, ORDERED, ENCODE})
"""What a pickle with tensors asks for."""


class Tensors:
    """Reads tensors out of the records of one file; a storage that several share is read once."""

    def __init__(self, what: str):
        self.what, self.storages = what, {}

    def array(self, made: Any) -> np.ndarray:
        """The tensor or parameter that the record stands for; InputError where it stands for none."""
        if isinstance(made, Made) and made.name == PARAMETER and made.args:
            return self.array(made.args[0])
        if not isinstance(made, Made) or made.name != REBUILD or len(made.args) < 4:
            self.refuse(f"a {type(made).__name__} in the place of a tensor")
        storage, offset, size, stride = made.args[:4]
        elements = self.storage(storage)
        if not (_counts(size) and _counts(stride) and len(size) == len(stride) and _counts((offset,))):
            self.refuse(f"a tensor of size {size} and stride {stride}")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and (last >= len(elements) or math.prod(size) > len(elements)):
            self.refuse(f"a tensor of size {size} in a storage of {len(elements)} elements")
        if 0 in size:
            return np.zeros(size, elements.dtype)
        steps = [step * elements.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(elements[offset:], size, steps, writeable=False).copy()

    def storage(self, made: Any) -> np.ndarray:
        if id(made) not in self.storages:
            if not isinstance(made, Made) or made.name != LOAD or len(made.args) != 1:
                self.refuse("a tensor without its storage")
            content = as_bytes(made.args[0])
            if content is None:
                self.refuse("a storage without its bytes")
            self.storages[id(made)] = made, self.elements(content)  # the record is kept, so that its id stays its own
        return self.storages[id(made)][1]

    def elements(self, content: bytes) -> np.ndarray:
        file, known = io.BytesIO(content), frozenset(STORAGES)
        magic, _, machine, storage, keys = (read(file, known, f"a storage in {self.what}") for _ in range(5))
        if magic != MAGIC or not isinstance(machine, dict) or machine.get("little_endian") is not True:
            self.refuse("a storage of another format")
        key = storage.key if isinstance(storage, Persistent) else None
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or keys != [key[2]]:
            self.refuse("a storage without its key")
        _, kind, _, _, count, *_ = key
        if kind not in STORAGES or not _counts((count,)) or file.read(8) != count.to_bytes(8, "little"):
            self.refuse(f"a storage of {count} elements of {kind}")
        dtype, raw = STORAGES[kind], file.read()
        if len(raw) != count * dtype.itemsize:
            self.refuse(f"{len(raw)} bytes in the place of {count} elements of {kind}")
        values = np.frombuffer(raw, dtype)
        return (values.astype(np.uint32) << 16).view(np.float32) if kind == BFLOAT16 else values

    def refuse(self, found: str):
        raise InputError(f"{self.what} holds {found}: it is damaged, or no such checkpoint; fetch it again")


def as_bytes(made: Any) -> bytes | None:
    """The bytes that a record stands for, None where it stands for none."""
    if isinstance(made, Made) and made.name == ENCODE and made.args[1:] == ("latin1",) and type(made.args[0]) is str:
        return made.args[0].encode("latin1")
    return made if isinstance(made, bytes) else None


def _counts(values: Any) -> bool:
    """Whether these are a tuple of sizes: whole numbers from 0, small enough to be meant."""
    return isinstance(values, tuple) and all(type(v) is int and 0 <= v < 2**40 for v in values)
