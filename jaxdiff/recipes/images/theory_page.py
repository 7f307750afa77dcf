"""The part of an image run's report that `jaxdiff evaluate --measure=theory` fills."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdiff.domains import page

LEAST = 1e-5  # error that is drawn
GRIDS = {"karras": "Karras (rho 7)", "logsnr": "exponential", "vp": "VP", "optimal": "fitted to this model's error"}


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Excess loss, error budget and memorisation, as HTML."""
    yield "<h2>What it has learnt, beside the optimum of its training set</h2>"
    yield page.plot(
        _excess(found["excess"]),
        f"Squared error of the predicted noise, per pixel, of {found['images']} training and as many held-out images, "
        "with standard errors. The optimum remembers every training image: its loss is the least there is on them. "
        "Where the network is above it on training images and below it on held-out ones, it generalises.",
    )
    yield page.table(
        ("mean over levels", "loss", "of the optimum", "excess", "distance from the optimum"),
        (
            (
                name.replace("_", "-") + " images",
                *(
                    page.pair(found["excess"][name][each]["mean"])
                    for each in ("loss", "irreducible", "excess", "distance")
                ),
            )
            for name in ("train", "held_out")
        ),
    )
    yield "<h2>Where the sampling error would come from</h2>"
    budget = found["budget"]
    yield page.table(
        ("grid", "initialisation", "discretisation", "score", "bound on the KL, nats"),
        (
            (
                GRIDS[name],
                *(page.pair(row[each]) for each in ("initialisation", "discretisation", "score", "bound")),
            )
            for name, row in budget["grids"].items()
        ),
    )
    yield page.note(
        f"Of a walk of {budget['steps']} steps with the score frozen over each, from noise level {budget['ends'][1]:g} "
        f"to {budget['ends'][0]:g}, with {budget['law']}, noised, as the law: the score term is the distance "
        "from remembering it, which a network that generalises keeps."
    )
    yield "<h2>Does it remember?</h2>"
    yield page.table(("", "samples", "knowing nothing"), _remembered(found["memorization"]))
    yield page.note(
        f"Of {found['memorization']['samples']} samples. A copy is three times nearer to its nearest training image "
        "than to the second. Delta is D2(samples, training set) - D2(samples, held-out set), D2 the squared distance "
        f"of densities with Gaussian kernels, of as many images each, over the size of its terms: -1/2 is the training "
        "set itself, 1/2 the held-out one, below 0 nearer to the first."
    )


def _remembered(found):
    yield "nearest to a training image", page.shown(found["closer"]), page.shown(found["null"])
    yield "the same, from 0 (knowing nothing) to 1", page.shown(found["excess"]), f"0 ± {found['excess_std']:.2g}"
    yield "copies of a training image", page.shown(found["copies"]), f"{page.shown(found['copies_null'])} (held-out)"
    yield "Delta, relative", f"{found['delta_relative']:+.3g}", "0"


def _excess(found):
    drawn, axes = page.axes()
    lines = {
        "network, training images": ("train", "loss", "C0", "-"),
        "network, held-out images": ("held_out", "loss", "C1", "-"),
        "optimum of the training set, on it": ("train", "irreducible", "C0", ":"),
        "the same, held-out images": ("held_out", "irreducible", "C1", ":"),
    }
    for label, (images, each, color, style) in lines.items():
        curve = found[images][each]
        axes.errorbar(found["levels"], curve["value"], curve["stderr"], label=label, color=color, ls=style, capsize=2)
    axes.set(xscale="log", yscale="log", xlabel="noise level sigma / alpha", ylabel="squared error of the noise")
    # Where only one image is near enough to count, the optimum's error is rounding.
    axes.set_ylim(bottom=max(axes.get_ylim()[0], LEAST))
    axes.legend(frameon=False)
    return drawn
