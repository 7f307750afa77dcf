"""How likely a trained model finds the held-out images, in bits per dimension.

    elbo   the variational bound of the reverse SDE
    flow   the same, with the density of the probability flow at t0 in the place of the SDE's bound

Both are bounds on -log2 P(x) of the whole grey levels that the images are stored in: below t0 by the discrete decoder,
or, for a model that was trained on dequantised images, of such by the Gaussian decoder.

workdir/likelihood.json holds them; what is done of each is kept in workdir/likelihood/, so that the same command after
an interruption goes on."""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import grids
from jaxdiff import likelihood as nats
from jaxdiff.errors import InputError
from jaxdiff.recipes.images.experiment import Experiment
from jaxdiff.recipes.images.run import load
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.workdir import write

CHUNK = 32  # images at a time

Say = Callable[[str], Any]


def likelihood(
    workdir: str | Path, *, n: int | None = None, draws: int | None = None, seed: int = 1, say: Say = print
) -> dict[str, Any]:
    """The bits/dim of held-out images under the newest checkpoint of `workdir`; writes and returns likelihood.json.

    `n` images (all of them by default), `draws` of noise and probes each (the config's by default). A figure with
    failed solves is None. Raises InputError where there is no checkpoint, or n or draws cannot be."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    settings, held_out = experiment.config["likelihood"], experiment.held_out
    draws = int(settings["draws"] if draws is None else draws)
    n = int(min(settings["images"] or len(held_out), len(held_out)) if n is None else n)
    if not 1 <= n <= len(held_out):
        raise InputError(f"n is {n}, expected from 1 to {len(held_out)}, the number of held-out images")
    held_out = held_out.take(np.arange(n) * len(held_out) // n)  # all along the set: it may be sorted by class
    x, cond = held_out.to_model(), held_out.labels if experiment.classes else None
    rows, kept = {}, workdir / "likelihood"
    found, spread = measures(experiment, params)
    # Figures of other settings are other figures, and must not be gone on with.
    mark = f"step{step}-{n}x{draws}-seed{seed}-{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"
    for name, log_prob in found.items():
        row = nats.bits_per_dim(
            jax.random.key(seed),
            log_prob,
            x,
            dequantize=spread,
            draws=draws,
            cond=cond,
            chunk=CHUNK,
            resume=kept / f"{name}-{mark}.npz",
            progress=counter(f"{name}, {n} images:"),
        )
        rows[name] = row
        failed = f"; {row.failed} of {row.each.size} solves failed" if row.failed else ""
        say(f"{name}: {row.mean:.4f} bits/dim, 95 % interval {row.low:.4f} to {row.high:.4f}{failed}")
    result: dict[str, Any] = {
        "step": step,
        "data": held_out.name,
        "images": n,
        "draws": draws,
        "levels": held_out.levels,
        "dequantized": spread is not None,
        "bits": {
            name: {
                "mean": _number(row.mean),
                "interval": [_number(row.low), _number(row.high)],
                "terms": {term: _number(value) for term, value in row.terms.items()},
                "failed": row.failed,
            }
            for name, row in rows.items()
        },
        "elbo_minus_flow": _paired(rows["elbo"].each.mean(1) - rows["flow"].each.mean(1)),
    }
    write(workdir / "likelihood.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def measures(experiment: Experiment, params: Any) -> tuple[dict[str, Any], Any]:
    """({name: log_prob(key, x, label) of one image}, the dequantiser of the images or None), for `bits_per_dim`."""
    settings, process, levels = experiment.config["likelihood"], experiment.process, experiment.train.levels
    spread = nats.dequantize.uniform(levels) if experiment.config["dequantize"] else None
    decoder = nats.decoders.discrete(levels) if spread is None else nats.decoders.gaussian()
    denoiser = experiment.network.bind(params)

    def elbo(key, x, label):
        options = {"times": grids.importance_times, "n_times": settings["times"], "draws": 1}
        return nats.elbo(key, process, denoiser(label), x, decoder=decoder, **options).terms

    def flow(key, x, label):
        noise_key, key = jax.random.split(key)
        denoise = denoiser(label)
        z, terms = nats.truncate(noise_key, process, denoise, x, decoder)
        chosen = {name: settings[name] for name in ("divergence", "probes", "rtol", "atol")}
        return terms | {"flow": nats.flow_log_prob(key, process, denoise, z, **chosen).log_prob}

    return {"elbo": elbo, "flow": flow}, spread


def _paired(difference):
    """The mean of bits/dim differences of the same images, and its standard error."""
    n = len(difference)
    error = float(np.std(difference, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return {"mean": _number(float(np.mean(difference))), "stderr": _number(error)}


def _number(value):
    return value if math.isfinite(value) else None
