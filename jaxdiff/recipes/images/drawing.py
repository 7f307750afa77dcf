"""Images from a trained model: as arrays, and as a file that the command line writes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.recipes.images.experiment import Experiment
from jaxdiff.recipes.images.pictures import grid, png, unit
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.progress import Progress, counter
from jaxdiff.recipes.workdir import npz, write
from jaxdiff.samplers import draw


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
    ema_width: float | None = None,
    seed: int = 0,
) -> Path:
    """Draw n images from the newest checkpoint of `workdir` into a .png or .npz file, workdir/samples.png by default.

    `labels` (all classes by default) are drawn in turn, each a row of the picture; `sampler`, `steps`, `guidance` and
    `ema_width` stand in for the config's. `guide` is the workdir of a weaker model to be guided away from. An .npz
    holds `images` (n, H, W, C), the number of their `levels`, and `labels` (n,) if there are classes. Image i depends
    on the seed, its label and i alone. Raises InputError for what cannot be drawn or written."""
    workdir = Path(workdir)
    out = checked_output(workdir, out, n)
    experiment, params, step = load(workdir, ema_width)
    spec = chosen_sampler(experiment.config["sample"]["sampler"], sampler, steps)
    asked = None if labels is None else np.resize(np.asarray(labels), n)
    options = {"labels": asked, "sampler": spec, "guidance": guidance, "guide": guide}
    progress = counter(f"{spec['name']} from step {step}:")
    pixels, drawn = samples(experiment, params, n, seed=seed, progress=progress, **options)
    return save(out, pixels, experiment.train.levels, drawn, experiment.classes if labels is None else len(labels))


def checked_output(workdir: Path, out: str | Path | None, n: int) -> Path:
    """Where n images go; InputError for another kind of file, or no images."""
    out = workdir / "samples.png" if out is None else Path(out)
    if out.suffix not in (".png", ".npz") or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in .png or .npz")
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 image")
    return out


def save(out: Path, pixels: np.ndarray, levels: int, labels: np.ndarray | None, period: int) -> Path:
    """Write images to a .png, with a row for each of `period` labels, or to an .npz of arrays."""
    if out.suffix == ".png":
        content = png(grid(unit(pixels, levels), period))
    else:
        content = npz({"images": pixels, "levels": levels} | ({} if labels is None else {"labels": labels}))
    out.parent.mkdir(parents=True, exist_ok=True)
    return write(out, content)


def checked_labels(labels: Any, classes: int, n: int, name: str) -> np.ndarray | None:
    """The classes of n images, in turn unless `labels` says which, None for a model without classes.

    Raises InputError for a label that is none."""
    if not classes:
        if labels is not None:
            raise InputError(f"{name} has no classes; leave the labels out")
        return None
    labels = np.arange(n) % classes if labels is None else np.asarray(labels)
    if strange := [int(label) for label in np.unique(labels) if not 0 <= label < classes]:
        raise InputError(f"label {strange[0]} is not a class of {name}; expected numbers from 0 to {classes - 1}")
    return labels.astype(np.int32)


def checked_guidance(weight: float) -> float:
    """The weight of guidance, refused where it is no finite number."""
    if not math.isfinite(weight):
        raise InputError(f"the guidance weight is {weight}, expected a finite number; 1 is no guidance")
    return weight


def samples(
    experiment: Experiment,
    params: Any,
    n: int,
    *,
    seed: int,
    labels: Any = None,
    sampler: Mapping[str, Any] | None = None,
    guidance: float | None = None,
    guide: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels (n, H, W, C), labels (n,)) from the model; classes in turn unless `labels` says which.

    `sampler` is a spec such as the config's; `guidance` a weight, `guide` the workdir of a weaker model. The image of
    index i is the same for every n. Raises InputError for labels out of range, and a sampler or guidance that cannot
    be."""
    labels = checked_labels(labels, experiment.classes, n, experiment.train.name)
    weight = checked_guidance(experiment.config["sample"]["guidance"] if guidance is None else guidance)
    made = experiment.sampler(sampler)
    denoise = experiment.make_denoise(params, weight, None if guide is None else _weaker(experiment, guide))
    x = draw(jax.random.key(seed), n, denoise, made, experiment.train.shape, cond=labels, progress=progress)
    return experiment.train.to_pixels(x), labels


def _weaker(experiment, workdir):
    """(network, parameters) of a model to be guided away from, refused where it draws other images."""
    other, params, _ = load(workdir)
    if (other.train.shape, other.classes) != (experiment.train.shape, experiment.classes):
        raise InputError(
            f"the guide {workdir} draws {other.train.shape} in {other.classes} classes, expected "
            f"{experiment.train.shape} in {experiment.classes}: give a model of the same images"
        )
    return other.network, params


def chosen_sampler(config: Mapping[str, Any], name: str | None, steps: int | None) -> dict[str, Any]:
    """The config's sampler, or another one, with that many steps."""
    spec = dict(config) if name in (None, config["name"]) else {"name": name}
    return spec if steps is None else spec | {"steps": steps}
