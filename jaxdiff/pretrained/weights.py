"""A network filled from arrays by name, and the files that people keep such arrays in. Nothing in a file is run."""

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import ml_dtypes
import numpy as np
from flax import nnx

from jaxdiff.errors import InputError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8", "I32": "<i4"}
LONGEST = 100 << 20  # bytes of a header that is one
SHOWN = 5  # names that a sentence lists

Place = tuple[Any, ...]
Net = TypeVar("Net", bound=nnx.Module)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz or .safetensors file by name.

    Raises InputError for a missing or damaged file, and for a pickle of PyTorch's, with the line that converts it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected weights in an .npz or .safetensors file")
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise InputError(
            f"{path} is PyTorch's own format; convert it once, where PyTorch is installed: python -c \"import numpy, "
            f"torch; numpy.savez('{path.stem}.npz', **{{k: v.numpy() for k, v in torch.load('{path}', "
            'weights_only=True).items()})"'
        )
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path.read_bytes())
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, TypeError, KeyError, EOFError, AttributeError, zlib.error, BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected arrays by name, .npz or .safetensors: it is cut short or of "
            "another kind"
        ) from error


def _safetensors(content: bytes) -> dict[str, np.ndarray]:
    """8 bytes of length, a JSON header {name: {dtype, shape, data_offsets}}, and the numbers."""
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(len(content) - 8, LONGEST):
        raise ValueError(f"a header of {size} bytes in a file of {len(content)}")
    header, body, arrays = json.loads(content[8 : 8 + size]), content[8 + size :], {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (start, end) = np.dtype(DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        if not 0 <= start <= end <= len(body) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} lies outside of the file, or is not of its shape {shape}")
        arrays[name] = np.frombuffer(body[start:end], dtype).reshape(shape)
    return arrays


def filled(
    make: Callable[[], Net],
    arrays: Mapping[str, np.ndarray],
    named: Callable[[Place], tuple[str, tuple[int, ...]]],
    *,
    left: Collection[str] = (),
    what: str,
) -> Net:
    """The network that `make` describes with its variables from `arrays`, in float32.

    `named` says of a variable's place its name in `arrays`, and the axes that take it there from the network's order;
    `left` are names that may be there and are not used. Raises one InputError that names what is missing, unknown or of
    another shape, and calls the arrays `what`."""
    net = nnx.eval_shape(make)
    graph, state = nnx.split(net)
    flat = nnx.to_flat_state(state)
    wanted, bad, new = set(), [], []
    for path, variable in flat:
        name, axes = named(path)
        shape = tuple(variable.get_value().shape[axis] for axis in axes)
        wanted.add(name)
        if name in arrays and arrays[name].shape != shape:
            bad.append(f"{name} of shape {arrays[name].shape} for {shape}")
        elif name in arrays:
            value = np.asarray(arrays[name], np.float32).transpose(np.argsort(axes))
            new.append((path, variable.replace(value)))
    extra = sorted(arrays.keys() - wanted - set(left))
    faults = [
        f"{kind} {', '.join(names[:SHOWN])}" + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        for kind, names in (("no", sorted(wanted - arrays.keys())), ("unknown", extra), ("misshapen", bad))
        if names
    ]
    if faults:
        raise InputError(f"{what}: {'; '.join(faults)}; expected exactly the weights of {type(net).__name__}")
    return nnx.merge(graph, nnx.from_flat_state(new))


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Eight hexadecimal digits of the SHA-256 of names, shapes and float32 values, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()[:8]
