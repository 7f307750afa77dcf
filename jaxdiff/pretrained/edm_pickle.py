"""The files of EDM (network-snapshot-*.pkl): what they hold of a network, and nothing of what they could do.

Such a file carries the Python source of its classes, to be run when it is unpickled. Here only the record of each
object is read: its class's name, the options it was made with, and its parameters and buffers."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.pretrained import tensors
from jaxdiff.pretrained.pickles import Made, Name, read

PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
EASY_DICT = Name("dnnlib.util", "EasyDict")
MODULE_DICT = Name("torch.nn.modules.container", "ModuleDict")
SCALARS = (Name("numpy.core.multiarray", "scalar"), Name("numpy._core.multiarray", "scalar"))
DTYPE = Name("numpy", "dtype")
SETS = (Name("builtins", "set"), Name("__builtin__", "set"))

KNOWN = tensors.KNOWN | {
    PERSISTENT,
    EASY_DICT,
    MODULE_DICT,
    *SCALARS,
    DTYPE,
    *SETS,
    Name("torch", "device"),
    *(Name("torch", kind) for kind in ("float16", "float32", "float64", "bfloat16", "int64", "uint8", "memory_format")),
}
POSITIONAL = ("img_resolution", "img_channels", "label_dim")
"""The first arguments of all four preconditioning classes."""
MOST = 100_000  # modules and options; a network has hundreds, and a crafted file could repeat one without end


class Checkpoint(NamedTuple):
    """A network as its file describes it: class, options, and arrays by their names."""

    class_name: str
    init_kwargs: dict[str, Any]
    arrays: dict[str, np.ndarray]


def load(path: str | Path, which: str = "ema") -> Checkpoint:
    """The network that the file keeps under `which`; nothing in the file is run.

    Raises InputError for a file that is not there, cut short, or not of this structure, and for one that asks for any
    object that such a file does not need."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; give an EDM network such as network-snapshot-200000.pkl")
    what = str(path)
    # From memory, where a length that a damaged file claims is not set aside before it is read.
    content = _mapping(read(io.BytesIO(path.read_bytes()), KNOWN, what), what, "the whole")
    if which not in content:
        raise InputError(f"{what} has no {which!r}, only {_shown(content)}: it is no network snapshot of EDM")
    try:
        return _Reader(what).checkpoint(content[which])
    except (RecursionError, TypeError, UnicodeEncodeError) as error:
        raise InputError(f"{what} is no network of EDM, or damaged ({type(error).__name__}); fetch it again") from error


class _Reader:
    def __init__(self, what: str):
        self.what, self.tensors, self.seen = what, tensors.Tensors(what), 0

    def checkpoint(self, made: Any) -> Checkpoint:
        meta = self.meta(made)
        if meta is None or not isinstance(meta.get("class_name"), str):
            raise InputError(f"{self.what} holds a {type(made).__name__} where its network should be")
        state = _mapping(meta.get("state"), self.what, "the network's state")
        options = state.get("_init_args", ())
        named = dict(zip(POSITIONAL, options if isinstance(options, tuple) else (), strict=False))
        kwargs = named | _mapping(state.get("_init_kwargs", {}), self.what, "_init_kwargs")
        arrays: dict[str, np.ndarray] = {}
        self.collect(state, "", arrays)
        return Checkpoint(meta["class_name"], {str(k): self.plain(v) for k, v in kwargs.items()}, arrays)

    def meta(self, made: Any) -> dict[Any, Any] | None:
        """What a persistent object was saved as, or None for another thing."""
        if isinstance(made, Made) and made.name == PERSISTENT and len(made.args) == 1:
            return _mapping(made.args[0], self.what, "a persistent object")
        return None

    def collect(self, state: Mapping[Any, Any], prefix: str, arrays: dict[str, np.ndarray]) -> None:
        """Parameters and buffers of a module and of those within it, by torch's names."""
        self.count()
        unsaved = state.get("_non_persistent_buffers_set", ())
        unsaved = next(iter(unsaved.args), ()) if isinstance(unsaved, Made) else unsaved
        for group in ("_parameters", "_buffers"):
            for name, made in _mapping(state.get(group, {}), self.what, prefix + group).items():
                if made is not None and name not in unsaved:
                    arrays[f"{prefix}{name}"] = self.tensors.array(made)
        for name, made in _mapping(state.get("_modules", {}), self.what, f"{prefix}_modules").items():
            if made is None:
                continue
            meta = self.meta(made)
            inner = meta.get("state") if meta is not None else getattr(made, "state", None)
            self.collect(_mapping(inner, self.what, f"{prefix}{name}"), f"{prefix}{name}.", arrays)

    def count(self):
        self.seen += 1
        if self.seen > MOST:
            raise InputError(f"{self.what} nests its modules without end: it is no checkpoint")

    def plain(self, value: Any) -> Any:
        """An option as a plain value; NumPy's scalars are numbers."""
        self.count()
        if isinstance(value, Made) and value.name in SCALARS and len(value.args) == 2:
            return self.scalar(*value.args)
        if isinstance(value, Made):
            value = _mapping(value, self.what, "an option")
        if isinstance(value, dict):
            return {str(k): self.plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(v) for v in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise InputError(f"{self.what} has an option that is a {type(value).__name__}, expected plain values")

    def scalar(self, dtype: Any, content: Any) -> Any:
        content = tensors.as_bytes(content)
        code = dtype.args[0] if isinstance(dtype, Made) and dtype.name == DTYPE and dtype.args else None
        if code not in ("f8", "f4", "f2", "i8", "i4", "b1") or content is None:
            raise InputError(f"{self.what} has a NumPy scalar of another kind than a number")
        if len(content) != np.dtype(code).itemsize:
            raise InputError(f"{self.what} has a damaged NumPy scalar")
        return np.frombuffer(content, np.dtype(code).newbyteorder("<"))[0].item()


def _mapping(value: Any, what: str, where: str) -> dict[Any, Any]:
    if isinstance(value, Made) and value.name in (EASY_DICT, tensors.ORDERED):
        value = value.items
    if not isinstance(value, dict):
        raise InputError(f"{what} holds a {type(value).__name__} where {where} should be: it is no network of EDM")
    return value


def _shown(content):
    return ", ".join(map(str, list(content)[:5])) or "nothing"
