"""How likely a trained model finds the held-out sequences, in bits per token.

Of an autoregressive model the figure is exact; of a diffusion it is a bound, with every constant in it. All tokens
count, those of the frame (`<bos>`, `<pad>`) too, as all are modelled.

workdir/likelihood.json holds it; what is done is kept in workdir/likelihood/, so that the same command after an
interruption goes on."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdiff import likelihood as nats
from jaxdiff.errors import InputError
from jaxdiff.recipes.progress import counter
from jaxdiff.recipes.sequences.experiment import Experiment
from jaxdiff.recipes.sequences.models import Autoregression
from jaxdiff.recipes.sequences.run import load
from jaxdiff.recipes.workdir import write

ROWS = 256  # of the network at a time: sequences by times


def likelihood(
    workdir: str | Path,
    *,
    n: int | None = None,
    draws: int | None = None,
    seed: int = 1,
    say: Callable[..., Any] = print,
) -> dict[str, Any]:
    """The bits per token of held-out sequences under the newest checkpoint of `workdir`; writes and returns
    likelihood.json.

    `n` sequences, `draws` of noise and times each (the config's by default). Raises InputError where there is no
    checkpoint, or n or draws cannot be."""
    workdir = Path(workdir)
    experiment, params, step = load(workdir)
    settings, held_out = experiment.config["likelihood"], experiment.held_out
    exact = isinstance(experiment.writer, Autoregression)
    draws = int(settings["draws"] if draws is None else draws)
    n = int(min(settings["sequences"] or len(held_out), len(held_out)) if n is None else n)
    if not 1 <= n <= len(held_out):
        raise InputError(f"n is {n}, expected from 1 to {len(held_out)}, the number of held-out sequences")
    if draws < 1:
        raise InputError(f"draws is {draws}, expected at least 1")
    held_out = held_out.take(np.arange(n) * len(held_out) // n)  # all along the set: it may be sorted by class
    mark = f"step{step}-{n}x{draws}-seed{seed}-{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"
    found = nats.bits_per_token(
        jax.random.key(seed),
        measure(experiment, params),
        held_out.tokens,
        cond=held_out.labels if experiment.null is not None else None,
        draws=draws,
        chunk=min(max(ROWS // settings["times"], 1), n),
        resume=workdir / "likelihood" / f"bits-{mark}.npz",
        progress=counter(f"likelihood of {n} sequences:"),
    )
    say(
        f"{'exactly' if exact else 'at most'} {found.bits:.4f} +- {found.stderr:.4f} bits per token, perplexity "
        f"{found.perplexity:.4f} +- {found.perplexity_stderr:.4f}"
    )
    result: dict[str, Any] = {
        "step": step,
        "data": held_out.name,
        "sequences": n,
        "tokens": found.tokens,
        "draws": draws,
        "exact": exact,
        "bits": found.bits,
        "stderr": found.stderr,
        "perplexity": found.perplexity,
        "perplexity_stderr": found.perplexity_stderr,
        "terms": found.terms,
    }
    write(workdir / "likelihood.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def measure(experiment: Experiment, params: Any) -> Any:
    """log_prob(key, x, label, mask) of one sequence, in nats, as `bits_per_token` asks it."""
    model, settings = experiment.writer, experiment.config["likelihood"]
    if isinstance(model, Autoregression):
        return lambda key, x, label, mask: model.log_prob(params, x, label)

    def bound(key, x, label, mask):
        denoise = model.network(params, label)
        return nats.nelbo(key, model.process, denoise, x, mask=mask, n_times=settings["times"], draws=1).terms

    return bound
