"""Draw from a trained image model, and measure what was drawn beside what real data get.

workdir/metrics.json      every metric with its floor, and the Frechet distance by denoiser calls
workdir/evaluation.npz    the pictures that the report shows"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, grids, metrics
from jaxdiff.recipes.images.drawing import samples
from jaxdiff.recipes.images.experiment import Experiment
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.images.samplers import calls
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.workdir import npz, plain, write
from jaxdiff.samplers import euler, heun
from jaxdiff.samplers import sample as walk

Say = Callable[[str], Any]

COMPARED = ("euler", "edm", "ddim", "dpmpp_2m")
"""The samplers of the curve."""


def evaluate(workdir: str | Path, *, seed: int = 1, say: Say = print) -> dict[str, Any]:
    """Measure the newest checkpoint of `workdir` as its config's `evaluate` says; writes and returns metrics.json.

    What is not a finite number (a z where real data do not vary) is None. Raises InputError where there is no
    checkpoint, or its samples or the held-out data are too few or not finite."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    settings, n = experiment.config["evaluate"], experiment.config["evaluate"]["samples"]
    pixels, labels = samples(experiment, params, n, seed=seed, progress=counter(f"drawing from step {step}:"))
    train, held_out = experiment.train, experiment.held_out
    tags: Any = None if labels is None else (labels, train.labels, held_out.labels)
    features, spoken = _features(train, settings["components"])
    say(f"measuring {n} samples beside {len(train)} training and {len(held_out)} held-out images")
    found = metrics.evaluate(
        _as_model(train, pixels),
        train.to_model(),
        held_out.to_model(),
        features=features,
        labels=tags,
        key=jax.random.key(seed),
    )
    say(metrics.as_text(found))
    frechet = curve(experiment, params, features, found["counts"], seed=seed, say=say)
    result: Any = {
        "step": step,
        "data": train.name,
        "sampler": experiment.config["sample"]["sampler"],
        "features": spoken,
        "metrics": found,
        "caveats": metrics.caveats(found),
        "curve": frechet,
    }
    result = plain(result)
    pictures = {"samples": pixels, "levels": train.levels, "classes": experiment.classes}
    write(workdir / "evaluation.npz", npz(pictures | strip(experiment, params, seed=seed)))
    write(workdir / "metrics.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def curve(
    experiment: Experiment, params: Any, features: Any, counts: dict[str, float], *, seed: int, say: Say = print
) -> dict[str, list[list[float]]]:
    """Frechet distance to training images by denoiser calls, [[calls, distance], ...] a sampler, from the same noise.

    At the `counts` of the report: as many samples and as many training images, so that its floor is the curve's."""
    budgets, n = experiment.config["evaluate"]["curve"], int(counts["compared"])
    real = np.random.default_rng(seed).permutation(len(experiment.train))[: int(counts["reference"])]
    reference = metrics.moments(features(experiment.train.take(np.sort(real)).to_model()))
    rows: dict[str, list[list[float]]] = {}
    if budgets:
        say(f"Frechet distance of {n} samples by denoiser calls")
    progress, total = counter("samplers and calls:"), len(COMPARED) * len(budgets)
    for name in COMPARED if budgets else ():
        rows[name] = []
        for budget in budgets:
            progress(sum(map(len, rows.values())), total)
            steps = (budget + 1) // 2 if name == "edm" else budget
            spec = {"name": name, "steps": steps}
            pixels, _ = samples(experiment, params, n, seed=seed + 1, sampler=spec)
            x = features(_as_model(experiment.train, pixels))
            rows[name].append([calls(spec), metrics.frechet_distance(metrics.moments(x), reference)])
    if budgets:
        progress(total, total)
    for name, found in rows.items():
        say(f"{name:<10}" + "".join(f"{calls:>6}: {distance:.3f}" for calls, distance in found))
    return rows


def strip(experiment: Experiment, params: Any, *, seed: int, steps: int = 9, rows: int = 5) -> dict[str, np.ndarray]:
    """The way of a few samples from noise to data: x_t, and what the model believes of the data there."""
    process = experiment.process
    ts = grids.karras(process, steps)
    labels = jnp.arange(rows, dtype=jnp.int32) % max(experiment.classes, 1)
    make = experiment.make_denoise(params, experiment.config["sample"]["guidance"])

    @jax.jit
    def one(key, label):
        denoise = make(label if experiment.classes else None)
        x = process.prior(key, experiment.train.shape, ts[0])
        path = walk(key, heun(process), denoise, x, ts, last=euler(process), trajectory=True)
        return path, jax.vmap(denoise)(path[:-1], ts[:-1])

    path, beliefs = jax.vmap(one)(jax.random.split(jax.random.key(seed), rows), labels)
    return {"path": np.asarray(path), "beliefs": np.asarray(beliefs), "times": np.asarray(ts)}


def _features(train, components):
    """The feature function of the metrics, and its name."""
    size = math.prod(train.shape)
    if 0 < components < size:
        return metrics.pca(train.to_model(), components), f"{components} principal components"
    return metrics.pixels(), f"the {size} pixels"


def _as_model(train, pixels):
    return data.to_model(pixels, train.levels)
