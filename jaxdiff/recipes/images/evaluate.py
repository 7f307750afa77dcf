"""Draw from a trained image model, and measure what was drawn beside what real data get.

    workdir/metrics.json      every metric with its floor, and the Frechet distance by denoiser calls
    workdir/evaluation.npz    the pictures that the report shows"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import grids, metrics
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.experiment import Experiment
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.images.samplers import CALLS
from jaxdiff.samplers import draw, euler, heun, sample

Say = Callable[[str], Any]


def samples(
    experiment: Experiment,
    params: Any,
    n: int,
    *,
    seed: int,
    labels: Any = None,
    sampler: Mapping[str, Any] | None = None,
    guidance: float | None = None,
    progress: Any = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(pixels (n, H, W, C), labels (n,)) from the model; classes in turn unless `labels` says which.

    The sample of index i is the same for every n and sampler's noise. Raises InputError for labels out of range."""
    classes = experiment.classes
    if labels is not None and not classes:
        raise InputError(f"{experiment.train.name} has no classes; leave the labels out")
    if classes:
        labels = np.arange(n, dtype=np.int32) % classes if labels is None else np.asarray(labels, np.int32)
        if labels.shape != (n,) or labels.min() < 0 or labels.max() >= classes:
            raise InputError(f"labels are {np.unique(labels)} for n={n}, expected {n} numbers from 0 to {classes - 1}")
    weight = experiment.config["sample"]["guidance"] if guidance is None else guidance
    made = experiment.sampler(sampler)
    denoise = experiment.make_denoise(params, weight)
    shape = experiment.train.shape
    x = draw(jax.random.key(seed), n, denoise, made, shape, cond=labels, progress=progress)
    return experiment.train.to_pixels(x), labels


def evaluate(workdir: str | Path, *, seed: int = 1, say: Say = print) -> dict[str, Any]:
    """Measure the newest checkpoint of `workdir` as its config's `evaluate` says; writes and returns metrics.json."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    settings = experiment.config["evaluate"]
    n = settings["samples"]
    say(f"drawing {n} samples at step {step}")
    pixels, labels = samples(experiment, params, n, seed=seed)
    report = _measure(experiment, pixels, labels, seed)
    say(metrics.as_text(report))
    result = {
        "step": step,
        "data": experiment.train.name,
        "sampler": experiment.config["sample"]["sampler"],
        "features": _features_name(settings["components"], experiment),
        "metrics": report,
        "caveats": metrics.caveats(report),
        "curve": curve(experiment, params, seed=seed, say=say),
    }
    draft = workdir / "metrics.json.tmp"
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.replace(workdir / "metrics.json")
    pictures = {"samples": pixels, "labels": np.zeros(n, np.int32) if labels is None else labels}
    np.savez_compressed(workdir / "evaluation.npz", **pictures, **strip(experiment, params, seed=seed))
    say(f"wrote {workdir / 'metrics.json'}")
    return result


def curve(experiment: Experiment, params: Any, *, seed: int, say: Say = print) -> dict[str, Any]:
    """Frechet distance to the training set by denoiser calls, from the same starting noise, beside its floor."""
    settings = experiment.config["evaluate"]
    calls, n = settings["curve"], settings["curve_samples"]
    features = _features(experiment, settings["components"])
    reference = metrics.moments(features(experiment.train.to_model()))
    rows: dict[str, list[list[float]]] = {}
    for name in ("euler", "edm", "ddim", "dpmpp_2m") if calls else ():
        for budget in calls:
            steps = (budget + 1) // 2 if name == "edm" else budget
            pixels, _ = samples(experiment, params, n, seed=seed + 1, sampler={"name": name, "steps": steps})
            x = _as_model(experiment, pixels)
            distance = metrics.frechet_distance(metrics.moments(features(x)), reference)
            rows.setdefault(name, []).append([CALLS[name](steps), distance])
        say(f"{name:<10}" + "".join(f"  {calls}: {distance:.3f}" for calls, distance in rows[name]))
    return {"samples": n, "floor": _floor(experiment, features, n), "frechet": rows}


def strip(experiment: Experiment, params: Any, *, seed: int, steps: int = 9, rows: int = 5) -> dict[str, np.ndarray]:
    """The way of a few samples from noise to data: x_t, and what the model believes of the data there."""
    process = experiment.process
    ts = grids.karras(process, steps)
    labels = jnp.arange(rows, dtype=jnp.int32) % max(experiment.classes, 1)
    make = experiment.make_denoise(params, experiment.config["sample"]["guidance"])

    @jax.jit
    def walk(key, label):
        denoise = make(label if experiment.classes else None)
        x = process.prior(key, experiment.train.shape, ts[0])
        path = sample(key, heun(process), denoise, x, ts, last=euler(process), trajectory=True)
        return path, jax.vmap(denoise)(path[:-1], ts[:-1])

    path, beliefs = jax.vmap(walk)(jax.random.split(jax.random.key(seed), rows), labels)
    return {"path": np.asarray(path), "beliefs": np.asarray(beliefs), "times": np.asarray(ts)}


def _measure(experiment, pixels, labels, seed):
    train, held_out = experiment.train, experiment.held_out
    tags = None if labels is None else (labels, train.labels, held_out.labels)
    features = _features(experiment, experiment.config["evaluate"]["components"])
    sets = (_as_model(experiment, pixels), train.to_model(), held_out.to_model())
    return metrics.evaluate(*sets, features=features, labels=tags, key=jax.random.key(seed))


def _as_model(experiment, pixels):
    return type(experiment.train)("samples", pixels, levels=experiment.train.levels).to_model()


def _features(experiment, components):
    images = experiment.train.to_model()
    return metrics.pca(images, components) if 0 < components < images[0].size else metrics.pixels()


def _features_name(components, experiment):
    size = int(np.prod(experiment.train.shape))
    return f"{components} principal components" if 0 < components < size else f"the {size} pixels"


def _floor(experiment, features, n):
    """Mean and standard deviation of the distance between random real subsets of the sizes compared."""
    real = np.concatenate([features(part.to_model()) for part in (experiment.train, experiment.held_out)])
    rng = np.random.default_rng(0)
    size = min(n, len(real) // 2)
    found = []
    for _ in range(8):
        order = rng.permutation(len(real))
        parts = metrics.moments(real[order[:size]]), metrics.moments(real[order[size:]])
        found.append(metrics.frechet_distance(*parts))
    return [float(np.mean(found)), float(np.std(found, ddof=1))]
