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
    seed: int = 0,
) -> Path:
    """Draw n images from the newest checkpoint of `workdir` into a .png or .npz file, workdir/samples.png by default.

    `labels` (all classes by default) are drawn in turn, each a row of the picture; `sampler`, `steps` and `guidance`
    stand in for the config's. An .npz holds `images` (n, H, W, C), the number of their `levels`, and `labels` (n,) if
    there are classes. Image i depends on the seed, its label and i alone. Raises InputError for what cannot be drawn or
    written."""
    workdir = Path(workdir)
    out = workdir / "samples.png" if out is None else Path(out)
    if out.suffix not in (".png", ".npz") or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in .png or .npz")
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 image")
    experiment, params, step = load(workdir)
    cycle = list(range(experiment.classes)) if labels is None else list(labels)
    asked = None if labels is None else np.resize(np.asarray(cycle), n)
    spec = _spec(experiment.config["sample"]["sampler"], sampler, steps)
    options = {"labels": asked, "sampler": spec, "guidance": guidance}
    progress = counter(f"{spec['name']} from step {step}:")
    pixels, drawn = samples(experiment, params, n, seed=seed, progress=progress, **options)
    levels = experiment.train.levels
    if out.suffix == ".png":
        content = png(grid(unit(pixels, levels), len(cycle)))
    else:
        content = npz({"images": pixels, "levels": levels} | ({} if drawn is None else {"labels": drawn}))
    out.parent.mkdir(parents=True, exist_ok=True)
    return write(out, content)


def samples(
    experiment: Experiment,
    params: Any,
    n: int,
    *,
    seed: int,
    labels: Any = None,
    sampler: Mapping[str, Any] | None = None,
    guidance: float | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels (n, H, W, C), labels (n,)) from the model; classes in turn unless `labels` says which.

    `sampler` is a spec such as the config's; `guidance` a weight. The image of index i is the same for every n. Raises
    InputError for labels out of range, and a sampler or guidance that cannot be."""
    classes, name = experiment.classes, experiment.train.name
    if labels is not None and not classes:
        raise InputError(f"{name} has no classes; leave the labels out")
    if classes:
        labels = np.arange(n) % classes if labels is None else np.asarray(labels)
        if strange := [int(label) for label in np.unique(labels) if not 0 <= label < classes]:
            raise InputError(f"label {strange[0]} is not a class of {name}; expected numbers from 0 to {classes - 1}")
        labels = labels.astype(np.int32)
    weight = experiment.config["sample"]["guidance"] if guidance is None else guidance
    if not math.isfinite(weight):
        raise InputError(f"the guidance weight is {weight}, expected a finite number; 1 is no guidance")
    made, denoise = experiment.sampler(sampler), experiment.make_denoise(params, weight)
    x = draw(jax.random.key(seed), n, denoise, made, experiment.train.shape, cond=labels, progress=progress)
    return experiment.train.to_pixels(x), labels


def _spec(config, name, steps):
    """The config's sampler, or another one, with that many steps."""
    spec = dict(config) if name in (None, config["name"]) else {"name": name}
    return spec if steps is None else spec | {"steps": steps}
