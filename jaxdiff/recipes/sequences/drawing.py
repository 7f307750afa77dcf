"""Sequences from a trained model: as tokens, and as a file that the command line writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.data.sequences import Pixels, Tokeniser, Tokens
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.drawing import checked_labels, chosen_sampler
from jaxdiff.recipes.images.pictures import grid, png, unit
from jaxdiff.recipes.progress import Progress, counter
from jaxdiff.recipes.sequences.experiment import Experiment
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.run import advised, load
from jaxdiff.recipes.sequences.steering import Guide, checked
from jaxdiff.recipes.workdir import npz, write

KINDS = (".txt", ".npz", ".png", ".svg")


def sample(
    workdir: str | Path,
    out: str | Path | None = None,
    *,
    n: int = 64,
    labels: Sequence[int] | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guide: str | Path | None = None,
    steering: Mapping[str, Any] | None = None,
    ema_width: float | None = None,
    seed: int = 0,
) -> Path:
    """Draw n sequences from the newest checkpoint of `workdir`, into workdir/samples.txt (images: .png) by default.

    A .txt has one a line; an .npz holds `tokens` (n, L) and `labels` (n,) if there are classes; a .png is a picture of
    images or molecules, an .svg of molecules. `labels` (all classes by default) are drawn in turn; `sampler`, `steps`,
    `guidance` (gamma), `guide` (the folder of a classifier), `steering` and `ema_width` stand in for the config's.
    Sequence i depends on the seed, its label and i alone. Raises InputError for what cannot be drawn or written."""
    workdir = Path(workdir)
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 sequence")
    experiment, params, step = load(workdir, ema_width)
    out = checked_output(workdir, out, experiment.train)
    asked = None if labels is None else np.resize(np.asarray(labels), n)
    spec = chosen_sampler(experiment.config["sample"]["sampler"], sampler, steps)
    progress = counter(f"drawing from step {step}:")
    chosen = {"gamma": guidance, "guide": advised(workdir, experiment, guide), "steering": steering}
    tokens, drawn = samples(experiment, params, n, seed=seed, labels=asked, sampler=spec, progress=progress, **chosen)
    named = experiment.train if chosen["guide"] is None else chosen["guide"][0].train
    made = as_tokens(named, tokens, drawn)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write(out, content(out.suffix, made, len(set(labels)) if labels else named.num_classes))


def samples(
    experiment: Experiment,
    params: Any,
    n: int,
    *,
    seed: int,
    labels: Any = None,
    sampler: Mapping[str, Any] | None = None,
    gamma: float | None = None,
    guide: tuple[Experiment, Any] | None = None,
    steering: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(tokens (n, L), labels (n,)) from the model; classes in turn unless `labels` says which.

    `guide` is a classifier and its parameters (`run.advised`), whose classes the labels then are. Raises InputError for
    labels out of range, and a sampler or guidance that cannot be."""
    settings, model = experiment.config["sample"], experiment.writer
    told = experiment.train if guide is None else guide[0].train
    labels = checked_labels(labels, told.num_classes, n, told.name)
    asked = settings["guidance"] if gamma is None else gamma
    strength = checked(experiment.config, experiment.null, asked, experiment.train.name, guide is not None)
    judge, weights = (None, None) if guide is None else (guide[0].model, guide[1])
    assert judge is None or isinstance(judge, Judge)
    way = Guide(strength, experiment.null, steering or settings["steering"], judge, weights)
    spec = sampler or settings["sampler"]
    return model.draw(jax.random.key(seed), params, n, experiment.length, labels, spec, way, progress), labels


def as_tokens(
    like: Tokens, tokens: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str] | None = None
) -> Tokens:
    """Drawn tokens as a set that reads like `like`, of its classes unless others are named; InputError where some are
    no data (a mask that was left)."""
    left = int((tokens >= like.vocab).sum())
    if left:
        raise InputError(
            f"{left} tokens of the samples are still masked: let the sampler finish, with final='posterior' or 'argmax'"
        )
    names = classes(like) if class_names is None else class_names
    told = {} if labels is None else {"num_classes": len(names), "class_names": tuple(names)}
    return Tokens(f"{like.name}/samples", tokens, like.tokeniser, labels, **told)


def classes(tokens: Tokens) -> list[str]:
    """What its classes are called; their numbers, where they have no names."""
    return list(tokens.class_names) or [str(label) for label in range(tokens.num_classes)]


def kind(tokens: Tokens) -> str:
    """molecules, dna, images or text, by the tokeniser."""
    tokeniser = tokens.tokeniser
    if isinstance(tokeniser, Pixels):
        return "images"
    assert isinstance(tokeniser, Tokeniser)
    if tokeniser.cut == "smiles":
        return "molecules"
    return "dna" if set(tokeniser.tokens) <= set("ACGTN") else "text"


def checked_output(workdir: Path, out: str | Path | None, like: Tokens) -> Path:
    """Where sequences go; InputError for a kind of file that they cannot be written to."""
    found = kind(like)
    fits = {"images": (".png", ".npz"), "molecules": KINDS}.get(found, (".txt", ".npz"))
    out = workdir / f"samples{fits[0]}" if out is None else Path(out)
    if out.suffix not in fits or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in {' or '.join(fits)}, as {found} can be")
    return out


def content(suffix: str, tokens: Tokens, period: int) -> str | bytes:
    """The samples as a file of that ending; pictures have a row for each of `period` labels."""
    if suffix == ".npz":
        return npz({"tokens": tokens.tokens} | ({} if tokens.labels is None else {"labels": tokens.labels}))
    if isinstance(tokens.tokeniser, Pixels):
        return png(grid(unit(tokens.tokeniser.pixels(tokens.tokens), tokens.vocab), period))
    if suffix == ".txt":
        return "".join(f"{text}\n" for text in tokens.texts())
    from jaxdiff.recipes.sequences import pictures

    draw = pictures.molecule_svg if suffix == ".svg" else pictures.molecule_png
    return draw(tokens.texts()[:60])
