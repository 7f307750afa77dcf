"""EDM's network files, written by `pickle` itself as PyTorch and EDM have it write them, from NumPy arrays. The names
that such a file asks for are given to stand-ins while it is written; nothing here can read one."""

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte"}


def named(module, name):
    """A function that pickles as module.name."""

    def stand_in(*args):
        raise AssertionError(f"{module}.{name} was called")

    stand_in.__module__, stand_in.__qualname__ = module, name
    return stand_in


REBUILD = named("torch._utils", "_rebuild_tensor_v2")
PARAMETER = named("torch._utils", "_rebuild_parameter")
LOAD = named("torch.storage", "_load_from_bytes")
PERSISTENT = named("torch_utils.persistence", "_reconstruct_persistent_obj")
STORAGES = {kind: named("torch", f"{kind}Storage") for kind in KINDS.values()}


class EasyDict(dict):
    __module__, __qualname__ = "dnnlib.util", "EasyDict"


class ModuleDict:
    __module__, __qualname__ = "torch.nn.modules.container", "ModuleDict"

    def __init__(self, modules):
        self.training, self._parameters, self._buffers, self._modules = False, {}, {}, modules


class Call:
    """Pickles as the call function(*args)."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@contextlib.contextmanager
def stand_ins():
    """The modules that those names live in, as far as `pickle` looks."""
    everything = [REBUILD, PARAMETER, LOAD, PERSISTENT, *STORAGES.values(), EasyDict, ModuleDict]
    before = dict(sys.modules)
    try:
        for thing in everything:
            parts = thing.__module__.split(".")
            for i in range(1, len(parts) + 1):
                module = sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
            setattr(module, thing.__qualname__, thing)
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


class _WithStorage(pickle.Pickler):
    """torch.save's old format: a storage is a persistent id."""

    def persistent_id(self, obj):
        return obj.key if isinstance(obj, _Storage) else None


class _Storage:
    def __init__(self, key):
        self.key = key


def storage(array):
    """The bytes of a storage with the elements of a flat array."""
    file = io.BytesIO()
    kind = STORAGES[KINDS[array.dtype.str[1:]]]
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for value in (MAGIC, 1001, machine):
        pickle.dump(value, file, protocol=2)
    with stand_ins():
        _WithStorage(file, protocol=2).dump(_Storage(("storage", kind, "94361161577888", "cpu", array.size, None)))
    pickle.dump(["94361161577888"], file, protocol=2)
    file.write(array.size.to_bytes(8, "little"))
    file.write(array.tobytes())
    return file.getvalue()


def tensor(array):
    array = np.asarray(array)
    stride = tuple(int(s) // array.itemsize for s in np.zeros(array.shape, array.dtype).strides)
    args = Call(LOAD, storage(np.ascontiguousarray(array).reshape(-1))), 0, tuple(array.shape), stride, False
    return Call(REBUILD, *args, OrderedDict())


def parameter(array):
    return Call(PARAMETER, tensor(array), False, OrderedDict())


def persistent(class_name, state, **more):
    """One of EDM's own modules, with the source that would be run."""
    meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('source was run')"}
    return Call(PERSISTENT, meta | {"class_name": class_name, "state": state} | more)


def module(arrays, class_name=None, **fields):
    """A module tree from {"enc.8x8_conv.weight": array}; the containers enc and dec are torch's own."""
    own = {name: array for name, array in arrays.items() if "." not in name}
    inner = {}
    for name, array in arrays.items():
        if "." in name:
            first, rest = name.split(".", 1)
            inner.setdefault(first, {})[rest] = array
    buffers = {n: tensor(a) for n, a in own.items() if n in ("resample_filter", "freqs", "u")}
    parameters = {n: parameter(a) for n, a in own.items() if n not in buffers} | {"absent": None}
    modules = {name: module(part, "Inner") for name, part in inner.items()}
    state = {"training": False, "_parameters": parameters, "_buffers": buffers, "_modules": modules} | fields
    if class_name == "Inner" and not own and any(name[0].isdigit() for name in inner):
        return ModuleDict(modules)
    return persistent(class_name, state)


def snapshot(class_name, init_kwargs, arrays, **changes):
    """The content of a network-snapshot-*.pkl."""
    fields = {"_init_args": (), "_init_kwargs": EasyDict(init_kwargs), "_non_persistent_buffers_set": set()}
    content = {
        "ema": module(arrays, class_name, **fields),
        "loss_fn": persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": np.sqrt(0.25)}),
        "augment_pipe": None,
        "dataset_kwargs": EasyDict(class_name="training.dataset.ImageFolderDataset", use_labels=True),
    }
    return dump(content | changes)


def dump(content, protocol=4):
    with stand_ins():
        return pickle.dumps(content, protocol=protocol)
