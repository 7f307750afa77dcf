"""Draw from a trained model of sequences, and measure what was drawn beside what real data get.

workdir/metrics.json      every figure with its floor; the guided property by strength, where the config asks
workdir/evaluation.npz    the samples that the report shows"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, metrics
from jaxdiff.data.sequences import Pixels, Tokens
from jaxdiff.errors import InputError
from jaxdiff.metrics import classification, kmers, molecules, text
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.sequences.drawing import as_tokens, classes, kind, samples
from jaxdiff.recipes.sequences.experiment import Experiment
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.run import advised, load
from jaxdiff.recipes.sequences.verdicts import verdicts
from jaxdiff.recipes.workdir import npz, plain, write

Say = Callable[[str], Any]
JUDGED = 4  # letters of the words by which a cell type is told
PENALTY = 100.0  # of the judge, on some hundreds of words


def evaluate(
    workdir: str | Path,
    *,
    guide: str | Path | None = None,
    steering: Mapping[str, Any] | None = None,
    seed: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Measure the newest checkpoint of `workdir` as its config's `evaluate` says; writes and returns metrics.json.

    `guide`, a classifier's folder, and `steering` stand in for the config's; a run that is a classifier itself is asked
    for the classes of held-out sequences. What is not a finite number is None. Raises InputError where there is no
    checkpoint, or its samples or the held-out data are too few."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    settings = experiment.config["evaluate"]
    if isinstance(experiment.model, Judge):
        return _written(workdir, {"step": step} | verdicts(experiment, params, seed=seed, say=say))
    chosen: Any = {"guide": advised(workdir, experiment, guide), "steering": steering}
    told = experiment.null is not None or chosen["guide"] is not None
    if settings["guidance"] and not (told and kind(experiment.train) == "molecules"):
        raise InputError(
            "config.evaluate.guidance measures a property of molecules by the strength of guidance: it needs a data "
            "set with a label, such as qm9 with label='qed', or a guide; leave it empty"
        )
    if settings["guidance"] and settings["label"] < 0:
        raise InputError(
            "config.evaluate.guidance measures samples of one class, and config.evaluate.label is -1, all in turn: "
            "name one, such as --config.evaluate.label=1"
        )
    drawn = draw(experiment, params, settings["samples"], seed=seed, step=step, **chosen)
    say(f"measuring {len(drawn)} samples beside {len(experiment.held_out)} held-out sequences")
    found = MEASURES[kind(experiment.train)](experiment, drawn, seed, say)
    result: Any = {
        "step": step,
        "data": experiment.train.name,
        "kind": kind(experiment.train),
        "sampler": experiment.config["sample"]["sampler"],
        "guidance": experiment.config["sample"]["guidance"],
        "guide": str(guide or experiment.config["sample"]["guide"]),
        "steering": steering or experiment.config["sample"]["steering"],
        "classes": classes(drawn),
        "metrics": found,
    }
    if settings["guidance"]:
        options = {"seed": seed, "step": step, "say": say} | chosen
        result["by_guidance"] = by_guidance(experiment, params, settings["guidance"], **options)
    labels = {} if drawn.labels is None else {"labels": drawn.labels}
    write(workdir / "evaluation.npz", npz({"tokens": drawn.tokens} | labels))
    return _written(workdir, result)


def _written(workdir, result):
    result = plain(result)
    write(workdir / "metrics.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def draw(
    experiment: Experiment, params: Any, n: int, *, seed: int, step: int, gamma: float | None = None, **options: Any
) -> Tokens:
    """n samples of the config's class (all in turn, unless it names one), as a set that reads like the data."""
    label, guide = experiment.config["evaluate"]["label"], options.get("guide")
    told = experiment.train if guide is None else guide[0].train
    labels = None if label < 0 or not told.num_classes else np.full(n, label)
    named = "" if gamma is None else f", gamma {gamma:g}"
    progress = counter(f"drawing from step {step}{named}:")
    tokens, labels = samples(experiment, params, n, seed=seed, labels=labels, gamma=gamma, progress=progress, **options)
    return as_tokens(told, tokens, labels)


def of_molecules(experiment: Experiment, drawn: Tokens, seed: int, say: Say) -> dict[str, Any]:
    """Validity, uniqueness, novelty, drug-likeness and rings, and what as many held-out molecules have."""
    known = molecules.canonical_set(experiment.train.texts())
    found = molecules.measure(drawn.texts(), known)
    held_out = experiment.held_out.texts()
    floor = molecules.floors(held_out, min(len(drawn), len(held_out)), known, key=jax.random.key(seed))
    say(molecules.as_text(found, floor))
    errors = {"validity": found.validity.stderr} | {f"{name}/mean": e.stderr for name, e in found.means.items()}
    errors |= {f"{name}/novel mean": e.stderr for name, e in found.novel_means.items()}
    return {"samples": molecules.flat(found), "stderr": errors, "held_out": floor.mean, "held_out_std": floor.std}


def by_guidance(
    experiment: Experiment, params: Any, gammas: Any, *, seed: int, step: int, say: Say = print, **options: Any
) -> list[dict[str, Any]]:
    """Counts and properties of samples of the config's class, a row a strength; novel means are over new molecules."""
    known, rows = molecules.canonical_set(experiment.train.texts()), []
    n = experiment.config["evaluate"]["samples"]
    for gamma in gammas:
        drawn = draw(experiment, params, n, seed=seed + 1, step=step, gamma=gamma, **options)
        found = molecules.measure(drawn.texts(), known)
        rows.append(
            {
                "gamma": gamma,
                "samples": n,
                "valid": found.valid,
                "unique": found.unique,
                "novel": found.novel,
                "means": {name: list(value) for name, value in found.means.items()},
                "novel_means": {name: list(value) for name, value in found.novel_means.items()},
            }
        )
        means = ", ".join(f"{name} {value}" for name, value in found.means.items())
        say(f"gamma {gamma:g}: {found.valid} valid, {found.unique} unique, {found.novel} novel of {n}; {means}")
    return rows


def of_dna(experiment: Experiment, drawn: Tokens, seed: int, say: Say) -> dict[str, Any]:
    """Jensen-Shannon distances of words beside their floor, how well samples are told from data, and whether a judge
    that never saw them finds the class that was asked for."""
    key, held_out, train = jax.random.key(seed), experiment.held_out, experiment.train
    vocab, n = train.vocab, min(len(drawn), len(held_out) // 2)
    some = np.random.default_rng(seed).permutation(len(held_out))
    rows: dict[str, Any] = {}
    for k in (3, 6):
        found = kmers.kmer_jensen_shannon(drawn.tokens[:n], held_out.tokens[some[n : 2 * n]], k, vocab=vocab)
        floor = kmers.kmer_floor(held_out.tokens, k, n, key=key, vocab=vocab)
        rows[f"{k}-mers"] = {"distance": found.distance, "floor": floor.distance, "floor_std": floor.distance_std}
        say(f"{k}-mer distance {found.distance:.4f}, of held-out data {floor.distance:.4f} +- {floor.distance_std:.4f}")
    words = {name: kmers.kmer_counts(x, JUDGED, vocab) for name, x in _halves(drawn.tokens, held_out.tokens[some], n)}
    told = classification.discriminator_auroc(words["samples"], words["a"], key=key, penalty=PENALTY)
    floor = classification.discriminator_auroc(words["b"], words["a"], key=key, penalty=PENALTY)
    rows["discriminator"] = {"auroc": list(told), "floor": list(floor)}
    say(f"told from data: AUROC {told}, other data {floor}")
    if drawn.labels is not None and train.labels is not None and held_out.labels is not None:
        judged = classification.class_recovery(
            kmers.kmer_counts(drawn.tokens, JUDGED, vocab),
            drawn.labels,
            (kmers.kmer_counts(train.tokens, JUDGED, vocab), train.labels),
            (kmers.kmer_counts(held_out.tokens, JUDGED, vocab), held_out.labels),
            train.num_classes,
            penalty=PENALTY,
        )
        rows["classes"] = {"samples": judged[0]._asdict(), "held_out": judged[1]._asdict()}
        for name, row in zip(("samples", "held out"), judged, strict=True):
            say(f"class recovered, {name}: {row.accuracy}, chance {row.chance:.3f}, p = {row.p_value:.2g}")
    return rows


def _halves(drawn, held_out, n):
    return (("samples", drawn[:n]), ("a", held_out[:n]), ("b", held_out[n : 2 * n]))


def of_text(experiment: Experiment, drawn: Tokens, seed: int, say: Say) -> dict[str, Any]:
    """The entropy of single characters and the diversity of longer ones, beside held-out text."""
    rows: dict[str, Any] = {}
    for name, x in (("samples", drawn.tokens), ("held_out", experiment.held_out.tokens)):
        rows[name] = {
            "unigram_entropy": list(text.unigram_entropy(x, drawn.vocab)),
            "diversity": list(text.repetition_diversity(x)),
        }
        say(f"{name}: " + ", ".join(f"{key} {row[0]:.4f} +- {row[1]:.4f}" for key, row in rows[name].items()))
    return rows


def of_images(experiment: Experiment, drawn: Tokens, seed: int, say: Say) -> dict[str, Any]:
    """The metrics of images, on pixels, each beside its floor."""
    train, held_out = experiment.train, experiment.held_out
    pixels = [_pixels(tokens) for tokens in (drawn, train, held_out)]
    tags: Any = None if drawn.labels is None else (drawn.labels, train.labels, held_out.labels)
    found = metrics.evaluate(*pixels, features=metrics.pixels(), labels=tags, key=jax.random.key(seed))
    say(metrics.as_text(found))
    return dict(found)


def _pixels(tokens):
    assert isinstance(tokens.tokeniser, Pixels)
    return data.to_model(tokens.tokeniser.pixels(tokens.tokens), tokens.vocab)


MEASURES = {"molecules": of_molecules, "dna": of_dna, "text": of_text, "images": of_images}
