"""What a trained image model draws, beside real data.

folder/metrics.json       every metric with its floor, and the Frechet distance by denoiser calls
folder/evaluation.npz     the pictures that the report shows"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import grids, metrics
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say
from jaxdiff.domains.pictures import png, tile
from jaxdiff.domains.pixels import Pixels
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import npz, write
from jaxdiff.recipes.images.model import Model
from jaxdiff.runs.denoised import sampler
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Request, Run
from jaxdiff.runs.progress import counter
from jaxdiff.samplers import euler, heun
from jaxdiff.samplers import sample as walk

COMPARED = {"euler": "Euler", "edm": "Heun (EDM)", "ddim": "DDIM", "dpmpp_2m": "DPM-Solver++(2M)"}
"""The samplers of the curve, and what they are called."""


def measure(run: Run, *, seed: int = 1, say: Say = print) -> dict[str, Any]:
    """Samples measured as the config's `evaluate` says; InputError where they or the held-out data are too few or not
    finite."""
    settings, domain = run.config["evaluate"], run.model.domain
    n = settings["samples"]
    progress = counter(f"drawing from {run.place}:")
    pixels, labels = samples(run.model.plan(), n, seed=seed, progress=progress)
    train, held_out = run.data()
    features, spoken = _features(train, settings["components"])
    say(f"measuring {n} samples beside {len(train)} training and {len(held_out)} held-out images")
    found = domain.compare(pixels, labels, train, held_out, seed=seed, say=say, features=features)
    frechet = curve(run, train, features, found["counts"], seed=seed, say=say)
    pictures = {"samples": pixels, "levels": domain.levels, "classes": len(domain.classes)}
    write(run.folder / "evaluation.npz", npz(pictures | strip(run.model, seed=seed)))
    return {
        "step": run.step,
        "data": train.name,
        "sampler": run.config["sample"]["sampler"],
        "features": spoken,
        "metrics": found,
        "caveats": metrics.caveats(found),
        "curve": frechet,
    }


def curve(
    run: Run, train: Any, features: Any, counts: Mapping[str, float], *, seed: int, say: Say = print
) -> dict[str, list[list[float]]]:
    """Frechet distance to training images by denoiser calls, [[calls, distance], ...] a sampler, from the same noise.

    At the `counts` of the report: as many samples and as many training images, so that its floor is the curve's."""
    budgets, n, process = run.config["evaluate"]["curve"], int(counts["compared"]), run.model.process
    if not budgets:
        return {}
    real = np.random.default_rng(seed).permutation(len(train))[: int(counts["reference"])]
    reference = metrics.moments(features(train.take(np.sort(real)).to_model()))
    say(f"Frechet distance of {n} samples by denoiser calls")
    progress, total = counter("samplers and calls:"), len(COMPARED) * len(budgets)
    rows: dict[str, list[list[float]]] = {}
    for name in COMPARED:
        rows[name] = []
        for budget in budgets:
            progress(sum(map(len, rows.values())), total)
            spec = {"name": name, "steps": -(-budget // sampler({"name": name}, process).stepper.calls)}
            pixels, _ = samples(run.model.plan(Request(spec)), n, seed=seed + 1)
            x = features(run.model.domain.to_model(pixels))
            asked = sampler(spec, process).calls
            rows[name].append([asked, metrics.frechet_distance(metrics.moments(x), reference)])
    progress(total, total)
    for name, found in rows.items():
        say(f"{name:<10}" + "".join(f"{asked:>6}: {distance:.3f}" for asked, distance in found))
    return rows


def strip(model: Model, *, seed: int, steps: int = 9, rows: int = 5) -> dict[str, np.ndarray]:
    """The way of a few samples from noise to data: x_t, and what the model believes of the data there."""
    process, classes = model.process, len(model.domain.classes)
    ts = grids.karras(process, steps)
    labels = jnp.arange(rows, dtype=jnp.int32) % max(classes, 1)
    make = model.denoised.guided(model.config["sample"]["guidance"])

    @jax.jit
    def one(key, label):
        denoise = make(label if classes else None)
        x = process.prior(key, model.domain.shape, ts[0])
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


# The page ------------------------------------------------------------------------------------------------------------


def title(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """The title of a run's page, and the line below it."""
    options = ", ".join(f"{key} {value}" for key, value in found["sampler"].items() if key != "name")
    sampler = found["sampler"]["name"] + (f" ({options})" if options else "")
    name = f"{found['data'].split('/')[0]}: {config['process']['name']} process, {config['row']['name']} row"
    return name, f"Step {found['step']}. Samples by {sampler} with averaged parameters."


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Samples, the way from noise to data, metrics and the curve, as HTML; InputError where the pictures are gone."""
    if not (folder / "evaluation.npz").exists():
        raise InputError(f"{folder} has no evaluation.npz, the pictures of its metrics; run `jaxdiff evaluate` again")
    with np.load(folder / "evaluation.npz") as arrays:
        pictures = dict(arrays)
    x = pictures["samples"]
    names = tuple(map(str, range(int(pictures["classes"]))))
    domain = Pixels(found["data"], x.shape[1:], int(pictures["levels"]), names)
    counts = found["metrics"]["counts"]
    yield "<h2>Samples</h2>"
    yield from domain.show(x, None)
    yield "<h2>From noise to data</h2>"
    yield page.figure(
        png(_strip(pictures)),
        "Each pair of rows is one sample. Above: x_t, scaled to be seen; below: the clean image that the model "
        "believes in. Noise falls from left to right.",
        "pixels",
    )
    yield "<h2>How good, beside real data</h2>"
    yield from domain.figures(found["metrics"], {})
    yield from map(page.note, found["caveats"])
    yield page.note(
        f"Features: {found['features']}. Every figure compares {counts['compared']:.0f} images with "
        f"{counts['reference']:.0f}. The floor is the same figure for real images at the same counts, mean and "
        "standard deviation over random splits; z is the distance from it in those standard deviations. These figures "
        "are not FID, and compare with no published figure."
    )
    if found["curve"]:
        yield "<h2>Quality against denoiser calls</h2>"
        yield page.plot(
            _curve(found),
            f"Frechet distance on {found['features']} of {counts['compared']:.0f} samples to "
            f"{counts['reference']:.0f} training images, all from the same starting noise. The band is what as many "
            "real images get, two standard deviations either way.",
        )


def _strip(pictures):
    path, beliefs = pictures["path"][:, :-1], pictures["beliefs"]
    scale = np.abs(path).max(axis=(2, 3, 4), keepdims=True)
    noisy = 0.5 + 0.5 * path / np.maximum(scale, 1)
    rows = np.stack([noisy, np.clip(0.5 + 0.5 * beliefs, 0, 1)], axis=1)
    return tile(rows.reshape(-1, *rows.shape[2:]))


def _curve(result):
    figure, axes = page.axes()
    mean, std = (result["metrics"]["frechet"][field] for field in ("floor", "floor_std"))
    for (name, rows), marker in zip(result["curve"].items(), "osd^", strict=False):
        calls, distances = zip(*rows, strict=True)
        axes.plot(calls, distances, marker=marker, label=COMPARED[name])
    axes.axhspan(max(mean - 2 * std, 0.1 * mean), mean + 2 * std, color="gray", alpha=0.3, lw=0, label="real data")
    axes.set(xscale="log", yscale="log", xlabel="denoiser calls", ylabel="Frechet distance")
    ticks = sorted({call for rows in result["curve"].values() for call, _ in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return figure
