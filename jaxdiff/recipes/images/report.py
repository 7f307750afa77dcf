"""One self-contained page of a run: what it drew, how it got there, and what the figures are worth."""

import json
import math
from pathlib import Path

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.report import DIRECTION
from jaxdiff.recipes import page
from jaxdiff.recipes.images import theory_page
from jaxdiff.recipes.images.pictures import grid, png, tile, unit
from jaxdiff.recipes.workdir import recall, write

MEANING = {
    "frechet": "Frechet distance",
    "kernel": "kernel distance (cubic)",
    "rbf": "kernel distance (RBF)",
    "sliced": "sliced Wasserstein",
    "precision": "precision: samples within the data",
    "recall": "recall: data within the samples",
    "density": "density",
    "coverage": "coverage",
    "nearest": "median distance to the nearest training image",
    "closer_to_train": "closer to training than to held-out data",
    "class_agreement": "a 3-nearest-neighbour classifier sees the class asked for",
}
SAMPLERS = {"euler": "Euler", "edm": "Heun (EDM)", "ddim": "DDIM", "dpmpp_2m": "DPM-Solver++(2M)"}
BOUNDS = {"elbo": "variational bound (reverse SDE)", "flow": "probability flow"}
ROWS, COLUMNS = 20, 16  # of the samples shown
BETTER = {1.0: "higher", -1.0: "lower", 0.0: "at the floor"}


def report(workdir: str | Path) -> Path:
    """Write workdir/report.html from what `train` and `evaluate` left there; InputError when `evaluate` has not run."""
    workdir = Path(workdir)
    config = recall(workdir)
    result, pictures = _read(workdir)
    counts = result["metrics"]["counts"]
    parts = [
        page.head(_title(config, result), _lead(result)),
        "<h2>Samples</h2>",
        _image(*_samples(unit(pictures["samples"], int(pictures["levels"])), int(pictures["classes"]))),
        "<h2>From noise to data</h2>",
        _image(
            _strip(pictures),
            "Each pair of rows is one sample. Above: x_t, scaled to be seen; below: the clean image that the model "
            "believes in. Noise falls from left to right.",
        ),
        "<h2>How good, beside real data</h2>",
        _table(result["metrics"]),
        *map(page.note, result["caveats"]),
        page.note(_note(result)),
    ]
    if result["curve"]:
        caption = (
            f"Frechet distance on {result['features']} of {counts['compared']:.0f} samples to "
            f"{counts['reference']:.0f} training images, all from the same starting noise. The band is what as many "
            "real images get, two standard deviations either way."
        )
        parts += ["<h2>Quality against denoiser calls</h2>", page.plot(_curve(result), caption)]
    if found := _likelihood(workdir):
        parts += ["<h2>How likely it finds held-out images</h2>", _bits(found)]
        parts += map(page.note, _about_bits(found))
    if (workdir / "theory.json").exists():
        parts += theory_page.parts(json.loads((workdir / "theory.json").read_text()))
    parts += [page.training(workdir, "pixel"), page.config(config)]
    return write(workdir / "report.html", page.page(_title(config, result), parts))


def _read(workdir):
    if not (workdir / "metrics.json").exists() or not (workdir / "evaluation.npz").exists():
        raise InputError(f"{workdir} has not been evaluated; run: jaxdiff evaluate --workdir={workdir}")
    result = json.loads((workdir / "metrics.json").read_text())
    with np.load(workdir / "evaluation.npz") as arrays:
        return result, dict(arrays)


def _likelihood(workdir):
    path = workdir / "likelihood.json"
    return json.loads(path.read_text()) if path.exists() else None


def _bits(found):
    def shown(value):
        return "–" if value is None else f"{value:.4f}"

    rows = (
        (
            BOUNDS[name],
            shown(row["mean"]),
            " to ".join(map(shown, row["interval"])),
            ", ".join(f"{term} {shown(value)}" for term, value in row["terms"].items()),
        )
        for name, row in found["bits"].items()
    )
    return page.table(("bits per dimension", "mean", "95 % interval", "of it"), rows)


def _about_bits(found):
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


def _title(config, result):
    return f"{result['data'].split('/')[0]}: {config['process']['name']} process, {config['row']['name']} row"


def _lead(result):
    options = ", ".join(f"{key} {value}" for key, value in result["sampler"].items() if key != "name")
    sampler = result["sampler"]["name"] + (f" ({options})" if options else "")
    return f"Step {result['step']}. Samples by {sampler} with averaged parameters."


def _note(result):
    counts = result["metrics"]["counts"]
    return (
        f"Features: {result['features']}. Every figure compares {counts['compared']:.0f} images with "
        f"{counts['reference']:.0f}. The floor is the same figure for real images at the same counts, mean and "
        "standard deviation over random splits; z is the distance from it in those standard deviations. These figures "
        "are not FID, and compare with no published figure."
    )


def _table(rows):
    body = (
        (
            MEANING[name],
            f"{row['value']:.4g}",
            f"{row['floor']:.4g}",
            f"{row['floor_std']:.2g}",
            "–" if row["z"] is None else f"{row['z']:+.1f}",
            BETTER[DIRECTION[name]],
        )
        for name, row in rows.items()
        if name != "counts"
    )
    return page.table(("metric", "samples", "floor (real)", "±", "z", "better"), body)


def _image(picture, caption):
    return page.figure(png(picture), caption, "pixels")


def _samples(images, classes):
    """The picture and its caption: a row for each class, where there are two images of each."""
    caption = "Not chosen: the first that were drawn"
    if classes < 2 or len(images) < 2 * classes:
        return grid(images[:144]), f"{caption}."
    row = "a row for each class" if classes <= ROWS else f"a row for each of the first {ROWS} of {classes} classes"
    return grid(images, classes, rows=ROWS, columns=COLUMNS), f"{caption}, {row}."


def _strip(pictures):
    path, beliefs = pictures["path"][:, :-1], pictures["beliefs"]
    scale = np.abs(path).max(axis=(2, 3, 4), keepdims=True)
    noisy = 0.5 + 0.5 * path / np.maximum(scale, 1)
    rows = np.stack([noisy, np.clip(0.5 + 0.5 * beliefs, 0, 1)], axis=1)
    return tile(rows.reshape(-1, *rows.shape[2:]))


def _curve(result):
    figure, axes = page.axes()
    mean, std = (result["metrics"]["frechet"][field] for field in ("floor", "floor_std"))
    for (name, rows), marker in zip(result["curve"].items(), "osd^", strict=False):
        calls, distances = zip(*rows, strict=True)
        axes.plot(calls, distances, marker=marker, label=SAMPLERS[name])
    axes.axhspan(max(mean - 2 * std, 0.1 * mean), mean + 2 * std, color="gray", alpha=0.3, lw=0, label="real data")
    axes.set(xscale="log", yscale="log", xlabel="denoiser calls", ylabel="Frechet distance")
    ticks = sorted({call for rows in result["curve"].values() for call, _ in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure
