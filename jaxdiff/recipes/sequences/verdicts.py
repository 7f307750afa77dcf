"""How well a classifier of sequences finds classes, by what it is shown."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.metrics.estimate import mean
from jaxdiff.recipes.sequences.experiment import Experiment
from jaxdiff.recipes.sequences.judges import Judge

TIMES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)  # of the noise at which it is asked
CHUNK = 256  # sequences at a time


def verdicts(experiment: Experiment, params: Any, *, seed: int, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """How often a classifier finds the class of a held-out sequence, and -log p of it in nats, by what it is shown: by
    the time of the noise, or the length of the prefix."""
    judge, held_out = experiment.model, experiment.held_out
    assert isinstance(judge, Judge)
    assert held_out.labels is not None
    columns = np.unique(np.linspace(0, experiment.length, 5).astype(int)) if judge.prefix else np.zeros(1, int)
    chances = np.bincount(held_out.labels, minlength=held_out.num_classes) / len(held_out)

    @jax.jit
    def of_batch(keys, x, labels, t):
        def one(key, x0, label):
            logits = jnp.atleast_2d(judge.logits(params, key, x0, t))[columns]
            return jnp.argmax(logits, -1) == label, -jax.nn.log_softmax(logits)[:, label]

        return jax.vmap(one)(keys, x, labels)

    rows = []
    keys = jax.random.split(jax.random.key(seed), len(held_out))
    for t in (0.0,) if judge.prefix else TIMES:
        parts = [
            jax.device_get(of_batch(keys[i : i + CHUNK], *_slice(held_out, i), jnp.float32(t)))
            for i in range(0, len(held_out), CHUNK)
        ]
        right, nats = (np.concatenate(part) for part in zip(*parts, strict=True))
        for i, column in enumerate(columns):
            shown = f"{column} of {experiment.length} tokens" if judge.prefix else f"noise at t = {t:g}"
            accuracy, cost = mean(right[:, i]), mean(nats[:, i])
            rows.append({"shown": shown, "accuracy": list(accuracy), "nats": list(cost)})
            say(f"{shown}: right {accuracy}, {cost} nats")
    say(f"the commonest class alone: {chances.max():.4f}")
    return {
        "data": experiment.train.name,
        "kind": "classifier",
        "reads": judge.reads,
        "metrics": {"rows": rows, "chance": chances.max(), "sequences": len(held_out)},
    }


def _slice(tokens, start):
    return tokens.tokens[start : start + CHUNK], tokens.labels[start : start + CHUNK]
