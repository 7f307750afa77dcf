"""What generated SMILES are worth: molecules at all, different ones, and new ones.

    valid      strings that are molecules (RDKit parses all of the string, and it has an atom)
    unique     different canonical SMILES among the valid
    novel      those of the unique that the training set lacks, BOTH sides in canonical form

Each share has its denominator in its name. A training set that is compared as it is written, or samples that are, makes
memorised molecules look new. None of the shares means anything alone: `floors` measures real molecules alike."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff import chemistry
from jaxdiff.errors import InputError
from jaxdiff.metrics.estimate import Estimate, fraction, mean
from jaxdiff.metrics.inputs import generator, whole
from jaxdiff.types import PRNGKey

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Canonical(frozenset):
    """A set of SMILES known to be canonical; `canonical_set` makes it."""


class Molecules(NamedTuple):
    """Counts, shares of them, and properties; property means are over valid samples and, `novel_`, over novel ones."""

    samples: int
    valid: int
    unique: int
    novel: int | None
    validity: Estimate  # valid / samples
    uniqueness: float  # unique / valid
    novelty: float | None  # novel / unique
    novel_of_samples: float | None  # novel / samples
    means: dict[str, Estimate]
    novel_means: dict[str, Estimate]
    quantiles: dict[str, dict[float, float]]


class Floors(NamedTuple):
    """Mean and standard deviation, over draws of held-out molecules, of each figure at the samples' count."""

    mean: dict[str, float]
    std: dict[str, float]
    draws: int


def canonical_set(smiles: Iterable[str]) -> Canonical:
    """The canonical forms of these SMILES, without those that are no molecules; about .1 ms each."""
    return Canonical(text for text in chemistry.canonical(list(smiles)) if text)


def measure(
    samples: Sequence[str],
    train: Iterable[str] | None = None,
    *,
    properties: Sequence[str] = ("qed", "rings"),
    quantiles: Sequence[float] = QUANTILES,
) -> Molecules:
    """Validity, uniqueness, novelty and properties of generated SMILES.

    `train` is the training set as SMILES, or, to canonicalise it once, `canonical_set` of them; without it novelty is
    None. Shares and means of nothing are NaN. InputError for no samples, or one string in the place of many."""
    if isinstance(samples, str) or len(samples) == 0:
        raise InputError("samples must be a list of SMILES with at least one, got a string or none")
    found = chemistry.describe(samples, tuple(properties))
    known = train if isinstance(train, Canonical) or train is None else canonical_set(train)
    ok = found.canonical != ""
    forms = found.canonical[ok]
    unique, first = np.unique(forms, return_index=True)
    fresh = np.array([form not in known for form in unique], bool) if known is not None else np.zeros(len(unique), bool)
    n, valid, novel = len(samples), int(ok.sum()), None if known is None else int(fresh.sum())
    values = {name: x[ok] for name, x in found.properties.items()}
    return Molecules(
        samples=n,
        valid=valid,
        unique=len(unique),
        novel=novel,
        validity=fraction(valid, n),
        uniqueness=_share(len(unique), valid),
        novelty=None if novel is None else _share(novel, len(unique)),
        novel_of_samples=None if novel is None else _share(novel, n),
        means={name: mean(x, name) for name, x in values.items()},
        novel_means={} if known is None else {name: mean(x[first[fresh]], name) for name, x in values.items()},
        quantiles={name: dict(zip(quantiles, _quantiles(x, quantiles), strict=True)) for name, x in values.items()},
    )


def floors(
    heldout: Sequence[str],
    n: int,
    train: Iterable[str] | None = None,
    *,
    key: PRNGKey,
    draws: int = 8,
    properties: Sequence[str] = ("qed", "rings"),
) -> Floors:
    """The figures of `measure` for `draws` random sets of `n` held-out molecules: what real data get at that count.

    InputError for fewer than 2 draws, or more molecules than are held out."""
    whole(draws, "draws", 2, 1 << 20, "a standard deviation needs two")
    whole(n, "n", 1, len(heldout), "each draw takes so many held-out molecules")
    known = train if isinstance(train, Canonical) or train is None else canonical_set(train)
    rng = generator(key)
    rows = [
        flat(measure([str(heldout[i]) for i in rng.permutation(len(heldout))[:n]], known, properties=properties))
        for _ in range(draws)
    ]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    # Draws share molecules; the variance of fresh ones is larger by N / (N - n)
    finite = np.sqrt(len(heldout) / (len(heldout) - n)) if n < len(heldout) else np.nan
    return Floors(
        {name: float(x.mean()) for name, x in table.items()},
        {name: float(x.std(ddof=1) * finite) for name, x in table.items()},
        draws,
    )


def flat(found: Molecules) -> dict[str, float]:
    """The figures as {"validity": ..., "qed/mean": ..., "qed/q0.5": ...}, for logs and tables."""
    out: dict[str, float] = {}
    for name, value in found._asdict().items():
        if isinstance(value, Mapping):
            label = "novel mean" if name == "novel_means" else "mean"
            for prop, entry in value.items():
                if isinstance(entry, Estimate):
                    out[f"{prop}/{label}"] = entry.value
                else:
                    out |= {f"{prop}/q{q:g}": x for q, x in entry.items()}
        elif value is not None:
            out[name] = float(value.value if isinstance(value, Estimate) else value)
    return out


def as_text(found: Molecules, floor: Floors | None = None) -> str:
    """The figures as a table of aligned columns, with their floors."""
    errors = {"validity": found.validity.stderr} | {f"{name}/mean": e.stderr for name, e in found.means.items()}
    errors |= {f"{name}/novel mean": e.stderr for name, e in found.novel_means.items()}
    lines = [f"{'':<18}{'samples':>10}{'+-':>9}{'held out':>11}{'+-':>9}"]
    for name, value in flat(found).items():
        real = [floor.mean[name], floor.std[name]] if floor is not None and name in floor.mean else [None, None]
        cells = zip((value, errors.get(name), *real), (10, 9, 11, 9), ("5g", "2g", "5g", "2g"), strict=True)
        lines.append(f"{name:<18}" + "".join(_cell(x, width, form) for x, width, form in cells))
    return "\n".join(lines)


def _cell(x: Any, width: int, form: str) -> str:
    return f"{'' if x is None else format(x, '.' + form):>{width}}"


def _share(count: int, of: int) -> float:
    return count / of if of else float("nan")


def _quantiles(x: np.ndarray, quantiles: Sequence[float]) -> list[float]:
    return np.quantile(x, quantiles).tolist() if len(x) else [float("nan")] * len(quantiles)
