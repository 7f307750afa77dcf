"""A data set of sequences is rows of whole numbers, each below the vocabulary, with the tokeniser that reads them back,
perhaps a class for each, and properties such as a molecule's drug-likeness from which classes are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from jaxdiff.data.rows import check_classes, checked_labels, held_out_rows, read_only
from jaxdiff.errors import InputError


@runtime_checkable
class Alphabet(Protocol):
    """What `Tokens` asks of its tokeniser: how many tokens there are. (`Tokeniser` and `Pixels` also read them.)"""

    @property
    def vocab(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """A checked, read-only set of N sequences of L tokens; InputError at construction if a part is wrong.

    `tokens` (N, L) whole numbers in [0, tokeniser.vocab), kept as int32; `labels` (N,) in [0, num_classes), or None;
    `class_names` one name a class, or empty; `properties` name -> (N,) numbers; `omitted` what the reader left out:
    reason -> count."""

    name: str
    tokens: np.ndarray
    tokeniser: Alphabet
    labels: np.ndarray | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    omitted: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", read_only(self._checked_tokens()))
        if self.labels is not None:
            labels = checked_labels(self.name, self.labels, len(self.tokens), self.num_classes, "sequence")
            object.__setattr__(self, "labels", read_only(labels))
        check_classes(self.name, self.labels, self.num_classes, self.class_names, "sequence")
        kept = {name: read_only(np.asarray(values, np.float64)) for name, values in self.properties.items()}
        for name, values in kept.items():
            if values.shape != (len(self),):
                raise InputError(
                    f"{self.name}: the property {name} has shape {values.shape}; expected ({len(self)},), one for each "
                    "sequence"
                )
        object.__setattr__(self, "properties", kept)
        object.__setattr__(self, "omitted", dict(self.omitted))

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        n, length = self.tokens.shape
        classes = f"{self.num_classes} classes" if self.labels is not None else "no labels"
        left = "".join(f", left out {count} {reason}" for reason, count in self.omitted.items())
        return f"Tokens({self.name!r}, {n} of {length}, {self.vocab} tokens, {classes}{left})"

    @property
    def shape(self) -> tuple[int]:
        """(L,), the shape of one example."""
        return self.tokens.shape[1:]

    @property
    def vocab(self) -> int:
        """How many tokens there are: ids run from 0 to vocab - 1."""
        return self.tokeniser.vocab

    def examples(self, rows: np.ndarray) -> Int32[np.ndarray, "n l"]:
        """What a model sees of these rows: their tokens."""
        return self.tokens[rows]

    def texts(self) -> list[str]:
        """Each sequence as text; InputError where the tokens are of something else, such as pixels."""
        decode = getattr(self.tokeniser, "decode_all", None)
        if decode is None:
            raise InputError(f"{self.name}: these tokens are no text; read them with tokeniser.pixels(tokens)")
        return decode(self.tokens)

    def take(self, rows: np.ndarray | slice, name: str | None = None) -> "Tokens":
        """The sequences at these rows, with all that belongs to them, under a new name if one is given; InputError if
        there are none."""
        return replace(
            self,
            name=self.name if name is None else name,
            tokens=self.tokens[rows],
            labels=None if self.labels is None else self.labels[rows],
            properties={key: values[rows] for key, values in self.properties.items()},
        )

    def split(self, held_out: float, seed: int = 0) -> tuple["Tokens", "Tokens"]:
        """Divide into (train, held-out) sets, the same for the same seed and each in its original order.

        `held_out` is a fraction in (0, 1) (a float) or a number of sequences in [1, N) (an int); every class gives its
        share, rounded so that the total is exact. InputError if either set would be empty."""
        out = held_out_rows(self.name, self.labels, len(self), held_out, seed, "sequence")
        return self.take(~out, f"{self.name}/train"), self.take(out, f"{self.name}/held-out")

    def labelled(self, prop: str, *, quantile: float = 0.9, threshold: float | None = None) -> "Tokens":
        """The same sequences in two classes: 1 where the property is above its `quantile` here, or above `threshold`.

        Rings above their .9 quantile in QM9 are 4 or more. InputError for a property that is not there or not finite,
        or a threshold that leaves a class empty."""
        if prop not in self.properties:
            known = ", ".join(self.properties) or "none"
            raise InputError(f"{self.name} has no property {prop!r}; it has {known}; read it with properties=True")
        values = self.properties[prop]
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise InputError(f"{self.name}: {prop} of {bad} sequences is not finite; leave those out first")
        if threshold is None and not 0 < quantile < 1:
            raise InputError(f"{self.name}: the quantile is {quantile}; expected a fraction in (0, 1) such as 0.9")
        cut = float(np.quantile(values, quantile)) if threshold is None else float(threshold)
        labels = (values > cut).astype(np.int32)
        if not 0 < labels.sum() < len(labels):
            raise InputError(
                f"{self.name}: {int(labels.sum())} of {len(labels)} sequences have {prop} above {cut:g}; expected some "
                "above and some not; give another quantile or threshold"
            )
        return replace(self, labels=labels, num_classes=2, class_names=(f"{prop} <= {cut:.4g}", f"{prop} > {cut:.4g}"))

    def _checked_tokens(self) -> np.ndarray:
        tokens = np.asarray(self.tokens)
        if not np.issubdtype(tokens.dtype, np.integer):
            raise InputError(f"{self.name}: tokens have dtype {tokens.dtype}; expected whole numbers")
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise InputError(f"{self.name}: got tokens of shape {tokens.shape}; expected (N, L), neither of them 0")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab:
            raise InputError(
                f"{self.name}: tokens run from {low} to {high}; expected 0..{self.vocab - 1} for a vocabulary of "
                f"{self.vocab}; read them with their own tokeniser"
            )
        return tokens.astype(np.int32)  # a copy, so that nobody can change what was checked


def windows(name: str, ids: np.ndarray, length: int, stride: int | None = None) -> np.ndarray:
    """Every `stride`-th (default: `length`-th) window of `length` of one long row of ids, as (n, length), n >= 0."""
    stride = length if stride is None else stride
    if length < 1 or stride < 1:
        raise InputError(f"{name}: got windows of {length} every {stride}; expected 1 or more of both")
    if len(ids) < length:
        return np.empty((0, length), np.int32)
    return np.lib.stride_tricks.sliding_window_view(ids, length)[::stride]
