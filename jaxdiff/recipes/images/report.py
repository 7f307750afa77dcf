"""One self-contained page of a run: what it drew, how it got there, and what the figures are worth."""

import base64
import html
import io
import json
import math
from pathlib import Path

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.report import DIRECTION
from jaxdiff.recipes.images.pictures import grid, png, tile, unit
from jaxdiff.recipes.workdir import recall, write

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.7rem; margin-bottom: .25rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem }
p.lead, figcaption, .note { color: #667 } figure { margin: .5rem 0 } figcaption { font-size: .9rem }
img { max-width: 100%; background: #fff; border-radius: 4px } img.pixels { image-rendering: pixelated }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
pre { overflow: auto; background: #8881; padding: .8rem; font-size: .8rem }
"""

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
    result, pictures, log = _read(workdir)
    counts = result["metrics"]["counts"]
    parts = [
        f"<h1>{html.escape(_title(config, result))}</h1>",
        f"<p class=lead>{html.escape(_lead(result))}</p>",
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
        "".join(f"<p class=note>{html.escape(caveat)}</p>" for caveat in result["caveats"]),
        f"<p class=note>{html.escape(_note(result))}</p>",
    ]
    if result["curve"]:
        caption = (
            f"Frechet distance on {result['features']} of {counts['compared']:.0f} samples to "
            f"{counts['reference']:.0f} training images, all from the same starting noise. The band is what as many "
            "real images get, two standard deviations either way."
        )
        parts += ["<h2>Quality against denoiser calls</h2>", _plot(_curve(result), caption)]
    if found := _likelihood(workdir):
        parts += ["<h2>How likely it finds held-out images</h2>", _bits(found)]
        parts += [f"<p class=note>{html.escape(note)}</p>" for note in _about_bits(found)]
    if log:
        parts += ["<h2>Training</h2>", _plot(_loss(log), "Mean loss between log lines, per pixel.")]
    parts += ["<h2>Config</h2>", f"<pre>{html.escape(json.dumps(config, indent=2))}</pre>"]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(_title(config, result))}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )
    return write(workdir / "report.html", page)


def _read(workdir):
    if not (workdir / "metrics.json").exists() or not (workdir / "evaluation.npz").exists():
        raise InputError(f"{workdir} has not been evaluated; run: jaxdiff evaluate --workdir={workdir}")
    result = json.loads((workdir / "metrics.json").read_text())
    with np.load(workdir / "evaluation.npz") as arrays:
        pictures = dict(arrays)
    path = workdir / "log.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return result, pictures, [(row["step"], row["loss"]) for row in rows if "loss" in row]


def _likelihood(workdir):
    path = workdir / "likelihood.json"
    return json.loads(path.read_text()) if path.exists() else None


def _bits(found):
    head = "<tr><th>bits per dimension<th>mean<th>95 % interval<th>of it</tr>"

    def shown(value):
        return "–" if value is None else f"{value:.4f}"

    body = "".join(
        f"<tr><td>{BOUNDS[name]}<td>{shown(row['mean'])}<td>{' to '.join(map(shown, row['interval']))}"
        f"<td>{', '.join(f'{term} {shown(value)}' for term, value in row['terms'].items())}</tr>"
        for name, row in found["bits"].items()
    )
    return f"<table>{head}{body}</table>"


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
    head = "<tr><th>metric<th>samples<th>floor (real)<th>±<th>z<th>better</tr>"
    body = "".join(
        f"<tr><td>{MEANING[name]}<td>{row['value']:.4g}<td>{row['floor']:.4g}<td>{row['floor_std']:.2g}"
        f"<td>{'–' if row['z'] is None else format(row['z'], '+.1f')}<td>{BETTER[DIRECTION[name]]}</tr>"
        for name, row in rows.items()
        if name != "counts"
    )
    return f"<table>{head}{body}</table>"


def _image(picture, caption):
    return _figure(png(picture), caption, "pixels")


def _plot(figure, caption):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    return _figure(buffer.getvalue(), caption, "plot")


def _figure(content, caption, kind):
    data, text = base64.b64encode(content).decode(), html.escape(caption)
    image = f"<img class={kind} src='data:image/png;base64,{data}' alt='{text}'>"
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


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


def _axes(width=7.0, height=3.6):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curve(result):
    figure, axes = _axes()
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


def _loss(log):
    figure, axes = _axes(height=2.6)
    axes.plot(*zip(*log, strict=True), lw=1)
    axes.set(yscale="log", xlabel="step", ylabel="loss")
    return figure
