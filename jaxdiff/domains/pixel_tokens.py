"""Images as sequences of grey levels: drawn as tokens, and written, shown and measured as images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxdiff.data import Images
from jaxdiff.data.sequences import Pixels as Levels
from jaxdiff.data.sequences import Tokens
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say, class_names
from jaxdiff.domains.pictures import grid, png, unit
from jaxdiff.domains.pixels import BETTER, MEANING, Pixels
from jaxdiff.domains.sequences import Sequences, arrays_of
from jaxdiff.errors import InputError
from jaxdiff.metrics.report import DIRECTION
from jaxdiff.numerics.files import npz

SHOWN = 160  # samples


@dataclass(frozen=True)
class PixelTokens:
    """Rows of grey levels, the pixels of images of one shape in turn."""

    name: str
    length: int
    tokeniser: Levels
    classes: tuple[str, ...] = ()
    kind: ClassVar[str] = "images"
    unit: ClassVar[str] = "sequence"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz")
    tokens = Sequences.tokens
    of_classes = Sequences.of_classes
    shown_real = Sequences.shown_real

    @classmethod
    def of(cls, tokens: Tokens) -> "PixelTokens":
        """The domain of a set of images as tokens."""
        if not isinstance(tokens.tokeniser, Levels):
            raise InputError(f"{tokens.name} holds no images: its tokens are read by {type(tokens.tokeniser).__name__}")
        return cls(tokens.name, tokens.shape[0], tokens.tokeniser, class_names(tokens))

    def plain(self) -> dict[str, Any]:
        """This domain as plain values, of which `read` makes it again."""
        told = {"levels": self.vocab, "shape": self.tokeniser.shape}
        return {"name": self.name, "length": self.length, "tokeniser": told, "classes": self.classes}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "PixelTokens":
        """The domain that `plain` wrote."""
        told = values["tokeniser"]
        levels = Levels(told["levels"], tuple(told["shape"]))
        return cls(values["name"], values["length"], levels, tuple(values["classes"]))

    @property
    def vocab(self) -> int:
        """How many grey levels there are."""
        return self.tokeniser.vocab

    def content(self, suffix: str, x: np.ndarray, labels: np.ndarray | None, period: int) -> bytes:
        """A .png, with a row for each of `period` labels, or an .npz of `tokens` and `labels`."""
        drawn = self.tokens(x, labels)
        if suffix == ".npz":
            return npz(arrays_of(drawn))
        return png(grid(unit(self.tokeniser.pixels(drawn.tokens), self.vocab), period))

    def compare(self, x: Any, labels: Any, train: Tokens, held_out: Tokens, *, seed: int, say: Say) -> dict[str, Any]:
        """The metrics of images, on pixels, each beside its floor."""
        sets = [self._images(part) for part in (self.tokens(x, labels), train, held_out)]
        return Pixels.of(sets[1]).compare(sets[0].pixels, labels, *sets[1:], seed=seed, say=say)

    def _images(self, tokens):
        pixels = self.tokeniser.pixels(tokens.tokens)
        return Images(tokens.name, pixels, tokens.labels, tokens.num_classes, self.vocab, tokens.class_names)

    def show(self, x: np.ndarray, labels: np.ndarray | None) -> Iterator[str]:
        """The first samples, with a row for each class."""
        images = unit(self.tokeniser.pixels(self.tokens(x[:SHOWN]).tokens), self.vocab)
        caption = "Not chosen: the first that were drawn, a row for each class."
        yield page.figure(png(grid(images, max(len(self.classes), 1))), caption, "pixels")

    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[str]:
        """Each metric beside its floor, which is real data's."""
        rows = (
            (
                MEANING[name],
                page.shown(row["value"]),
                page.pair([row["floor"], row["floor_std"]]),
                BETTER[DIRECTION[name]],
            )
            for name, row in found.items()
            if name != "counts"
        )
        yield page.table(("metric", "samples", "floor (real)", "better"), rows)
