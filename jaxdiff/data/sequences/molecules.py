"""Molecules as SMILES: QM9, MOSES, and any list or file of them.

The two sets are files of Python packages, found where these are installed or in `folder`; the packages themselves are
never imported. Strings are rewritten in RDKit's canonical form, and drug-likeness (QED) and ring counts are computed
once and kept in the user's cache (`chemistry.cache_folder`)."""

import csv
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff import chemistry
from jaxdiff.data.philox import SPLIT, permutation
from jaxdiff.data.sequences.files import check_split, locate, opened
from jaxdiff.data.sequences.tokeniser import Tokeniser, smiles
from jaxdiff.data.sequences.tokens import Tokens
from jaxdiff.errors import InputError

QM9_HELD_OUT = 0.05
QM9_CURE = "pip install --no-deps qm9pack==1.0.3"
MOSES_CURE = "pip install --no-deps molsets==0.3.1"


def qm9(
    split: str = "all",
    *,
    length: int = 32,
    canonical: bool = True,
    properties: bool = True,
    tokeniser: Tokeniser | None = None,
    folder: str | Path | None = None,
    skip: bool = False,
) -> Tokens:
    """QM9, 130,831 small organic molecules of at most 9 heavy atoms; split "train" is 95 % of them, "test" the rest, a
    draw with seed 0, the same for ever.

    The vocabulary is that of the training split, unless a tokeniser is given. `properties`: QED and rings, about a
    minute the first time. InputError as `from_smiles`, and where the files of the package qm9pack are missing.
    Source: Ramakrishnan et al. (2014), without the 3,054 uncharacterised."""
    check_split(split, ("all", "train", "test"))
    texts: list[str] = []
    for part in (1, 2, 3):
        texts += _column(locate("qm9pack", f"data/qm9_part{part}.csv", folder, QM9_CURE), "SMILES")
    held_out = np.zeros(len(texts), bool)
    held_out[permutation(len(texts), seed=0, purpose=SPLIT)[: round(QM9_HELD_OUT * len(texts))]] = True
    rows = {"all": slice(None), "train": ~held_out, "test": held_out}[split]
    found = _described("qm9", texts, canonical, properties, skip)
    kept = found["texts"] != ""
    if tokeniser is None:
        tokeniser = smiles(found["texts"][~held_out & kept].tolist())
    name = "qm9" if split == "all" else f"qm9/{split}"
    return _tokens(name, {key: values[rows] for key, values in found.items()}, tokeniser, length, skip)


def moses(
    split: str = "train",
    *,
    length: int = 60,
    canonical: bool = False,
    properties: bool = False,
    tokeniser: Tokeniser | None = None,
    folder: str | Path | None = None,
    limit: int | None = None,
    skip: bool = False,
) -> Tokens:
    """MOSES, drug-like molecules of ZINC: 1,584,663 in "train", 176,074 in "test", 176,225 in "test_scaffolds".

    Its SMILES are canonical to the RDKit of their time; `canonical` rewrites them, `properties` computes QED and rings
    (a quarter of an hour for "train"). The vocabulary is that of "train", unless a tokeniser is given. `limit` reads
    the first molecules only. InputError as `from_smiles`, and where the files of the package molsets are missing.
    Source: Polykovskiy et al. (2020)."""
    check_split(split, ("train", "test", "test_scaffolds"))
    path = locate("moses", f"dataset/data/{split}.csv.gz", folder, MOSES_CURE)
    texts = _column(path, "SMILES", limit)
    name = f"moses/{split}"
    found = _described(name, texts, canonical, properties, skip)
    if tokeniser is None:
        whole = split == "train" and limit is None
        tokeniser = smiles(found["texts"] if whole else _column(path.with_name("train.csv.gz"), "SMILES"))
    return _tokens(name, found, tokeniser, length, skip)


def smiles_file(
    path: str | Path,
    *,
    length: int,
    canonical: bool = True,
    properties: bool = True,
    tokeniser: Tokeniser | None = None,
    skip: bool = False,
) -> Tokens:
    """The molecules of a text file (or .gz, .bz2), one SMILES a line, what follows a blank being its name; empty lines
    and lines that begin with # are none. InputError as `from_smiles`, and where the file cannot be read."""
    with opened(path) as file:
        texts = [line.split()[0] for line in file if line.strip() and not line.startswith("#")]
    name = Path(path).name.split(".")[0]
    return from_smiles(
        name, texts, length=length, canonical=canonical, properties=properties, tokeniser=tokeniser, skip=skip
    )


def from_smiles(
    name: str,
    texts: Sequence[str],
    *,
    length: int,
    canonical: bool = True,
    properties: bool = True,
    tokeniser: Tokeniser | None = None,
    skip: bool = False,
) -> Tokens:
    """SMILES strings as `Tokens`: `<bos> C C O <eos> <pad> ...`, in canonical form unless `canonical` is False, with
    the properties "qed" and "rings" unless `properties` is False.

    What RDKit cannot parse, has unknown tokens or is over the length raises an InputError that counts it; with `skip`
    it is left out, and counted in `omitted`. Without canonical form and properties nothing is parsed."""
    found = _described(name, texts, canonical, properties, skip)
    if tokeniser is None:
        tokeniser = smiles(text for text in found["texts"] if text)
    return _tokens(name, found, tokeniser, length, skip)


def _described(name: str, texts: Sequence[str], canonical: bool, properties: bool, skip: bool) -> dict[str, np.ndarray]:
    """{"texts": ..., property: ...}, where the text of what is no molecule is empty; it is counted unless `skip`."""
    raw = np.array(texts, dtype=np.str_)
    if not (canonical or properties):
        return {"texts": raw}
    names = tuple(chemistry.PROPERTIES) if properties else ()
    found = chemistry.describe(texts, names, cache=chemistry.cache_folder() if len(texts) > 1024 else None)
    bad = found.canonical == ""
    if bad.any() and not skip:
        i = int(np.argmax(bad))
        raise InputError(
            f"{name}: {int(bad.sum())} of {len(texts)} SMILES are no molecules to RDKit, the first {texts[i]!r} at row "
            f"{i}; give skip=True to leave them out"
        )
    return {"texts": found.canonical if canonical else np.where(bad, "", raw), **found.properties}


def _tokens(name: str, found: Mapping[str, np.ndarray], tokeniser: Tokeniser, length: int, skip: bool) -> Tokens:
    parsed = found["texts"] != ""
    rows = {key: values[parsed] for key, values in found.items()}
    encoded = tokeniser.encode_all(rows["texts"].tolist(), length, skip=skip, name=name)
    omitted: dict[str, Any] = {} if parsed.all() else {"no molecules": int((~parsed).sum())}
    properties = {key: values[encoded.kept] for key, values in rows.items() if key != "texts"}
    return Tokens(name, encoded.tokens, tokeniser, properties=properties, omitted=omitted | encoded.omitted)


def _column(path: Path, name: str, limit: int | None = None) -> list[str]:
    """The first `limit` values of a named column of a CSV file."""
    with opened(path) as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if name not in header:
            raise InputError(f"{path} has no column {name}, only {', '.join(header[:5])}...; get the file again")
        place = header.index(name)
        return [row[place] for row in islice(rows, limit)]
