"""One self-contained page of a run on sequences: what it drew, what that is worth beside real data, and how it
trained."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.sequences import Pixels, Tokens
from jaxdiff.errors import InputError
from jaxdiff.metrics.kmers import kmer_counts
from jaxdiff.recipes import page
from jaxdiff.recipes.images.pictures import grid, png, unit
from jaxdiff.recipes.sequences import pictures
from jaxdiff.recipes.sequences.drawing import as_tokens
from jaxdiff.recipes.sequences.experiment import Experiment, build
from jaxdiff.recipes.workdir import recall, write

SHOWN = 24  # molecules, or lines


def report(workdir: str | Path) -> Path:
    """Write workdir/report.html from what `train` and `evaluate` left there; InputError when `evaluate` has not run."""
    workdir = Path(workdir)
    config = recall(workdir)
    if not (workdir / "metrics.json").exists() or not (workdir / "evaluation.npz").exists():
        raise InputError(f"{workdir} has not been evaluated; run: jaxdiff evaluate --workdir={workdir}")
    result = json.loads((workdir / "metrics.json").read_text())
    experiment = build(config)
    with np.load(workdir / "evaluation.npz") as arrays:
        drawn = as_tokens(experiment.train, arrays["tokens"], arrays.get("labels"))
    title = f"{result['data'].split('/')[0]}: {_model(config)}"
    parts = [
        page.head(title, _lead(result, experiment)),
        "<h2>Samples</h2>",
        *SAMPLES[result["kind"]](drawn),
        "<h2>Beside real data</h2>",
        *FIGURES[result["kind"]](result["metrics"], drawn, experiment),
    ]
    if result.get("by_guidance"):
        parts += ["<h2>By strength of guidance</h2>", *_by_guidance(result["by_guidance"], experiment)]
    if (workdir / "likelihood.json").exists():
        parts += ["<h2>How likely it finds held-out sequences</h2>", *_bits(workdir)]
    parts += [page.training(workdir, "token, in nats"), page.config(config)]
    return write(workdir / "report.html", page.page(title, parts))


def _model(config):
    if config["model"]["name"] == "autoregressive":
        return "autoregressive"
    return f"{config['process']['name']} noise"


def _lead(result, experiment):
    how = "token by token"
    if result["sampler"] and experiment.config["model"]["name"] == "diffusion":
        how = f"by {result['sampler']['name']}, {result['sampler'].get('steps', 'its own')} steps"
    guided = "" if result["guidance"] == 1 else f", guided with gamma {result['guidance']:g}"
    return f"Step {result['step']}. Samples {how}{guided}, with averaged parameters."


def _molecules(drawn: Tokens):
    yield page.figure(
        pictures.molecule_png(drawn.texts()[:SHOWN]), "Not chosen: the first that were drawn; what is none says so."
    )


def _lines(drawn: Tokens):
    named = drawn.class_names
    labels = [] if drawn.labels is None or not named else drawn.labels[:SHOWN].tolist()
    heads = [f"{named[label]}  " for label in labels] or [""] * SHOWN
    wide = max(map(len, heads))
    yield page.lines(f"{head:<{wide}}{text}" for head, text in zip(heads, drawn.texts()[:SHOWN], strict=False))
    yield page.note("Not chosen: the first that were drawn.")


def _images(drawn: Tokens):
    assert isinstance(drawn.tokeniser, Pixels)
    picture = grid(unit(drawn.tokeniser.pixels(drawn.tokens[:160]), drawn.vocab), max(drawn.num_classes, 1))
    yield page.figure(png(picture), "Not chosen: the first that were drawn, a row for each class.", "pixels")


def _molecule_figures(found, drawn, experiment):
    others = [found[name] for name in ("stderr", "held_out", "held_out_std")]
    rows = (
        (name, _shown(value), *(_shown(other.get(name)) for other in others))
        for name, value in found["samples"].items()
    )
    yield page.table(("", "samples", "±", "held out", "±"), rows)
    yield page.note(
        "Held out: the mean over draws of as many held-out molecules, and their standard deviation. Novelty is against "
        "the canonical SMILES of the training set."
    )
    from jaxdiff import chemistry

    seen = chemistry.describe(drawn.texts())
    for name, label in (("qed", "QED, drug-likeness"), ("rings", "rings")):
        values = {"samples": seen.properties[name], "held out": experiment.held_out.properties[name]}
        values = {key: np.asarray(x)[np.isfinite(x)] for key, x in values.items()}
        if len(values["samples"]):
            yield page.plot(
                pictures.property_histogram(values, label, reference="held out"), f"{label} of valid samples."
            )


def _dna_figures(found, drawn, experiment):
    rows = [
        [f"{name}, Jensen-Shannon distance", _shown(row["distance"]), _pair([row["floor"], row["floor_std"]])]
        for name, row in found.items()
        if name.endswith("mers")
    ]
    told = found["discriminator"]
    rows.append(["told from data (AUROC)", _pair(told["auroc"]), _pair(told["floor"])])
    if "classes" in found:
        both = [found["classes"][name] for name in ("samples", "held_out")]
        rows.append(["class found by a judge of words", *(_pair(row["accuracy"]) for row in both)])
        rows.append(["the same, macro F1", *(_shown(row["macro_f1"]) for row in both)])
        rows.append(["chance", *(_shown(row["chance"]) for row in both)])
    yield page.table(("", "samples", "held-out data"), rows)
    both = {"samples": drawn, "held out": experiment.held_out}
    tables = {name: kmer_counts(x.tokens, 3, drawn.vocab).sum(0) for name, x in both.items()}
    yield page.plot(pictures.kmer_histogram(tables, 3, reference="held out"), "Words of three letters.")


def _text_figures(found, drawn, experiment):
    rows = (
        (name.replace("_", " "), *(_pair(found[who][name]) for who in ("samples", "held_out")))
        for name in found["samples"]
    )
    yield page.table(("", "samples", "held-out text"), rows)


def _image_figures(found, drawn, experiment):
    rows = (
        (name, _shown(row["value"]), f"{_shown(row['floor'])} ± {_shown(row['floor_std'])}")
        for name, row in found.items()
        if name != "counts"
    )
    yield page.table(("metric", "samples", "floor (real)"), rows)


SAMPLES: dict[str, Any] = {"molecules": _molecules, "dna": _lines, "text": _lines, "images": _images}
FIGURES: dict[str, Any] = {
    "molecules": _molecule_figures,
    "dna": _dna_figures,
    "text": _text_figures,
    "images": _image_figures,
}


def _by_guidance(rows, experiment: Experiment):
    names, counts = list(rows[0]["means"]), ("valid", "unique", "novel")
    kinds = [(kind, name) for kind in ("means", "novel_means") for name in names]
    yield page.table(
        ("gamma", *counts, *names, *(f"{name} of novel" for name in names)),
        (
            (f"{row['gamma']:g}", *(str(row[each]) for each in counts), *(_pair(row[a][b]) for a, b in kinds))
            for row in rows
        ),
    )
    wanted = experiment.train.class_names[experiment.config["evaluate"]["label"]]
    yield page.note(f"Of {rows[0]['samples']} samples asked to have {wanted}.")
    goal, n = wanted.split()[0], rows[0]["samples"]
    points = []
    for row in rows:
        if row["means"].get(goal) and row["means"][goal][1] is not None:
            share = row["valid"] / n
            points.append((row["gamma"], *row["means"][goal][:2], share, math.sqrt(share * (1 - share) / n)))
    if points:
        curves = pictures.guidance_curves({"samples": points}, (goal, "valid"))
        yield page.plot(curves, "What guidance gains and what it costs, with standard errors.")


def _bits(workdir):
    found = json.loads((workdir / "likelihood.json").read_text())
    kind = "exactly" if found["exact"] else "at most (a bound)"
    rows = [
        (f"bits per token, {kind}", f"{found['bits']:.4f} ± {found['stderr']:.4f}"),
        ("perplexity", f"{found['perplexity']:.4f} ± {found['perplexity_stderr']:.4f}"),
    ]
    yield page.table(("", ""), rows)
    yield page.note(
        f"Of {found['sequences']} held-out sequences, {found['tokens']} tokens; the error is over sequences."
    )


def _pair(estimate):
    """A value and its standard error."""
    return f"{_shown(estimate[0])} ± {_shown(estimate[1])}"


def _shown(value):
    return "–" if value is None else f"{value:.4g}"
