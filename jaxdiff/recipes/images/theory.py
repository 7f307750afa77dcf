"""What a trained image model has learnt of its training set, beyond it, and where its sampling error would come from.

    excess         the loss on training images above that of the optimum of the training set, by noise level; and the
                   loss on held-out images, which no optimum of the training set knows
    budget         E_I, E_D and E_S of the KL from the noised training set to what a walk with frozen scores draws, grid
                   by grid
    memorization   whether samples are nearer to training images than held-out images are

The optimum of the training set is `oracles.empirical`: the denoiser that remembers it, which a network of unlimited
capacity tends to. A network that generalises keeps away from it where noise is faint, so there its excess is large and
its E_S too, while its loss on held-out images is the lower. folder/theory.json holds the figures."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import grids, oracles
from jaxdiff.data import Images
from jaxdiff.domains.domain import Say
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.model import Model
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.likelihood import spread
from jaxdiff.runs.model import Run
from jaxdiff.runs.progress import counter
from jaxdiff.theory import error_budget, memorization, noise_predictor

AT_ONCE = 2**18  # numbers of the training set that one noisy image is compared with at a time
LOWEST, HIGHEST = 0.002, 80.0  # noise levels between which a budget is made, where the process reaches further


def theory(run: Run, *, n: int | None = None, seed: int = 1, say: Say = print) -> dict[str, Any]:
    """Measure as the config's `theory` says, on n images of each set (the config's by default); InputError where n
    cannot be."""
    (train, held_out), settings = run.data(), run.config["theory"]
    most = min(len(train), len(held_out))
    n = int(min(settings["images"] or most, most) if n is None else n)
    if not 2 <= n <= most:
        raise InputError(f"n is {n}, expected from 2 to {most}, as many as there are training and held-out images")
    excess_key, budget_key = jax.random.split(jax.random.key(seed))
    steps = int(run.config["sample"]["sampler"].get("steps", 18))
    return {
        "step": run.step,
        "data": train.name,
        "images": n,
        "excess": excess(run.model, train, held_out, excess_key, n, levels=settings["levels"], say=say),
        "budget": budget(run.model, train, budget_key, settings, steps=steps, say=say),
        "memorization": remembered(run.model, train, held_out, run.config["evaluate"]["samples"], seed=seed, say=say),
    }


def excess(
    model: Model, train: Images, held_out: Images, key: Any, n: int, *, levels: int, say: Say = print
) -> dict[str, Any]:
    """Squared errors of the predicted noise, per pixel, at so many noise levels: `noise_predictor.excess` on n training
    and n held-out images, each with its class."""
    process = model.process
    ts = _times(process, levels)
    optimum = _optimum(model, train).denoiser
    rows: dict[str, Any] = {"levels": list(map(float, _ratios(process, ts)))}
    sets = {"train": train, "held_out": held_out}
    for place, (name, images) in enumerate(sets.items()):
        some = spread(images, n)
        cond = some.labels if model.domain.classes else None
        progress = counter(f"excess loss on {n} {name.replace('_', '-')} images:")
        found = noise_predictor.excess(
            jax.random.fold_in(key, place),
            process,
            model.denoiser,
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


def budget(
    model: Model, train: Images, key: Any, settings: Mapping[str, Any], *, steps: int, say: Say = print
) -> dict[str, Any]:
    """The error budget of the training set's own law, down to a noise level of .002, in so many steps; `optimal` is the
    grid fitted to this model's measured error. `settings` are the config's of theory."""
    process = model.process
    law, denoise, spoken = _law_and_belief(model, train)
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


def remembered(model: Any, train: Images, held_out: Images, n: int, *, seed: int, say: Say = print) -> dict[str, Any]:
    """`memorization`'s figures of n samples by the config's sampler, beside what samples that know nothing of the
    training set would get."""
    drawn, _ = samples(model.plan(), n, seed=seed, progress=counter("drawing:"))
    rng = np.random.default_rng(seed)  # the first ones are compared, and a set may be sorted by class
    seen, fresh = (_rows(images.to_model())[rng.permutation(len(images))] for images in (train, held_out))
    found = memorization.summary(_rows(model.domain.to_model(drawn)), seen, fresh)
    say(
        f"nearer to a training image {found['closer']:.4f} (knowing nothing {found['null']:.4f}), excess "
        f"{found['excess']:.4f} +- {found['excess_std']:.2g}, copies {found['copies']:.4f} (held-out "
        f"{found['copies_null']:.4f}), Delta relative {found['delta_relative']:+.3g}"
    )
    return {"samples": n} | found


def _optimum(model, train, labels=True):
    x = train.to_model()
    labels = train.labels if labels and model.domain.classes else None
    chunk = max(1, AT_ONCE // max(x[0].size, 1))
    return oracles.empirical(model.process, x, labels=labels, chunk=chunk if chunk < len(x) else None)


def _law_and_belief(model, train):
    """The training set's law, the network as its denoiser, and the law's name: without a class, or of class 0 where no
    model without one was trained."""
    optimum = _optimum(model, train)
    if model.null is None:
        return optimum, model.denoiser(None), "the training set"
    if not isinstance(model.denoised.without, str):
        return _optimum(model, train, labels=False), model.denoised.without, "the training set"
    return optimum.given(0), model.denoiser(jnp.int32(0)), "class 0 of the training set"


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
