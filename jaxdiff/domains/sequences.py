"""Sequences of tokens: what molecules, DNA and text share, and text itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from jaxdiff.data.sequences import Tokeniser, Tokens
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say, class_names
from jaxdiff.errors import InputError
from jaxdiff.metrics import text
from jaxdiff.numerics.files import npz

SHOWN = 24  # samples


@dataclass(frozen=True)
class Sequences:
    """Rows of `length` tokens of a `tokeniser`'s vocabulary, such as one is read back as text."""

    name: str
    length: int
    tokeniser: Tokeniser
    classes: tuple[str, ...] = ()
    unit: ClassVar[str] = "sequence"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".npz")

    @classmethod
    def of(cls, tokens: Tokens) -> "Sequences":
        """The domain of a set of sequences."""
        return cls(tokens.name, tokens.shape[0], _tokeniser(tokens), class_names(tokens))

    def plain(self) -> dict[str, Any]:
        """This domain as plain values, of which `read` makes it again."""
        told = {"cut": self.tokeniser.cut, "tokens": self.tokeniser.tokens}
        return {"name": self.name, "length": self.length, "tokeniser": told, "classes": self.classes}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Sequences":
        """The domain that `plain` wrote."""
        told = values["tokeniser"]
        tokeniser = Tokeniser(told["cut"], tuple(told["tokens"]))
        return cls(values["name"], values["length"], tokeniser, tuple(values["classes"]))

    @property
    def vocab(self) -> int:
        """How many tokens there are."""
        return self.tokeniser.vocab

    def of_classes(self, other: Any) -> Any:
        """This domain, with the classes of another, whose name it then has."""
        return replace(self, name=other.name, classes=other.classes)

    def tokens(self, x: np.ndarray, labels: np.ndarray | None = None) -> Tokens:
        """Drawn tokens as a set of this domain; InputError where some are no data (a mask that was left)."""
        if left := int((x >= self.vocab).sum()):
            raise InputError(
                f"{left} tokens of the samples are still masked: let the sampler finish, with final='posterior' or "
                "'argmax'"
            )
        told: Any = {} if labels is None else {"num_classes": len(self.classes), "class_names": self.classes}
        return Tokens(f"{self.name}/samples", x, self.tokeniser, labels, **told)

    def content(self, suffix: str, x: np.ndarray, labels: np.ndarray | None, period: int) -> str | bytes:
        """A .txt with a sequence a line, or an .npz of `tokens` and `labels`."""
        drawn = self.tokens(x, labels)
        if suffix == ".npz":
            return npz(arrays_of(drawn))
        return "".join(f"{line}\n" for line in drawn.texts())

    def show(self, x: np.ndarray, labels: np.ndarray | None) -> Iterator[str]:
        """The first samples as lines, each with its class."""
        drawn = self.tokens(x, labels)
        told = [] if drawn.labels is None else drawn.labels[:SHOWN].tolist()
        heads = [f"{self.classes[label]}  " for label in told] or [""] * SHOWN
        wide = max(map(len, heads))
        yield page.lines(f"{head:<{wide}}{line}" for head, line in zip(heads, drawn.texts()[:SHOWN], strict=False))
        yield page.note("Not chosen: the first that were drawn.")

    def shown_real(self, held_out: Tokens) -> dict[str, np.ndarray]:
        """What the report draws of held-out data, as arrays by name."""
        return {}


class Text(Sequences):
    """Text by its characters or bytes."""

    kind: ClassVar[str] = "text"

    def compare(self, x: Any, labels: Any, train: Tokens, held_out: Tokens, *, seed: int, say: Say) -> dict[str, Any]:
        """The entropy of single characters and the diversity of longer ones, beside held-out text."""
        rows: dict[str, Any] = {}
        for name, tokens in (("samples", self.tokens(x).tokens), ("held_out", held_out.tokens)):
            rows[name] = {
                "unigram_entropy": list(text.unigram_entropy(tokens, self.vocab)),
                "diversity": list(text.repetition_diversity(tokens)),
            }
            say(f"{name}: " + ", ".join(f"{key} {row[0]:.4f} +- {row[1]:.4f}" for key, row in rows[name].items()))
        return rows

    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[str]:
        """Samples beside held-out text."""
        rows = (
            (name.replace("_", " "), *(page.pair(found[who][name]) for who in ("samples", "held_out")))
            for name in found["samples"]
        )
        yield page.table(("", "samples", "held-out text"), rows)


def arrays_of(drawn: Tokens) -> dict[str, np.ndarray]:
    """`tokens`, and `labels` where there are classes."""
    return {"tokens": drawn.tokens} | ({} if drawn.labels is None else {"labels": drawn.labels})


def _tokeniser(tokens: Tokens) -> Tokeniser:
    if not isinstance(tokens.tokeniser, Tokeniser):
        raise InputError(f"{tokens.name} is no text: its tokens are read by {type(tokens.tokeniser).__name__}")
    return tokens.tokeniser
