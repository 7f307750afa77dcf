"""A pickle read as data: nothing in the file is imported, called or built.

A pickle is a program for a small stack machine, two of whose instructions fetch any Python object by its name and call
it. Here `pickletools` of the standard library takes the file apart into instructions, and this machine does them on
inert records: a name becomes `Name("torch", "float32")`, a call `Made(name, args)`. The caller reads what it knows out
of those records (`torch_arrays` reads tensors), and a name outside of its list ends the reading before anything else is
done."""

import pickletools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxdiff.errors import InputError


class Name(NamedTuple):
    """A Python object that the file asks for by name; only ever its name."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """What the file would have made by calling `name` with `args`, with the state, items and elements it gave it."""

    name: Any
    args: tuple[Any, ...]
    kwargs: dict[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Persistent:
    """A reference to something that the file keeps elsewhere (torch's storages)."""

    key: Any


class _Mark:
    pass


def read(file: Any, known: Collection[Name], what: str) -> Any:
    """The next pickle in the binary `file`, which stands behind it afterwards, as containers, numbers, strings and
    records.

    `known` are the names that the file may ask for. Raises InputError for another name, an instruction that no such
    file has, and a file that is cut short; `what` is how the sentence calls the file."""
    machine = _Machine(frozenset(known), what)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if machine.step(opcode.name, argument):
                return machine.result()
    except InputError:
        raise
    # pickletools raises ValueError for what is no pickle; the rest is a stack that the instructions do not fit.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{what} cannot be read ({type(error).__name__}: {error}): it is cut short or no such file; fetch it again"
        ) from error
    raise InputError(f"{what} ends before its pickle does: it is cut short; fetch it again")


class _Machine:
    """The stack machine: `step` does one instruction, and says whether it was the last."""

    def __init__(self, known, what):
        self.known, self.what = known, what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self):
        (value,) = self.stack
        return value

    def step(self, op, argument):
        if op == "STOP":
            return True
        if op in PUSHED:
            self.stack.append(argument)
        elif op in CONSTANTS:
            self.stack.append(CONSTANTS[op]())
        else:
            action = getattr(self, f"do_{op.lower()}", None)
            if action is None:
                raise InputError(f"{self.what} holds the pickle instruction {op}, which no checkpoint has; not read")
            action(argument)
        return False

    def top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"{type(self.stack[-1]).__name__} in the place of a {kind}")
        return self.stack[-1]

    def since_mark(self):
        start = max(i for i, value in enumerate(self.stack) if value is _Mark)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    # Names, and what would be made of them.

    def fetch(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str) or Name(module, name) not in self.known:
            raise InputError(
                f"{self.what} asks for {module}.{name}, which no checkpoint of this kind needs; it was not run, and "
                "the file is refused: take one from a source that you trust"
            )
        self.stack.append(Name(module, name))

    def do_global(self, argument):
        self.fetch(*argument.split(" ", 1))

    def do_stack_global(self, argument):
        name, module = self.stack.pop(), self.stack.pop()
        self.fetch(module, name)

    def make(self, name, args, kwargs=None):
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise ValueError(f"a call of {type(name).__name__}")
        self.stack.append(Made(name, args, kwargs or {}))

    def do_reduce(self, argument):
        args, name = self.stack.pop(), self.stack.pop()
        self.make(name, args)

    do_newobj = do_reduce

    def do_newobj_ex(self, argument):
        kwargs, args, name = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.make(name, args, kwargs)

    def do_build(self, argument):
        state = self.stack.pop()
        self.top(Made).state = state

    def do_binpersid(self, argument):
        self.stack.append(Persistent(self.stack.pop()))

    # Containers. A record takes items and elements like the dict or list that it stands for.

    def do_mark(self, argument):
        self.stack.append(_Mark)

    def do_tuple(self, argument):
        values = self.since_mark()
        self.stack.append(tuple(values))

    def do_list(self, argument):
        values = self.since_mark()
        self.stack.append(values)

    def do_dict(self, argument):
        values = self.since_mark()
        self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))

    def do_frozenset(self, argument):
        values = self.since_mark()
        self.stack.append(frozenset(values))

    def _tuple_of(self, n):
        values = tuple(self.stack[-n:])
        if len(values) < n:
            raise IndexError("the stack is empty")
        del self.stack[-n:]
        self.stack.append(values)

    def do_tuple1(self, argument):
        self._tuple_of(1)

    def do_tuple2(self, argument):
        self._tuple_of(2)

    def do_tuple3(self, argument):
        self._tuple_of(3)

    def add_items(self, values):
        target = self.top((dict, Made))
        items = target.items if isinstance(target, Made) else target
        items.update(zip(values[::2], values[1::2], strict=True))

    def do_setitem(self, argument):
        value, key = self.stack.pop(), self.stack.pop()
        self.add_items([key, value])

    def do_setitems(self, argument):
        self.add_items(self.since_mark())

    def add_elements(self, values):
        target = self.top((list, Made))
        (target.elements if isinstance(target, Made) else target).extend(values)

    def do_append(self, argument):
        value = self.stack.pop()
        self.add_elements([value])

    def do_appends(self, argument):
        self.add_elements(self.since_mark())

    def do_additems(self, argument):
        values = self.since_mark()
        self.top(set).update(values)

    # The stack and the memory.

    def do_pop(self, argument):
        self.stack.pop()

    def do_pop_mark(self, argument):
        self.since_mark()

    def do_dup(self, argument):
        self.stack.append(self.stack[-1])

    def do_memoize(self, argument):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_put(self, argument):
        self.memo[argument] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_get(self, argument):
        self.stack.append(self.memo[argument])

    do_binget = do_long_binget = do_get

    def do_proto(self, argument):
        pass

    do_frame = do_proto


PUSHED = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""Instructions whose argument is the value."""
CONSTANTS: dict[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
