"""Molecules as SMILES."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdiff import chemistry
from jaxdiff.data.sequences import Tokens
from jaxdiff.domains import page, plots
from jaxdiff.domains.domain import Say
from jaxdiff.domains.sequences import SHOWN, Sequences
from jaxdiff.metrics import molecules

SHEET = 60  # molecules of a picture
PROPERTIES = {"qed": "QED, drug-likeness", "rings": "rings"}


class Molecules(Sequences):
    """Molecules, by atoms, bonds and rings."""

    kind: ClassVar[str] = "molecules"
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".npz", ".png", ".svg")

    def content(self, suffix: str, x: np.ndarray, labels: np.ndarray | None, period: int) -> str | bytes:
        """A .txt of SMILES, an .npz of `tokens` and `labels`, or a sheet of molecules as .png or .svg."""
        draw = {".svg": plots.molecule_svg, ".png": plots.molecule_png}.get(suffix)
        if draw is None:
            return super().content(suffix, x, labels, period)
        return draw(self.tokens(x).texts()[:SHEET])

    def compare(self, x: Any, labels: Any, train: Tokens, held_out: Tokens, *, seed: int, say: Say) -> dict[str, Any]:
        """Validity, uniqueness, novelty, drug-likeness and rings, and what as many held-out molecules have."""
        known = molecules.canonical_set(train.texts())
        found = molecules.measure(self.tokens(x).texts(), known)
        real = held_out.texts()
        floor = molecules.floors(real, min(len(x), len(real)), known, key=jax.random.key(seed))
        say(molecules.as_text(found, floor))
        errors = {"validity": found.validity.stderr} | {f"{name}/mean": e.stderr for name, e in found.means.items()}
        errors |= {f"{name}/novel mean": e.stderr for name, e in found.novel_means.items()}
        return {"samples": molecules.flat(found), "stderr": errors, "held_out": floor.mean, "held_out_std": floor.std}

    def shown_real(self, held_out: Tokens) -> dict[str, np.ndarray]:
        """The properties of held-out molecules."""
        return {name: held_out.properties[name] for name in PROPERTIES if name in held_out.properties}

    def show(self, x: np.ndarray, labels: np.ndarray | None) -> Iterator[str]:
        """The first samples as a sheet."""
        sheet = plots.molecule_png(self.tokens(x).texts()[:SHOWN])
        yield page.figure(sheet, "Not chosen: the first that were drawn; what is none says so.")

    def figures(self, found: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[str]:
        """Samples beside held-out molecules, and histograms of their properties."""
        others = [found[name] for name in ("stderr", "held_out", "held_out_std")]
        rows = (
            (name, page.shown(value), *(page.shown(other.get(name)) for other in others))
            for name, value in found["samples"].items()
        )
        yield page.table(("", "samples", "±", "held out", "±"), rows)
        yield page.note(
            "Held out: the mean over draws of as many held-out molecules, and their standard deviation. Novelty is "
            "against the canonical SMILES of the training set."
        )
        seen = chemistry.describe(self.tokens(arrays["tokens"]).texts())
        for name, label in PROPERTIES.items():
            values = {"samples": seen.properties[name]}
            values |= {"held out": arrays[name]} if name in arrays else {}
            values = {key: np.asarray(x)[np.isfinite(x)] for key, x in values.items()}
            if len(values["samples"]):
                reference = "held out" if name in arrays else None
                histogram = plots.property_histogram(values, label, reference=reference)
                yield page.plot(histogram, f"{label} of valid samples.")
