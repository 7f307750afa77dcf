"""The Frechet distance of a model's images to stored statistics: those of a data set are written once, and each model
is compared with the file. Distances are called by their features; only a reader who knows the weights, the counts and
the reference to be the published ones may call one an FID."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import data, metrics
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say
from jaxdiff.errors import InputError
from jaxdiff.pretrained import alexnet, inception
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.measure import Measure
from jaxdiff.runs.model import Run
from jaxdiff.runs.progress import counter

CHUNK = 512  # images whose features are computed at a time
SAMPLES = 10_000  # where no config says how many

FEATURES = {"pixels": metrics.pixels, "alexnet": alexnet.features, "inception": inception.features}


def statistics(images: data.Images, features: str, out: str | Path) -> metrics.Moments:
    """Write the mean and covariance of a data set's features to `out`, an .npz with mu, sigma, n and features.

    `features` is a word such as "pixels", "alexnet", "alexnet=FILE" or "inception=FILE". Raises InputError for features
    or a file that cannot be."""
    function, out = feature_function(features), checked_file(out)
    found = metrics.statistics(_chunks(images, counter("images:")), function, chunk=CHUNK)
    out.parent.mkdir(parents=True, exist_ok=True)
    metrics.save_moments(out, found)
    return found


def checked_file(out: str | Path) -> Path:
    """The file of statistics; InputError for one that is no .npz."""
    out = Path(out)
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"the output is {out}, expected a file that ends in .npz")
    return out


def compare(
    run: Run,
    *,
    reference: str | Path,
    features: str = "pixels",
    n: int | None = None,
    seeds: int = 1,
    seed: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """The Frechet distance of samples to the statistics in `reference`, over several seeds.

    n samples (by default config.evaluate.samples) are drawn for each of the seeds seed, seed + 1, ... as the config's
    `sample` says: the distances, their min, mean and std, the floor of a Gaussian with the reference's moments at n
    samples, that of the held-out images where the run has data, and caveats. Raises InputError for a reference that
    cannot be read or is of other features."""
    stored, function, domain = metrics.load_moments(reference), feature_function(features), run.model.domain
    count = int(run.config.get("evaluate", {}).get("samples", SAMPLES) if n is None else n)
    if seeds < 1:
        raise InputError(f"seeds is {seeds}, expected at least 1 set of samples")
    if count < 2:
        raise InputError(f"n is {count}, expected at least 2 samples: a covariance needs them")
    # Other features are refused before anything is drawn.
    metrics.same_features(metrics.statistics([np.zeros((2, *domain.shape))], function, chunk=CHUNK), stored)
    plan, sets = run.model.plan(), []
    for s in range(seed, seed + seeds):
        pixels, _ = samples(plan, count, seed=s, progress=counter(f"seed {s}, from {run.place}:"))
        drawn = data.Images("samples", pixels, levels=domain.levels)
        sets.append(metrics.statistics(_chunks(drawn), function, chunk=CHUNK))
    found = metrics.over_seeds(sets, stored)
    draws = max(1, min(16, 2048 // len(stored.mu)))
    floor = metrics.gaussian_floor(stored, count, key=jax.random.key(seed), draws=draws)
    result: dict[str, Any] = {
        "reference": str(reference),
        "reference_images": stored.n,
        "features": metrics.name_of(function),
        "samples": count,
        "seeds": list(range(seed, seed + seeds)),
        "frechet": {"each": list(found.each), "min": found.min, "mean": found.mean, "std": found.std},
        "gaussian_floor": floor,
        "caveats": metrics.worth(sets[0], stored, floor) + _unnamed(stored, function),
    }
    result = _whose(run, stored, function) | result
    _tell(result, say)
    return result


def _whose(run, stored, function):
    """Whose samples they are, and what its held-out images would get, where it has data."""
    if run.step is None:
        return {"network": str(run.folder)}
    train, held_out = run.data()
    real = metrics.frechet_distance(metrics.statistics(_chunks(held_out), function, chunk=CHUNK), stored)
    return {"step": run.step, "data": train.name, "heldout": {"frechet": real, "images": len(held_out)}}


def _tell(result, say):
    found, count = result["frechet"], result["samples"]
    std = found["std"]
    spread = "" if std is None else f", mean {found['mean']:.4g}, std {std:.2g} over {len(found['each'])} seeds"
    least = f"{found['min']:.4g}{' least' if spread else ''}{spread}"
    say(f"Frechet distance of {count} samples on {result['features']}: {least}")
    real = result.get("heldout")
    beside = "" if real is None else f"; {real['images']} held-out images {real['frechet']:.4g}"
    say(f"floor at {count} samples of a Gaussian {result['gaussian_floor']:.4g}{beside}")
    for caveat in result["caveats"]:
        say(caveat)


def feature_function(text: str) -> Any:
    """The feature function that a word names: "pixels", "alexnet", or a network with its file, "inception=FILE"."""
    name, given, path = text.partition("=")
    needs = {"pixels": (False,), "alexnet": (False, True), "inception": (True,)}
    if bool(path) not in needs.get(name, ()) or (given and not path):
        raise InputError(f"the features are {text!r}, expected pixels, alexnet, alexnet=FILE or inception=FILE")
    return FEATURES[name](*([path] if path else []))


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """The distance beside its floor, as HTML."""
    each, std = found["frechet"], found["frechet"]["std"]
    yield "<h2>Beside stored statistics</h2>"
    yield page.table(
        (f"Frechet distance, {found['features']}", f"{found['samples']} samples"),
        [
            ("samples, the least" if std is not None else "samples", page.shown(each["min"])),
            *([("mean over seeds", page.pair([each["mean"], std]))] if std is not None else []),
            ("a Gaussian with the reference's moments, as many draws", page.shown(found["gaussian_floor"])),
            *([("held-out images", page.shown(found["heldout"]["frechet"]))] if "heldout" in found else []),
        ],
    )
    yield page.note(f"Beside {found['reference']}.")
    yield from map(page.note, found["caveats"])


def title(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """The title of a page of nothing else, and the line below it."""
    return found.get("data", found.get("network", "")), f"Samples beside {found['reference']}."


TAKES = ("reference", "features", "n", "seeds")
REFERENCE = Measure("reference", "frechet.json", TAKES, compare, parts, title, needs=("reference",))


def _chunks(images, progress=lambda done, total: None) -> Iterator[np.ndarray]:
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
