"""A domain is a kind of data as a value: what one example is, and how examples are written, shown and measured.

It knows no model and no data set by itself, so a folder that remembers its domain is all that drawing needs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from jaxdiff.errors import InputError

Say = Callable[[str], Any]


@runtime_checkable
class Domain(Protocol):
    """What examples are: the `name` of the set that they are like, the `classes` by name (none: ()), and a word for
    one of them."""

    unit: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


@runtime_checkable
class Written(Protocol):
    """The files that examples can be written to, the usual one first; `content` is such a file's, with a row for each
    of `period` labels where it is a picture."""

    suffixes: ClassVar[tuple[str, ...]]

    def content(self, suffix: str, x: np.ndarray, labels: np.ndarray | None, period: int) -> str | bytes: ...


@runtime_checkable
class Measured(Protocol):
    """`compare`: figures of drawn examples beside those of real ones, and the arrays that the report shows of them;
    `show` and `figures` are its parts of a page."""

    def compare(self, x: Any, labels: Any, train: Any, held_out: Any, *, seed: int, say: Say) -> Mapping[str, Any]: ...
    def show(self, x: np.ndarray, labels: np.ndarray | None) -> Iterable[str]: ...
    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterable[str]: ...


def labels_in_turn(domain: Domain, labels: Any, n: int) -> np.ndarray | None:
    """The classes of n examples, in turn unless `labels` says which; None where the domain has no classes.

    Raises InputError for a label that is none."""
    count = len(domain.classes)
    if not count:
        if labels is not None:
            raise InputError(f"{domain.name} has no classes; leave the labels out")
        return None
    labels = np.arange(n) % count if labels is None else np.asarray(labels)
    if strange := [int(label) for label in np.unique(labels) if not 0 <= label < count]:
        raise InputError(f"label {strange[0]} is not a class of {domain.name}; expected numbers from 0 to {count - 1}")
    return labels.astype(np.int32)


def class_names(data: Any) -> tuple[str, ...]:
    """What the classes of a data set are called; their numbers, where they have no names."""
    return tuple(data.class_names) or tuple(str(label) for label in range(data.num_classes))
