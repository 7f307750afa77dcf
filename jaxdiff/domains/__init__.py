"""Kinds of data as values: what an example is, how examples are written, shown and measured."""

from collections.abc import Mapping
from typing import Any

from jaxdiff.data import Images
from jaxdiff.data.sequences import Pixels as Levels
from jaxdiff.data.sequences import Tokens
from jaxdiff.domains.dna import Dna
from jaxdiff.domains.domain import Domain, Measured, Written, labels_in_turn
from jaxdiff.domains.molecules import Molecules
from jaxdiff.domains.pixel_tokens import PixelTokens
from jaxdiff.domains.pixels import Pixels
from jaxdiff.domains.sequences import Sequences, Text
from jaxdiff.errors import InputError

__all__ = [
    "Dna",
    "Domain",
    "Measured",
    "Molecules",
    "PixelTokens",
    "Pixels",
    "Sequences",
    "Text",
    "Written",
    "labels_in_turn",
    "of",
    "plain",
    "read",
]

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Pixels, PixelTokens, Molecules, Dna, Text)}


def of(data: Images | Tokens) -> Any:
    """The domain of a data set: pixels, or what its tokeniser reads."""
    if isinstance(data, Images):
        return Pixels.of(data)
    if isinstance(data.tokeniser, Levels):
        return PixelTokens.of(data)
    made = Sequences.of(data)
    if made.tokeniser.cut == "smiles":
        return Molecules.of(data)
    return Dna.of(data) if set(made.tokeniser.tokens) <= set("ACGTN") else Text.of(data)


def plain(domain: Any) -> dict[str, Any]:
    """A domain as plain values, of which `read` makes it again."""
    return {"kind": type(domain).__name__} | domain.plain()


def read(values: Mapping[str, Any]) -> Any:
    """The domain that `plain` wrote; InputError for a kind that there is not."""
    if values.get("kind") not in KINDS:
        raise InputError(f"the domain is of kind {values.get('kind')!r}, expected one of {', '.join(KINDS)}")
    return KINDS[values["kind"]].read(values)
