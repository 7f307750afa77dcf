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
from jaxdiff.metrics.report import DIRECTION
from jaxdiff.recipes import page
from jaxdiff.recipes.images.pictures import grid, png, unit
from jaxdiff.recipes.images.report import BETTER, MEANING
from jaxdiff.recipes.sequences import pictures
from jaxdiff.recipes.sequences.drawing import as_tokens
from jaxdiff.recipes.sequences.experiment import build
from jaxdiff.recipes.workdir import recall, write

SHOWN = 24  # molecules, or lines


def report(workdir: str | Path) -> Path:
    """Write workdir/report.html from what `train` and `evaluate` left there; InputError when `evaluate` has not run."""
    workdir = Path(workdir)
    config = recall(workdir)
    result = json.loads((workdir / "metrics.json").read_text()) if (workdir / "metrics.json").exists() else None
    if result is None or not (result["kind"] == "classifier" or (workdir / "evaluation.npz").exists()):
        raise InputError(f"{workdir} has not been evaluated; run: jaxdiff evaluate --workdir={workdir}")
    experiment = build(config)
    if result["kind"] == "classifier":
        return _verdicts(workdir, config, result)
    with np.load(workdir / "evaluation.npz") as arrays:
        drawn = as_tokens(experiment.train, arrays["tokens"], arrays.get("labels"), result["classes"])
    title = f"{result['data'].split('/')[0]}: {_model(config)}"
    parts = [
        page.head(title, _lead(result, experiment)),
        "<h2>Samples</h2>",
        *SAMPLES[result["kind"]](drawn),
        "<h2>Beside real data</h2>",
        *FIGURES[result["kind"]](result["metrics"], drawn, experiment),
    ]
    if result.get("by_guidance"):
        parts += [
            "<h2>By strength of guidance</h2>",
            *_by_guidance(result["by_guidance"], result["classes"][config["evaluate"]["label"]]),
        ]
    if (workdir / "likelihood.json").exists():
        parts += ["<h2>How likely it finds held-out sequences</h2>", *_bits(workdir)]
    parts += [page.training(workdir, "token, in nats"), page.config(config)]
    return write(workdir / "report.html", page.page(title, parts))


def _verdicts(workdir, config, result):
    """The page of a classifier."""
    title = f"{result['data'].split('/')[0]}: a classifier of {result['reads']} tokens"
    found = result["metrics"]
    parts = [
        page.head(title, f"Step {result['step']}, with averaged parameters."),
        "<h2>How well it finds classes</h2>",
        page.table(
            ("shown", "right", "-log p of the class, nats"),
            ((row["shown"], page.pair(row["accuracy"]), page.pair(row["nats"])) for row in found["rows"]),
        ),
        page.note(
            f"Of {found['sequences']} held-out sequences. To say the commonest class always is right in "
            f"{page.shown(found['chance'])} of them."
        ),
        page.training(workdir, "sequence, in nats"),
        page.config(config),
    ]
    return write(workdir / "report.html", page.page(title, parts))


def _model(config):
    if config["model"]["name"] == "autoregressive":
        return "autoregressive"
    return f"{config['process']['name']} noise"


def _lead(result, experiment):
    how = "token by token"
    if result["sampler"] and experiment.config["model"]["name"] == "diffusion":
        how = f"by {result['sampler']['name']}, {result['sampler'].get('steps', 'its own')} steps"
    way = "" if result["steering"]["name"] == "auto" else f" ({', '.join(map(str, result['steering'].values()))})"
    asked = f" by {result['guide']}{way}" if result["guide"] else ""
    guided = "" if result["guidance"] == 1 and not asked else f", guided{asked} with gamma {result['guidance']:g}"
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
        (name, page.shown(value), *(page.shown(other.get(name)) for other in others))
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
        [f"{name}, Jensen-Shannon distance", page.shown(row["distance"]), page.pair([row["floor"], row["floor_std"]])]
        for name, row in found.items()
        if name.endswith("mers")
    ]
    told = found["discriminator"]
    rows.append(["told from data (AUROC)", page.pair(told["auroc"]), page.pair(told["floor"])])
    if "classes" in found:
        both = [found["classes"][name] for name in ("samples", "held_out")]
        rows.append(["class found by a judge of words", *(page.pair(row["accuracy"]) for row in both)])
        rows.append(["the same, macro F1", *(page.shown(row["macro_f1"]) for row in both)])
        rows.append(["by chance: the commonest class", *(page.shown(row["chance"]) for row in both)])
        rows.append(["p of so many right by chance", f"{both[0]['p_value']:.2g}", ""])
    yield page.table(("", "samples", "held-out data"), rows)
    yield page.note(
        "Held-out data in the distances and the AUROC: as many held-out sequences in the samples' place, which is the "
        "floor. Chance differs where samples are of all classes alike, and the data are not."
    )
    both = {"samples": drawn, "held out": experiment.held_out}
    tables = {name: kmer_counts(x.tokens, 3, drawn.vocab).sum(0) for name, x in both.items()}
    yield page.plot(pictures.kmer_histogram(tables, 3, reference="held out"), "Words of three letters.")


def _text_figures(found, drawn, experiment):
    rows = (
        (name.replace("_", " "), *(page.pair(found[who][name]) for who in ("samples", "held_out")))
        for name in found["samples"]
    )
    yield page.table(("", "samples", "held-out text"), rows)


def _image_figures(found, drawn, experiment):
    rows = (
        (MEANING[name], page.shown(row["value"]), page.pair([row["floor"], row["floor_std"]]), BETTER[DIRECTION[name]])
        for name, row in found.items()
        if name != "counts"
    )
    yield page.table(("metric", "samples", "floor (real)", "better"), rows)


SAMPLES: dict[str, Any] = {"molecules": _molecules, "dna": _lines, "text": _lines, "images": _images}
FIGURES: dict[str, Any] = {
    "molecules": _molecule_figures,
    "dna": _dna_figures,
    "text": _text_figures,
    "images": _image_figures,
}


def _by_guidance(rows, wanted):
    names, counts = list(rows[0]["means"]), ("valid", "unique", "novel")
    kinds = [(kind, name) for kind in ("means", "novel_means") for name in names]
    yield page.table(
        ("gamma", *counts, *names, *(f"{name} of novel" for name in names)),
        (
            (f"{row['gamma']:g}", *(str(row[each]) for each in counts), *(page.pair(row[a][b]) for a, b in kinds))
            for row in rows
        ),
    )
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
