"""The Frechet distance of a trained model to stored statistics: those of a data set are written once, and each model is
compared with the file. Distances are called by their features; only a reader who knows the weights, the counts and the
reference to be the published ones may call one an FID."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, metrics
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import names
from jaxdiff.recipes.images.drawing import samples
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.workdir import write

CHUNK = 512  # images whose features are computed at a time


def statistics(images: Any, features: str, out: str | Path) -> metrics.Moments:
    """Write the mean and covariance of a data set's features to `out`, an .npz with mu, sigma, n and features.

    `images` is a spec as config.data, {"name": "digits"}; `features` a word such as "pixels", "alexnet",
    "alexnet=FILE" or "inception=FILE". Raises InputError for data, features or a file that cannot be."""
    out = Path(out)
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in .npz")
    function = feature_function(features)
    found = metrics.statistics(_chunks(resolve("data", names.DATA, images), counter("images:")), function, chunk=CHUNK)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f"{out.stem}.tmp.npz")
    metrics.save_moments(draft, found)
    draft.replace(out)
    return found


def compare(
    workdir: str | Path,
    reference: str | Path,
    *,
    features: str = "pixels",
    n: int | None = None,
    seeds: int = 1,
    seed: int = 1,
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """The Frechet distance of the newest checkpoint's samples to the statistics in `reference`, over several seeds.

    n samples (by default config.evaluate.samples) are drawn for each of the seeds seed, seed + 1, ... as the config's
    `sample` says. Writes and returns workdir/frechet.json: the distances, their min, mean and std, the floor of a
    Gaussian with the reference's moments at n samples, that of the held-out images, and caveats. Raises InputError for
    a reference that cannot be read or is of other features."""
    experiment, params, step = load(workdir)
    count = int(experiment.config["evaluate"]["samples"] if n is None else n)

    def draw(s):
        return samples(experiment, params, count, seed=s, progress=counter(f"seed {s}, from step {step}:"))[0]

    model = {"step": step, "data": experiment.train.name}
    held_out, levels = experiment.held_out, experiment.train.levels
    return judge(
        workdir, reference, model, draw, count, levels, held_out, features=features, seeds=seeds, seed=seed, say=say
    )


def judge(
    workdir: str | Path,
    reference: str | Path,
    model: dict[str, Any],
    draw: Callable[[int], Any],
    count: int,
    levels: int,
    held_out: data.Images | None = None,
    *,
    shape: tuple[int, ...] = (),
    features: str = "pixels",
    seeds: int = 1,
    seed: int = 1,
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """`compare` for any model: `draw(seed)` gives `count` images of grey levels, and `model` says in the result whose.

    `shape` is that of one image, where no held-out images tell it."""
    workdir = Path(workdir)
    stored, function = metrics.load_moments(reference), feature_function(features)
    if seeds < 1:
        raise InputError(f"seeds is {seeds}, expected at least 1 set of samples")
    if count < 2:
        raise InputError(f"n is {count}, expected at least 2 samples: a covariance needs them")
    # Other features are refused before anything is drawn.
    tried = np.zeros((2, *shape)) if held_out is None else held_out.take(slice(0, 2)).to_model()
    metrics.same_features(metrics.statistics([tried], function, chunk=CHUNK), stored)
    real = None
    if held_out is not None:
        real = metrics.frechet_distance(metrics.statistics(_chunks(held_out), function, chunk=CHUNK), stored)
    sets = []
    for s in range(seed, seed + seeds):
        drawn = data.Images("samples", draw(s), levels=levels)
        sets.append(metrics.statistics(_chunks(drawn), function, chunk=CHUNK))
    found = metrics.over_seeds(sets, stored)
    floor = metrics.gaussian_floor(
        stored, count, key=jax.random.key(seed), draws=max(1, min(16, 2048 // len(stored.mu)))
    )
    result = model | {
        "reference": str(reference),
        "reference_images": stored.n,
        "features": metrics.name_of(function),
        "samples": count,
        "seeds": list(range(seed, seed + seeds)),
        "frechet": {"each": list(found.each), "min": found.min, "mean": found.mean, "std": found.std},
        "gaussian_floor": floor,
        "caveats": metrics.worth(sets[0], stored, floor) + _unnamed(stored, function),
    }
    if held_out is not None:
        result["heldout"] = {"frechet": real, "images": len(held_out)}
    spread = "" if found.std is None else f", mean {found.mean:.4g}, std {found.std:.2g} over {seeds} seeds"
    least = f"{found.min:.4g}{' least' if spread else ''}{spread}"
    say(f"Frechet distance of {count} samples on {result['features']}: {least}")
    beside = "" if held_out is None else f"; {len(held_out)} held-out images {real:.4g}"
    say(f"floor at {count} samples of a Gaussian {floor:.4g}{beside}")
    for caveat in result["caveats"]:
        say(caveat)
    write(workdir / "frechet.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def feature_function(text: str) -> Any:
    """The feature function that a word names: "pixels", "alexnet", or a network with its file, "inception=FILE"."""
    name, given, path = text.partition("=")
    needs = {"pixels": (False,), "alexnet": (False, True), "inception": (True,)}
    if bool(path) not in needs.get(name, ()) or (given and not path):
        raise InputError(f"the features are {text!r}, expected pixels, alexnet, alexnet=FILE or inception=FILE")
    return names.FEATURES[name](*([path] if path else []))


def _chunks(images, progress=lambda done, total: None):
    """The images as a model sees them, some at a time."""
    for start in range(0, len(images), CHUNK):
        progress(start, len(images))
        yield images.take(slice(start, start + CHUNK)).to_model()
    progress(len(images), len(images))


def _unnamed(stored, function):
    if stored.features is not None:
        return []
    return [
        f"frechet: the reference does not say of which features it is; {len(stored.mu)} numbers fit those of "
        f"{metrics.name_of(function)}, and nothing more is known."
    ]
