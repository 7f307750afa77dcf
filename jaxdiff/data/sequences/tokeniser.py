"""Text to whole numbers and back. A tokeniser is a way to cut a text and the list of what may come out of the cut; a
token's id is its place in the list.

    "smiles"      atoms, bonds, ring closures and branches (the grammar of OpenSMILES); [nH+], Br and %12 are one token
    "characters"  Unicode characters
    "bytes"       the bytes of UTF-8: any text whatever in 256 tokens

Three names in the list frame a sequence, each if it is there: <bos> begins it, <eos> ends it, <pad> fills it to the
length. There is no token for "unknown": a text that the list cannot write is counted and said, never bent."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer

from jaxdiff.errors import InputError

PAD, BOS, EOS = FRAME = ("<pad>", "<bos>", "<eos>")
GRAMMAR = (
    r"\[[^\[\]]+\]"  # a bracket atom: [nH], [C@@H], [13C], [O-]
    r"|Br|Cl|[BCNOPSFI]|[bcnops]|\*"  # atoms that need no bracket
    r"|[-=#$:/\\~.]"  # bonds, and the dot between molecules
    r"|%\([0-9]+\)|%[0-9]{2}|[0-9]"  # ring closures
    r"|[()]"  # branches
)
SMILES, PART = re.compile(f"{GRAMMAR}|.", re.DOTALL), re.compile(GRAMMAR)
CUTS: dict[str, Callable[[str], list[str]]] = {
    "smiles": SMILES.findall,  # what the grammar does not know comes out as single characters
    "characters": list,
    "bytes": lambda text: list(text.encode().decode("latin1")),  # a byte is named by the character of its number
}


class Encoded(NamedTuple):
    """Rows of tokens, which texts they are of, and why the others are not here: reason -> count."""

    tokens: Int32[np.ndarray, "n length"]
    kept: Bool[np.ndarray, " texts"]
    omitted: dict[str, int]


@dataclass(frozen=True)
class Tokeniser:
    """`cut` says how a text is cut, `tokens` what may come out; InputError for an unknown cut or a token twice."""

    cut: str
    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        if self.cut not in CUTS:
            raise InputError(f"a tokeniser cuts by {self.cut!r}; expected one of {', '.join(CUTS)}")
        twice = [token for token, count in Counter(self.tokens).items() if count > 1]
        if twice or not self.tokens:
            what = f"{twice[0]!r} twice" if twice else "no tokens"
            raise InputError(f"a tokeniser got {what}; give a list of different tokens")
        top = {"smiles": None, "characters": 0x110000, "bytes": 256}[self.cut]
        long = [
            token for token in self.tokens if top and token not in FRAME and not (len(token) == 1 and ord(token) < top)
        ]
        if long:
            raise InputError(f"a tokeniser of {self.cut} got the token {long[0]!r}; expected one character each")

    def __repr__(self) -> str:
        framed = "".join(f", {name}" for name in FRAME if name in self.ids)
        return f"Tokeniser({self.cut}, {self.vocab} tokens{framed})"

    @property
    def vocab(self) -> int:
        """How many tokens there are: ids run from 0 to vocab - 1."""
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each token's id."""
        return {token: i for i, token in enumerate(self.tokens)}

    @property
    def pad(self) -> int | None:
        """The id of <pad>, or None; `bos` and `eos` alike."""
        return self.ids.get(PAD)

    @property
    def bos(self) -> int | None:
        return self.ids.get(BOS)

    @property
    def eos(self) -> int | None:
        return self.ids.get(EOS)

    def read(self, text: str) -> Int32[np.ndarray, " l"]:
        """The ids of a text without its frame, -1 where a token is unknown."""
        if self.cut == "smiles":
            return np.fromiter((self.ids.get(token, -1) for token in CUTS["smiles"](text)), np.int32)
        raw = text.encode() if self.cut == "bytes" else text.encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(raw, np.uint8 if self.cut == "bytes" else np.uint32)
        known, order = self._codes
        place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        return np.where(known[place] == codes, order[place], -1).astype(np.int32)

    def encode(self, text: str) -> Int32[np.ndarray, " l"]:
        """The ids of one text, framed but not padded; InputError for a token outside the vocabulary."""
        ids = self.read(text)
        if (ids < 0).any():
            raise InputError(
                f"{_short(text)} holds {_listed(self._unknown(text))}, outside the vocabulary of {self.vocab} tokens; "
                "leave it out, or make the tokeniser from texts that have it"
            )
        return self._framed(ids)

    def encode_all(self, texts: Sequence[str], length: int, *, skip: bool = False, name: str = "these") -> Encoded:
        """The texts as rows of `length` tokens, framed and padded.

        A text with a token outside the vocabulary, over the length, or (without <pad>) under it raises an InputError
        that counts them; with `skip` it is left out, and counted in `omitted`."""
        if length < 1:
            raise InputError(f"{name}: the length is {length}; expected 1 token or more")
        rows = np.full((len(texts), length), -1 if self.pad is None else self.pad, np.int32)
        kept, unknown, first = np.ones(len(texts), bool), Counter(), {}
        omitted, longest = Counter(), 0
        for i, text in enumerate(texts):
            ids = self._framed(self.read(text))
            reason = None
            if (ids < 0).any():
                reason = "with unknown tokens"
                unknown.update(self._unknown(text))
            elif len(ids) > length:
                reason, longest = "over the length", max(longest, len(ids))
            elif len(ids) < length and self.pad is None:
                reason = "under the length"
            else:
                rows[i, : len(ids)] = ids
            if reason:
                kept[i] = False
                omitted[reason] += 1
                first.setdefault(reason, (i, text))
        if omitted and not skip:
            told = {
                "with unknown tokens": f" ({_listed(unknown)}; the vocabulary has {self.vocab})",
                "over the length": f" of {length} tokens (the longest has {longest})",
                "under the length": f" of {length} tokens",
            }
            what = ", ".join(f"{count} {reason}{told[reason]}" for reason, count in omitted.items())
            i, text = next(iter(first.values()))
            raise InputError(
                f"{name}: of {len(texts)} texts {what}, the first {_short(text)} at row {i}; "
                f"give skip=True to leave them out, or another length or tokeniser"
            )
        return Encoded(rows[kept], kept, dict(omitted))

    def decode(self, ids: Integer[np.ndarray, " l"], *, strict: bool = True, outside: str | None = None) -> str:
        """The text of one row: what stands after a leading <bos>, up to the first <eos> or the padding at the end.

        A frame token elsewhere is written by its name, so that a broken row cannot pass for a whole one; with
        `strict=False` all of them are dropped. InputError for an id outside the vocabulary, such as a mask that the
        sampler left, unless `outside` says what to write for it. Bytes that are no UTF-8 become U+FFFD."""
        ids = np.asarray(ids)
        bad = (ids < 0) | (ids >= self.vocab)
        if bad.any() and outside is None:
            raise InputError(
                f"{int(bad.sum())} of {ids.size} ids lie outside the vocabulary of {self.vocab} tokens, the first "
                f"{int(ids[bad][0])}; a mask is {self.vocab}: let the sampler remove all masks, or give outside='?'"
            )
        frame = [i for i in (self.pad, self.bos, self.eos) if i is not None]
        if self.bos is not None and ids[:1] == self.bos:
            ids = ids[1:]
        if self.eos is not None and (ends := np.flatnonzero(ids == self.eos)).size:
            ids = ids[: ends[0]]
        elif self.pad is not None:
            ids = ids[: np.flatnonzero(np.append(True, ids != self.pad))[-1]]  # without the padding at the end
        if not strict:
            ids = ids[~np.isin(ids, frame)]
        text = "".join(self.tokens[i] if 0 <= i < self.vocab else str(outside) for i in ids.tolist())
        return text.encode("latin1", "replace").decode("utf8", "replace") if self.cut == "bytes" else text

    def decode_all(
        self, rows: Integer[np.ndarray, "n l"], *, strict: bool = True, outside: str | None = None
    ) -> list[str]:
        """The text of each row, as `decode` has it."""
        return [self.decode(ids, strict=strict, outside=outside) for ids in np.asarray(rows)]

    def save(self, path: str | Path) -> None:
        """Write {"cut": ..., "tokens": [...]} as JSON, from which `Tokeniser.load` makes an equal one."""
        Path(path).write_text(self.to_json(), encoding="utf8")

    def to_json(self) -> str:
        """The tokeniser as the text of a JSON file."""
        return json.dumps({"cut": self.cut, "tokens": list(self.tokens)}, ensure_ascii=True)

    @classmethod
    def load(cls, path: str | Path) -> "Tokeniser":
        """The tokeniser that `save` wrote; InputError where the file is missing or holds something else."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}); give a file that Tokeniser.save wrote") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> "Tokeniser":
        """The tokeniser that `to_json` wrote; InputError where the text is something else."""
        try:
            found = json.loads(text)
            cut, tokens = found["cut"], found["tokens"]
            if not isinstance(cut, str) or not all(isinstance(token, str) for token in tokens):
                raise TypeError("tokens must be strings")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'no tokeniser ({error!r}); expected {{"cut": "smiles", "tokens": ["C", ...]}}') from error
        return cls(cut, tuple(tokens))

    def _framed(self, ids: np.ndarray) -> np.ndarray:
        begin, end = self._ends
        return np.concatenate([begin, ids, end]) if len(begin) or len(end) else ids

    def _unknown(self, text: str) -> Counter[str]:
        return Counter(token for token in CUTS[self.cut](text) if token not in self.ids)

    @cached_property
    def _ends(self) -> list[np.ndarray]:
        return [np.array([] if i is None else [i], np.int32) for i in (self.bos, self.eos)]

    @cached_property
    def _codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Code points (or bytes) in order, and the id of each."""
        pairs = sorted((ord(token), i) for i, token in enumerate(self.tokens) if token not in FRAME)
        codes, ids = zip(*pairs, strict=True)
        return np.array(codes, np.uint32), np.array(ids, np.int32)


def smiles(texts: Iterable[str]) -> Tokeniser:
    """The tokeniser of these SMILES: <pad>, <bos>, <eos>, and their atoms, bonds and brackets in alphabetical order.

    InputError if one holds a character that no SMILES has."""
    counts = Counter(token for text in texts for token in SMILES.findall(text))
    rubbish = Counter({token: count for token, count in counts.items() if not PART.fullmatch(token)})
    if rubbish:
        raise InputError(f"some SMILES hold {_listed(rubbish)}, which no SMILES has; leave those out first")
    return Tokeniser("smiles", (*FRAME, *sorted(counts)))


def characters(text: str | Iterable[str]) -> Tokeniser:
    """The tokeniser of the characters of a text or texts, in the order of their code points, without a frame."""
    return Tokeniser("characters", tuple(sorted(set().union(*([text] if isinstance(text, str) else text)))))


def letters() -> Tokeniser:
    """The 27 letters of text8: space, then a to z."""
    return Tokeniser("characters", tuple(" abcdefghijklmnopqrstuvwxyz"))


def utf8() -> Tokeniser:
    """The 256 bytes."""
    return Tokeniser("bytes", tuple(chr(i) for i in range(256)))


def dna(n: bool = False) -> Tokeniser:
    """A, C, G, T, and N (any of them) if `n`."""
    return Tokeniser("characters", tuple("ACGTN" if n else "ACGT"))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _listed(counts: Counter[str]) -> str:
    top = ", ".join(f"{token!r} {count}" for token, count in counts.most_common(5))
    return top + (f" and {len(counts) - 5} kinds more" if len(counts) > 5 else "")
