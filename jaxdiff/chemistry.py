"""What RDKit says of a SMILES string: whether it is a molecule, its canonical form, and the numbers that guidance aims
at. Data and metrics both ask here, so that they cannot disagree.

A string is a molecule if RDKit parses and sanitises all of it and it has an atom. RDKit alone would read a name after a
blank ("C C" is methane called C) and the empty string; neither is a molecule here."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

from jaxdiff.errors import InputError
from jaxdiff.numerics import files

CHUNK = 4096  # molecules in a file of the cache


class Described(NamedTuple):
    """Of each string its canonical SMILES ("" where it is no molecule) and its properties (NaN there)."""

    canonical: Shaped[np.ndarray, " n"]
    properties: dict[str, Float64[np.ndarray, " n"]]


def _qed(molecule: Any) -> float:
    from rdkit.Chem import QED

    return QED.qed(molecule)


def _rings(molecule: Any) -> int:
    from rdkit import Chem

    return len(Chem.GetSymmSSSR(molecule))


PROPERTIES: dict[str, Callable[[Any], float]] = {"qed": _qed, "rings": _rings}
"""qed: the quantitative estimate of drug-likeness in [0, 1] (Bickerton et al. 2012), about .5 ms a molecule.
rings: how many rings the smallest set of smallest rings has, with its symmetric ones."""


def parse(smiles: str) -> Any:
    """The RDKit molecule of a SMILES string, or None where it is no molecule; RDKit's log is not silenced here."""
    from rdkit import Chem

    if not smiles or any(character.isspace() for character in smiles):  # a name follows a blank
        return None
    return Chem.MolFromSmiles(smiles)


@contextmanager
def quiet() -> Iterator[None]:
    """RDKit writes nothing to the error stream in here. InputError where RDKit is missing."""
    try:
        from rdkit import rdBase
    except ImportError as error:
        raise InputError(
            "Molecules need RDKit, which is not installed; expected rdkit 2025.3 or newer; "
            "run: pip install 'jaxdiff[sequences]'."
        ) from error
    with rdBase.BlockLogs():
        yield


def canonical(smiles: Sequence[str]) -> list[str]:
    """RDKit's canonical SMILES of each string, "" where it is no molecule."""
    from_one = describe(smiles, ())
    return from_one.canonical.tolist()


def describe(
    smiles: Sequence[str], properties: Sequence[str] = ("qed", "rings"), *, cache: str | Path | None = None
) -> Described:
    """Canonical SMILES and properties of each string; InputError for an unknown property or without RDKit.

    With `cache`, a folder, each 4096 strings are one file of it, written whole: what was interrupted goes on there, and
    nothing is computed twice. A file hangs on the strings, the properties and RDKit's version."""
    unknown = [name for name in properties if name not in PROPERTIES]
    if unknown:
        raise InputError(f"no property {unknown[0]!r}; expected some of {', '.join(PROPERTIES)}")
    smiles, names = list(smiles), tuple(properties)
    with quiet():
        parts = [_chunk(smiles[i : i + CHUNK], names, cache) for i in range(0, max(len(smiles), 1), CHUNK)]
    return Described(
        np.concatenate([part.canonical for part in parts]),
        {name: np.concatenate([part.properties[name] for part in parts]) for name in names},
    )


def cache_folder() -> Path:
    """Where computed properties are kept: $JAXDIFF_CACHE, or jaxdiff in $XDG_CACHE_HOME, or ~/.cache/jaxdiff."""
    given, shared = os.environ.get("JAXDIFF_CACHE"), os.environ.get("XDG_CACHE_HOME")
    base = Path(given) if given else (Path(shared) if shared else Path.home() / ".cache") / "jaxdiff"
    return base / "molecules"


def _chunk(smiles: list[str], names: tuple[str, ...], cache: str | Path | None) -> Described:
    if cache is None:
        return _compute(smiles, names)
    from rdkit import rdBase

    text = "\n".join((rdBase.rdkitVersion, *names, "", *smiles))
    path = Path(cache) / f"{hashlib.blake2b(text.encode('utf8', 'surrogatepass'), digest_size=16).hexdigest()}.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return Described(kept["canonical"], {name: kept[name] for name in names})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged: compute it
    found = _compute(smiles, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, files.npz({"canonical": found.canonical, **found.properties}))
    return found


def _compute(smiles: list[str], names: tuple[str, ...]) -> Described:
    from rdkit import Chem

    molecules = [parse(text) for text in smiles]
    canonical = ["" if molecule is None else Chem.MolToSmiles(molecule) for molecule in molecules]
    values = {
        name: np.array([np.nan if m is None else float(PROPERTIES[name](m)) for m in molecules], np.float64)
        for name in names
    }
    return Described(np.array(canonical, dtype=np.str_), values)
