"""One self-contained page of a run: what it drew, how it got there, and what the figures are worth."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.report import DIRECTION

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.7rem; margin-bottom: .25rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem }
p.lead, figcaption, .note { color: #667 } figure { margin: .5rem 0 } figcaption { font-size: .9rem }
img { max-width: 100%; background: #fff; border-radius: 4px } img.pixels { image-rendering: pixelated }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left } pre { overflow: auto; background: #8881; padding: .8rem; font-size: .8rem }
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
BETTER = {1.0: "higher", -1.0: "lower", 0.0: "at the floor"}


def report(workdir: str | Path) -> Path:
    """Write workdir/report.html from what `train` and `evaluate` left there; InputError when `evaluate` has not run."""
    workdir = Path(workdir)
    result, pictures, log = _read(workdir)
    config = json.loads((workdir / "config.json").read_text())
    parts = [
        f"<h1>{html.escape(_title(config, result))}</h1>",
        f"<p class=lead>{html.escape(_lead(config, result))}</p>",
        "<h2>Samples</h2>",
        _figure(_grid(pictures["samples"], pictures["labels"]), _grid_caption(pictures["labels"]), "pixels"),
        "<h2>From noise to data</h2>",
        _figure(
            _strip(pictures),
            "Each pair of rows is one sample. Above: x_t, scaled to be seen; below: the clean image that the model "
            "believes in. Noise falls from left to right.",
            "pixels",
        ),
        "<h2>How good, beside real data</h2>",
        _table(result["metrics"]),
        "".join(f"<p class=note>{html.escape(caveat)}</p>" for caveat in result["caveats"]),
        _note(result),
    ]
    if result["curve"]["frechet"]:
        caption = (
            f"Frechet distance on {result['features']} of {result['curve']['samples']} samples to the training set, all "
            "from the same starting noise. The band is what as many real images get."
        )
        parts += ["<h2>Quality against denoiser calls</h2>", _figure(_curve(result["curve"]), caption)]
    parts += [
        "<h2>Training</h2>",
        _figure(_loss(log), "Mean loss between log lines, per pixel."),
        "<h2>Config</h2>",
        f"<pre>{html.escape(json.dumps(config, indent=2))}</pre>",
    ]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(_title(config, result))}</title><style>{STYLE}</style>{''.join(parts)}</html>\n"
    )
    draft = workdir / "report.html.tmp"
    draft.write_text(page, encoding="utf-8")
    return draft.replace(workdir / "report.html")


def _read(workdir):
    if not (workdir / "metrics.json").exists() or not (workdir / "evaluation.npz").exists():
        raise InputError(f"{workdir} has not been evaluated; run: jaxdiff evaluate --workdir={workdir}")
    result = json.loads((workdir / "metrics.json").read_text())
    with np.load(workdir / "evaluation.npz") as arrays:
        pictures = dict(arrays)
    log = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return result, pictures, log


def _title(config, result):
    return f"{result['data'].split('/')[0]}: {config['process']['name']} process, {config['row']['name']} row"


def _lead(config, result):
    sampler = ", ".join(f"{key} {value}" for key, value in result["sampler"].items() if key != "name")
    return f"Step {result['step']}. Samples by {result['sampler']['name']} ({sampler}) with averaged parameters."


def _note(result):
    counts = result["metrics"]["counts"]
    return (
        f"<p class=note>Features: {html.escape(result['features'])}. Every figure compares {counts['compared']:.0f} images "
        f"with {counts['reference']:.0f}. The floor is the same figure for real images at the same counts, mean and "
        "standard deviation over random splits; z is the distance from it in those standard deviations. These distances "
        "are not FID, and compare with no published figure.</p>"
    )


def _table(rows):
    head = "<tr><th>metric<th>samples<th>floor (real)<th>±<th>z<th>better</tr>"
    body = "".join(
        f"<tr><td>{MEANING[name]}<td>{row['value']:.4g}<td>{row['floor']:.4g}<td>{row['floor_std']:.2g}"
        f"<td>{row['z']:+.1f}<td>{BETTER[DIRECTION[name]]}</tr>"
        for name, row in rows.items()
        if name != "counts"
    )
    return f"<table>{head}{body}</table>"


def _figure(figure: Any, caption: str, kind: str = "") -> str:
    """An <img> of a matplotlib figure, or of an array of pixels, with its caption."""
    from matplotlib import image

    buffer = io.BytesIO()
    if isinstance(figure, np.ndarray):
        image.imsave(buffer, figure, cmap="gray", vmin=0, vmax=1, format="png")
    else:
        figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(caption)
    return f"<figure><img class='{kind}' src='data:image/png;base64,{data}' alt='{alt}'><figcaption>{alt}</figcaption></figure>"


def _tile(images, gap=1, zoom=None):
    """(rows, columns, H, W, C) in [0, 1] -> one picture with white gaps, enlarged by whole factors to some 800 pixels."""
    rows, columns, height, width, channels = images.shape
    padded = np.ones((rows, columns, height + gap, width + gap, channels), np.float32)
    padded[:, :, :height, :width] = images
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), channels)
    zoom = zoom or max(1, 800 // picture.shape[1])
    picture = np.kron(picture, np.ones((zoom, zoom, 1), np.float32))
    return picture[..., 0] if channels == 1 else picture


def _grid(samples, labels, columns=16):
    """A row of samples for each class."""
    unit = samples.astype(np.float32) / max(int(samples.max()), 1)
    classes = np.unique(labels)
    if len(classes) == 1:
        columns = min(columns, len(unit))
        rows = min(10, len(unit) // columns)
        return _tile(unit[: rows * columns].reshape(rows, columns, *unit.shape[1:]))
    classes = classes[:20]
    columns = min(columns, *(int((labels == c).sum()) for c in classes))
    return _tile(np.stack([unit[labels == c][:columns] for c in classes]))


def _grid_caption(labels):
    classes = np.unique(labels)
    return "Not chosen: the first that were drawn" + (", a row for each class." if len(classes) > 1 else ".")


def _strip(pictures):
    path, beliefs = pictures["path"][:, :-1], pictures["beliefs"]
    scale = np.abs(path).max(axis=(2, 3, 4), keepdims=True)
    noisy = 0.5 + 0.5 * path / np.maximum(scale, 1)
    rows = np.stack([noisy, np.clip(0.5 + 0.5 * beliefs, 0, 1)], axis=1)
    return _tile(rows.reshape(-1, *rows.shape[2:]))


def _axes(width=7.0, height=3.6):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curve(curve):
    figure, axes = _axes()
    mean, std = curve["floor"]
    for (name, rows), marker in zip(curve["frechet"].items(), "osd^", strict=False):
        calls, distances = zip(*rows, strict=True)
        axes.plot(calls, distances, marker=marker, label=SAMPLERS[name])
    axes.axhspan(mean - 2 * std, mean + 2 * std, color="gray", alpha=0.3, lw=0, label="real data")
    axes.set(xscale="log", yscale="log", xlabel="denoiser calls", ylabel="Frechet distance")
    ticks = sorted({call for rows in curve["frechet"].values() for call, _ in rows})
    axes.set_xticks(ticks, [str(int(tick)) for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure


def _loss(log):
    figure, axes = _axes(height=2.6)
    rows = [(row["step"], row["loss"]) for row in log if "loss" in row]
    axes.plot(*zip(*rows, strict=True), lw=1)
    axes.set(yscale="log", xlabel="step", ylabel="loss")
    return figure
