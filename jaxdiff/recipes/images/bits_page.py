"""The part of an image run's report that `jaxdiff evaluate --measure=likelihood` fills."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.domains import page

BOUNDS = {"elbo": "variational bound (reverse SDE)", "flow": "probability flow"}


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Bits per dimension of held-out images, as HTML."""
    yield "<h2>How likely it finds held-out images</h2>"
    rows = (
        (
            BOUNDS[name],
            _shown(row["mean"]),
            " to ".join(map(_shown, row["interval"])),
            ", ".join(f"{term} {_shown(value)}" for term, value in row["terms"].items()),
        )
        for name, row in found["bits"].items()
    )
    yield page.table(("bits per dimension", "mean", "95 % interval", "of it"), rows)
    yield from map(page.note, about(found))


def about(found: Mapping[str, Any]) -> Iterator[str]:
    """What the figures are of, how far apart the two are, and which have failed."""
    draws = "one draw" if found["draws"] == 1 else f"{found['draws']} draws"
    how = "spread uniformly over their cells" if found["dequantized"] else "with the discrete decoder"
    yield (
        f"Of {found['images']} held-out images of {found['levels']} grey levels (a uniform guess: "
        f"{math.log2(found['levels']):.4f}), {how}, at step {found['step']}, {draws} of the noise each. "
        "The interval is over images. Lower is better."
    )
    gap = found["elbo_minus_flow"]
    if gap["mean"] is not None and gap["stderr"] is not None:
        yield (
            f"The bound is {gap['mean']:+.4f} +- {gap['stderr']:.4f} bits/dim from the flow's figure, image by image: "
            "two models of one network, the reverse SDE and the probability flow, which agree where its score is exact."
        )
    for name, row in found["bits"].items():
        if row["failed"]:
            yield f"{BOUNDS[name]}: {row['failed']} solves failed, so there is no mean; loosen config.likelihood.rtol."


def _shown(value):
    return "–" if value is None else f"{value:.4f}"
