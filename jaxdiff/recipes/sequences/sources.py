"""Real sequences by name, divided into what is trained on and what is held out: (train, held_out)."""

from typing import Any

import numpy as np

from jaxdiff import data
from jaxdiff.data import sequences
from jaxdiff.data.sequences import Tokens
from jaxdiff.errors import InputError

Halves = tuple[Tokens, Tokens]


def qm9(
    *,
    held_out: float,
    seed: int,
    label: str = "",
    quantile: float = 0.9,
    length: int = 32,
    folder: str | None = None,
) -> Halves:
    """Small organic molecules as SMILES; `label` makes classes of a property, qed or rings: 1 where it is above its
    `quantile` in the data."""
    whole = sequences.qm9(length=length, folder=folder, properties=True)
    return _labelled(whole, label, quantile).split(held_out, seed)


def moses(
    *,
    held_out: float,
    seed: int,
    label: str = "",
    quantile: float = 0.9,
    length: int = 60,
    limit: int | None = None,
    folder: str | None = None,
) -> Halves:
    """Drug-like molecules as SMILES, of MOSES's training set; `label` as for qm9."""
    whole = sequences.moses(length=length, limit=limit, folder=folder, properties=bool(label))
    return _labelled(whole, label, quantile).split(held_out, seed)


def smiles(*, held_out: float, seed: int, path: str, length: int, label: str = "", quantile: float = 0.9) -> Halves:
    """The molecules of a file, one SMILES a line; `label` as for qm9."""
    return _labelled(sequences.smiles_file(path, length=length), label, quantile).split(held_out, seed)


def dna_diffusion(*, held_out: float, seed: int, folder: str | None = None) -> Halves:
    """Regulatory DNA of four cell types, by the official split: chromosome 1 is held out."""
    train, test = (sequences.dna_diffusion(split, folder=folder) for split in ("train", "test"))
    return train, _few(test, held_out, seed)


def genome(
    *, held_out: float, seed: int, path: str, length: int, stride: int | None = None, skip: bool = False
) -> Halves:
    """Windows of a FASTA genome; `skip` leaves out those with other letters than A, C, G and T, and counts them."""
    return sequences.genome(path, length, stride=stride, skip=skip).split(held_out, seed)


def enwiki(*, held_out: float, seed: int, length: int = 256, folder: str | None = None) -> Halves:
    """Wikipedia in 27 letters; the last tenth of the text is held out."""
    train, valid = (sequences.enwiki(split, length=length, folder=folder) for split in ("train", "valid"))
    return train, _few(valid, held_out, seed)


def kjv(*, held_out: float, seed: int, length: int = 256, folder: str | None = None) -> Halves:
    """The King James Bible in 27 letters; its last books are held out."""
    train, valid = (sequences.kjv(split, length=length, folder=folder) for split in ("train", "valid"))
    return train, _few(valid, held_out, seed)


def text(*, held_out: float, seed: int, path: str, length: int = 256) -> Halves:
    """Any UTF-8 file by its characters; what comes last is held out."""
    train = sequences.text_file(path, "train", length=length)
    letters: Any = train.tokeniser
    valid = sequences.text_file(path, "valid", length=length, tokeniser=letters, skip=True)
    return train, _few(valid, held_out, seed)


def digits(*, held_out: float, seed: int) -> Halves:
    """scikit-learn's 8 x 8 digits as 64 tokens of 17 levels."""
    return sequences.from_images(data.digits()).split(held_out, seed)


def mnist_5k(*, held_out: float, seed: int, shrink: int = 2, levels: int = 16) -> Halves:
    """MNIST digits of 28 / `shrink` pixels as tokens of so many levels."""
    return sequences.from_images(data.mnist_5k(shrink=shrink), levels=levels).split(held_out, seed)


def _labelled(tokens: Tokens, label: str, quantile: float) -> Tokens:
    return tokens.labelled(label, quantile=quantile) if label else tokens


def _few(tokens: Tokens, held_out: float, seed: int) -> Tokens:
    """A number of the sequences that are held out by the data's own split, or all of them for a share."""
    if not isinstance(held_out, int):
        return tokens
    if not 1 <= held_out <= len(tokens):
        raise InputError(f"config.held_out is {held_out}, expected from 1 to {len(tokens)}, as {tokens.name} has")
    return tokens.take(np.sort(np.random.default_rng(seed).permutation(len(tokens))[:held_out]))
