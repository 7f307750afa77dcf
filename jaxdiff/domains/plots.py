"""Sequences as pictures: a sheet of molecules, and histograms of what was drawn beside what is real.

Figures are Matplotlib's, made without pyplot: nothing is open, nothing is shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff import chemistry
from jaxdiff.domains import page
from jaxdiff.errors import InputError
from jaxdiff.metrics.kmers import kmer_names

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
MARKERS = "os^Dv<"
REAL = "#8c8c8c"  # the colour of what is compared with
CELL = (220, 170)  # pixels of one molecule


def molecule_svg(smiles: Sequence[str], *, columns: int = 6, legends: Sequence[str] | None = None) -> str:
    """A sheet of molecules as the text of an SVG, a legend below each (default: its SMILES).

    What is no molecule keeps its place, and says so. InputError for no SMILES, as many legends as there are not,
    or without RDKit."""
    return _sheet("SVG", smiles, columns, legends)


def molecule_png(smiles: Sequence[str], *, columns: int = 6, legends: Sequence[str] | None = None) -> bytes:
    """The sheet of `molecule_svg` as the content of a PNG."""
    return _sheet("Cairo", smiles, columns, legends)


def property_histogram(values: Mapping[str, Any], label: str, *, reference: str | None = None) -> Any:
    """Densities of a property in several sets, name -> (n,) numbers, on one axis, as a Matplotlib Figure.

    Whole numbers get a bar each, other numbers 40 bins over the range of all; the set called `reference` is filled in
    grey. Dashes stand at the means. InputError for an empty set, a number that is not finite, or no such reference."""
    tables = _tables(values, reference)
    figure, axes = page.axes()
    pooled = np.concatenate(list(tables.values()))
    if bool((pooled == np.rint(pooled)).all()) and np.ptp(pooled) <= 60:
        bins = np.arange(pooled.min() - 0.5, pooled.max() + 1)
        axes.set_xticks(np.arange(pooled.min(), pooled.max() + 1, max(1, np.ptp(pooled) // 12)))
    else:
        bins = np.linspace(pooled.min(), pooled.max() + 1e-9 * max(1.0, abs(pooled.max())), 41)
    for name, colour in _coloured(tables, reference):
        x = tables[name]
        heights = np.histogram(x, bins)[0] / len(x)
        filled: dict[str, Any] = {"fill": True, "alpha": 0.35} if name == reference else {}
        axes.stairs(heights, bins, color=colour, lw=1.6, label=f"{name} (mean {x.mean():.3g})", **filled)
        axes.axvline(x.mean(), color=colour, ls="--", lw=1)
    axes.set(xlabel=label, ylabel="share")
    axes.legend(frameon=False)
    return figure


def kmer_histogram(
    counts: Mapping[str, Any], k: int, *, reference: str, letters: str = "ACGT", top: int = 64, note: str = ""
) -> Any:
    """k-mer frequencies of several sets, name -> (len(letters)^k,) counts, as a Matplotlib Figure.

    Words stand in the order of their frequency in the set called `reference`, grey bars, the `top` of them; the others
    are points. `note`, such as a Jensen-Shannon divergence and its floor, is written above. InputError for other
    lengths, an empty table, or no such reference."""
    words = kmer_names(k, letters)
    tables = _tables(counts, reference)
    for name, x in tables.items():
        if x.shape != (len(words),) or x.min() < 0 or not x.sum() > 0:
            raise InputError(
                f"{name} has counts of shape {x.shape}; expected ({len(words)},), one a {k}-mer, not all 0"
            )
    shares = {name: x / x.sum() for name, x in tables.items()}
    order = np.argsort(-shares[reference], kind="stable")[:top]
    figure, axes = page.axes(width=9.0, height=3.2)
    place = np.arange(len(order))
    axes.bar(place, shares[reference][order], color=REAL, alpha=0.45, width=0.9, label=reference)
    others = [pair for pair in _coloured(tables, reference) if pair[0] != reference]
    for i, (name, colour) in enumerate(others):
        axes.plot(place, shares[name][order], MARKERS[i % len(MARKERS)], color=colour, ms=3.5, label=name)
    if len(order) <= 64:
        axes.set_xticks(place, [words[i] for i in order], rotation=90, fontsize=7, family="monospace")
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{k}-mers, by their frequency in {reference}")
    axes.set(ylabel="share", xlim=(-1, len(order)))
    axes.margins(y=0.1)
    axes.legend(frameon=False)
    if note:
        axes.set_title(note, fontsize=9, loc="left")
    return figure


def guidance_curves(rows: Mapping[str, Sequence[tuple[float, ...]]], labels: Sequence[str]) -> Any:
    """What guidance gains and costs: one panel a label, the guidance strength across, a line for each named model.

    `rows[name]` holds (strength, (value, standard error) for each label ...) flattened: (gamma, v1, e1, v2, e2, ...).
    InputError where a row has another length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(labels), 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(labels)))
    for j, (name, points) in enumerate(rows.items()):
        if any(len(point) != 1 + 2 * len(labels) for point in points):
            raise InputError(f"{name}: expected (strength, value, error, ...) of {1 + 2 * len(labels)} numbers a point")
        table = np.array(sorted(points), np.float64)
        for i, axes in enumerate(panels):
            axes.errorbar(
                table[:, 0],
                table[:, 1 + 2 * i],
                table[:, 2 + 2 * i],
                color=COLOURS[j % len(COLOURS)],
                marker=MARKERS[j % len(MARKERS)],
                ms=4,
                lw=1.4,
                label=name,
            )
    for label, axes in zip(labels, panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlabel="guidance strength γ", ylabel=label)
    if len(rows) > 1:
        panels[0].legend(frameon=False)
    return figure


def _sheet(kind: str, smiles: Sequence[str], columns: int, legends: Sequence[str] | None) -> Any:
    texts = list(smiles)
    names = texts if legends is None else list(legends)
    if not texts or len(names) != len(texts) or columns < 1:
        raise InputError(
            f"got {len(texts)} SMILES, {len(names)} legends and {columns} columns; expected 1 or more of each"
        )
    with chemistry.quiet():
        from rdkit import Chem
        from rdkit.Chem.Draw import rdMolDraw2D

        molecules = [chemistry.parse(text) for text in texts]
        width, height = CELL
        columns = min(columns, len(texts))
        rows = -(-len(texts) // columns)
        canvas = getattr(rdMolDraw2D, f"MolDraw2D{kind}")(columns * width, rows * height, width, height)
        options = canvas.drawOptions()
        options.legendFontSize, options.padding, options.bondLineWidth = 13, 0.08, 1.5
        none = Chem.MolFromSmiles("*")  # RDKit gives no legend to a molecule without atoms
        none.GetAtomWithIdx(0).SetProp("_displayLabel", "no molecule")
        canvas.DrawMolecules([none if m is None else m for m in molecules], legends=[_short(name) for name in names])
        canvas.FinishDrawing()
        return canvas.GetDrawingText()


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _tables(values: Mapping[str, Any], reference: str | None) -> dict[str, np.ndarray]:
    tables = {name: np.asarray(x, np.float64).ravel() for name, x in values.items()}
    if reference is not None and reference not in tables:
        raise InputError(f"the reference {reference!r} is none of the sets {', '.join(tables)}")
    for name, x in tables.items():
        if not x.size or not np.isfinite(x).all():
            raise InputError(f"{name} has {x.size} numbers, {int((~np.isfinite(x)).sum())} not finite; leave those out")
    if not tables:
        raise InputError("there is nothing to draw; expected a name and numbers for each set")
    return tables


def _coloured(tables: Mapping[str, Any], reference: str | None) -> list[tuple[str, str]]:
    """Each set with its colour, the reference first, in grey."""
    others = [name for name in tables if name != reference]
    coloured = [(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(others)]
    return ([(reference, REAL)] if reference is not None else []) + coloured
