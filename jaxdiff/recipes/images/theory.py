"""What a trained image model has learnt of its training set, beyond it, and where its sampling error would come from.

    excess         the loss on training images above that of the optimum of the training set, by noise level; and the
                   loss on held-out images, which no optimum of the training set knows
    budget         E_I, E_D and E_S of the KL from the noised training set to what a walk with frozen scores draws, grid
                   by grid
    memorization   whether samples are nearer to training images than held-out images are

The optimum of the training set is `oracles.empirical`: the denoiser that remembers it, which a network of unlimited
capacity tends to. A network that generalises keeps away from it where noise is faint, so there its excess is large and
its E_S too, while its loss on held-out images is the lower. workdir/theory.json holds the figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, grids, oracles
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.drawing import samples
from jaxdiff.recipes.images.experiment import Experiment
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.workdir import plain, write
from jaxdiff.theory import error_budget, memorization, noise_predictor

Say = Callable[[str], Any]

AT_ONCE = 2**18  # numbers of the training set that one noisy image is compared with at a time
LOWEST, HIGHEST = 0.002, 80.0  # noise levels between which a budget is made, where the process reaches further


def theory(workdir: str | Path, *, n: int | None = None, seed: int = 1, say: Say = print) -> dict[str, Any]:
    """Measure the newest checkpoint of `workdir` as its config's `theory` says; writes and returns theory.json.

    `n` images of each set (the config's by default). Raises InputError where there is no checkpoint, or n cannot be."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    train, held_out, settings = experiment.train, experiment.held_out, experiment.config["theory"]
    most = min(len(train), len(held_out))
    n = int(min(settings["images"] or most, most) if n is None else n)
    if not 2 <= n <= most:
        raise InputError(f"n is {n}, expected from 2 to {most}, as many as there are training and held-out images")
    excess_key, budget_key = jax.random.split(jax.random.key(seed))
    result = {
        "step": step,
        "data": train.name,
        "images": n,
        "excess": excess(experiment, params, excess_key, n, say=say),
        "budget": budget(experiment, params, budget_key, say=say),
        "memorization": remembered(experiment, params, seed=seed, say=say),
    }
    result = plain(result)
    write(workdir / "theory.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def excess(experiment: Experiment, params: Any, key: Any, n: int, *, say: Say = print) -> dict[str, Any]:
    """Squared errors of the predicted noise, per pixel, by noise level: `noise_predictor.excess` on n training and n
    held-out images, each with its class."""
    process, make = experiment.process, experiment.network.bind(params)
    ts = _times(process, experiment.config["theory"]["levels"])
    optimum = _optimum(experiment).denoiser
    rows: dict[str, Any] = {"levels": list(map(float, _ratios(process, ts)))}
    sets = {"train": experiment.train, "held_out": experiment.held_out}
    for place, (name, images) in enumerate(sets.items()):
        some = images.take(np.arange(n) * len(images) // n)  # all along the set: it may be sorted by class
        cond = some.labels if experiment.classes else None
        progress = counter(f"excess loss on {n} {name.replace('_', '-')} images:")
        found = noise_predictor.excess(
            jax.random.fold_in(key, place),
            process,
            make,
            optimum,
            some.to_model(),
            ts,
            cond=cond,
            draws=2,
            progress=progress,
        )
        rows[name] = {
            each: {"value": curve.value, "stderr": curve.stderr, "mean": [curve.mean, curve.mean_stderr]}
            for each in ("loss", "irreducible", "excess", "distance")
            for curve in (getattr(found, each),)
        }
        shown = ", ".join(f"{each} {row['mean'][0]:.4f} +- {row['mean'][1]:.4f}" for each, row in rows[name].items())
        say(f"{name.replace('_', '-')} images, mean over levels: {shown}")
    return rows


def budget(experiment: Experiment, params: Any, key: Any, *, say: Say = print) -> dict[str, Any]:
    """The error budget of the training set's own law, down to a noise level of .002, in as many steps as the config's
    sampler has; `optimal` is the grid fitted to this model's measured error."""
    process, settings = experiment.process, experiment.config["theory"]
    steps = int(experiment.config["sample"]["sampler"].get("steps", 18))
    law, denoise, spoken = _law_and_belief(experiment, params)
    lowest, top = _ends(process)
    # Grids of a process without noise at t = 0 spend their last step from the least level to there: not this walk.
    given = steps if _ratios(process, 0.0) > 0 else steps + 1
    fit_key, key = jax.random.split(key)  # the fitted grid is judged on other draws than it was fitted to
    ends = {"sigma_min": lowest, "sigma_max": top}
    made = {name: getattr(grids, name)(process, given, **ends) for name in ("karras", "logsnr", "vp")}
    levels = np.geomspace(lowest, top, settings["levels"])
    profile = error_budget.profile(fit_key, law, levels, denoise=denoise, draws=settings["draws"], chunk=64)
    made["optimal"] = grids.optimal(
        process, given, error_budget.step_cost(process, profile), sigma_min=lowest, sigma_max=top
    )
    rows, walked = {}, 0
    for name, ts in made.items():
        ts = ts if _ratios(process, ts[-1]) > 0 else ts[:-1]
        found = error_budget.monte_carlo(key, law, ts, denoise=denoise, draws=settings["draws"], chunk=64)
        walked = len(found.discretisation)
        terms = {
            "initialisation": found.initialisation,
            "discretisation": found.discretisation.sum(),
            "score": found.score.sum(),
            "bound": found.bound,
        }
        rows[name] = {each: [float(value), float(found.stderr[each])] for each, value in terms.items()}
        say(f"{name} grid, nats: " + ", ".join(f"{each} {a:.4g} +- {b:.2g}" for each, (a, b) in rows[name].items()))
    error = {"levels": levels, "square": profile.squares, "stderr": profile.square_stderr, "share": profile.shares}
    return {
        "steps": walked,
        "law": spoken,
        "ends": [lowest, top],
        "grids": rows,
        "error": {each: np.asarray(value) for each, value in error.items()},
    }


def remembered(experiment: Experiment, params: Any, *, seed: int, say: Say = print) -> dict[str, Any]:
    """`memorization`'s figures of samples by the config's sampler, beside what samples that know nothing of the
    training set would get."""
    train, held_out, n = experiment.train, experiment.held_out, experiment.config["evaluate"]["samples"]
    drawn, _ = samples(experiment, params, n, seed=seed, progress=counter("drawing:"))
    rng = np.random.default_rng(seed)  # the first ones are compared, and a set may be sorted by class
    seen, fresh = (_rows(images.to_model())[rng.permutation(len(images))] for images in (train, held_out))
    found = memorization.summary(_rows(data.to_model(drawn, train.levels)), seen, fresh)
    say(
        f"nearer to a training image {found['closer']:.4f} (knowing nothing {found['null']:.4f}), excess "
        f"{found['excess']:.4f} +- {found['excess_std']:.2g}, copies {found['copies']:.4f} (held-out "
        f"{found['copies_null']:.4f}), Delta relative {found['delta_relative']:+.3g}"
    )
    return {"samples": n} | found


def _optimum(experiment, labels=True):
    x = experiment.train.to_model()
    labels = experiment.train.labels if labels and experiment.classes else None
    chunk = max(1, AT_ONCE // max(x[0].size, 1))
    return oracles.empirical(experiment.process, x, labels=labels, chunk=chunk if chunk < len(x) else None)


def _law_and_belief(experiment, params):
    """The training set's law, the network as its denoiser, and the law's name: without a class, or of class 0 where no
    model without one was trained."""
    optimum, null = _optimum(experiment), experiment.null
    if null is None:
        return optimum, experiment.network(params, None), "the training set"
    if experiment.config["label_dropout"]:
        return _optimum(experiment, labels=False), experiment.network(params, jnp.int32(null)), "the training set"
    return optimum.given(0), experiment.network(params, jnp.int32(0)), "class 0 of the training set"


def _times(process, count):
    """Times of `count` even log noise levels, from the most that is sampled from to the least."""
    return grids.logsnr(process, count, sigma_max=_ends(process)[1])[:count]


def _ends(process):
    """The least and the greatest noise level of a budget."""
    low, high = _ratios(process, [0.0, 1.0])
    return float(max(LOWEST, low)), float(min(HIGHEST, high))


def _ratios(process, ts):
    alpha, sigma = process.scales(jnp.asarray(ts, jnp.float32))
    return np.asarray(sigma / alpha)


def _rows(x):
    return np.asarray(x, np.float64).reshape(len(x), -1)
