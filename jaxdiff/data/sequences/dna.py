"""DNA: labelled regulatory sequences, and windows of whole genomes in FASTA files."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxdiff.data.sequences.files import check_split, locate, opened
from jaxdiff.data.sequences.tokeniser import Tokeniser, dna
from jaxdiff.data.sequences.tokens import Tokens, windows
from jaxdiff.errors import InputError

CELL_TYPES = ("GM12878", "HepG2", "K562", "hESCT0")
DNA_CURE = "pip install --no-deps dnadiffusion==0.0.0.dev0"
TABLE = "data/K562_hESCT0_HepG2_GM12878_12k_sequences_per_group.txt"
SPLITS = {"train": "training", "valid": "validation", "test": "test"}


def dna_diffusion(split: str = "all", *, folder: str | Path | None = None, skip: bool = False) -> Tokens:
    """47,872 open-chromatin sequences of 200 bases, 11,968 of each of 4 cell types; the official split has 39,254 in
    "train", 4,053 in "valid" (chromosome 2) and 4,565 in "test" (chromosome 1).

    InputError as `Tokeniser.encode_all`, for an unknown cell type, and where the table of the package dnadiffusion (of
    exactly this version: later ones have none) is missing. Source: DNA-Diffusion, of ENCODE's data."""
    check_split(split, ("all", *SPLITS))
    path = locate("dnadiffusion", TABLE, folder, DNA_CURE)
    texts, labels = [], []
    with opened(path) as file:
        table = csv.DictReader(file, delimiter="\t")
        missing = {"sequence", "TAG", "data_label"} - set(table.fieldnames or ())
        if missing:
            raise InputError(f"{path} has no column {min(missing)}; {DNA_CURE}")
        for row in table:
            if split == "all" or row["data_label"] == SPLITS[split]:
                cell = row["TAG"].split("_")[0]
                if cell not in CELL_TYPES:
                    raise InputError(f"{path}: cell type {cell!r}; expected one of {', '.join(CELL_TYPES)}")
                texts.append(row["sequence"])
                labels.append(CELL_TYPES.index(cell))
    name = "dna_diffusion" if split == "all" else f"dna_diffusion/{split}"
    encoded = dna().encode_all(texts, 200, skip=skip, name=name)
    kept = np.array(labels, np.int32)[encoded.kept]
    return Tokens(name, encoded.tokens, dna(), kept, len(CELL_TYPES), CELL_TYPES, omitted=encoded.omitted)


def genome(path: str | Path, length: int, *, stride: int | None = None, n: bool = False, skip: bool = False) -> Tokens:
    """Windows of `length` bases, every `stride` (default: `length`), of each record of a FASTA file (or .gz, .bz2).

    Small letters (repeats, by custom) are read as capitals. Letters other than A, C, G, T (and N, if `n`) raise an
    InputError that counts them; with `skip` the windows that touch them are left out, and counted in `omitted`, as are
    the bases after each record's last whole window."""
    name = Path(path).name.split(".")[0]
    return _genome(name, path, length, stride, dna(n), skip)


def genomes(
    paths: Mapping[str, str | Path], length: int, *, stride: int | None = None, n: bool = False, skip: bool = False
) -> Tokens:
    """Windows of several genomes, name -> FASTA file, as one set with a class for each, in the order of `paths`;
    otherwise as `genome`."""
    if not paths:
        raise InputError("no genomes were given; expected a name and a FASTA file for each class")
    parts = [_genome(name, path, length, stride, dna(n), skip) for name, path in paths.items()]
    labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    omitted = Counter()
    for part in parts:
        omitted.update(part.omitted)
    tokens = np.concatenate([part.tokens for part in parts])
    return Tokens("genomes", tokens, dna(n), labels, len(parts), tuple(paths), omitted=omitted)


def _genome(name: str, path: str | Path, length: int, stride: int | None, tokeniser: Tokeniser, skip: bool) -> Tokens:
    parts, omitted, other = [], Counter(), Counter()
    for sequence in _records(path):
        ids = tokeniser.read(sequence)
        other.update(character for character in sequence if character not in tokeniser.ids) if (ids < 0).any() else None
        part = windows(name, ids, length, stride)
        clean = (part >= 0).all(1)
        omitted["windows with other letters"] += int((~clean).sum())
        step = length if stride is None else stride
        omitted["bases after the last window"] += len(ids) - ((len(part) - 1) * step + length if len(part) else 0)
        parts.append(part[clean])
    if other and not skip:
        listed = ", ".join(f"{letter!r} {count}" for letter, count in other.most_common(8))
        raise InputError(
            f"{path}: {sum(other.values())} letters are not {', '.join(tokeniser.tokens)}: {listed}; give skip=True to "
            "leave out the windows that touch them, or n=True to keep N as a letter"
        )
    tokens = np.concatenate(parts)
    if not len(tokens):
        raise InputError(f"{path} has no window of {length} clean bases; give a smaller length")
    return Tokens(name, tokens, tokeniser, omitted={reason: count for reason, count in omitted.items() if count})


def _records(path: str | Path) -> list[str]:
    """The sequences of a FASTA file, in capitals."""
    records: list[list[str]] = []
    with opened(path) as file:
        for line in file:
            line = line.strip()
            if line.startswith(">"):
                records.append([])
            elif line and not line.startswith(";"):
                if not records:
                    raise InputError(f"{path} begins with {line[:20]!r}; expected FASTA, a line '>name' before bases")
                records[-1].append(line.upper())
    if not any(records):
        raise InputError(f"{path} holds no bases; expected FASTA, lines of letters after each line '>name'")
    return ["".join(lines) for lines in records if lines]
