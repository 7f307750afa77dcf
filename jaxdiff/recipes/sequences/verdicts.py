"""How well a classifier of sequences finds classes, by what it is shown."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.sequences import Tokens
from jaxdiff.domains import page
from jaxdiff.domains.domain import Say
from jaxdiff.metrics.estimate import mean
from jaxdiff.recipes.sequences.model import Judging

TIMES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)  # of the noise at which it is asked
CHUNK = 256  # sequences at a time


def verdicts(model: Judging, held_out: Tokens, *, seed: int, say: Say = print) -> dict[str, Any]:
    """How often a classifier finds the class of a held-out sequence, and -log p of it in nats, by what it is shown: by
    the time of the noise, or the length of the prefix."""
    judge, length, labels = model.kind, model.domain.length, np.asarray(held_out.labels)
    prefix = judge.step is not None
    columns = np.unique(np.linspace(0, length, 5).astype(int)) if prefix else np.zeros(1, int)
    chances = np.bincount(labels, minlength=held_out.num_classes) / len(held_out)

    @jax.jit
    def of_batch(keys, x, labels, t):
        def one(key, x0, label):
            logits = jnp.atleast_2d(judge.logits(model.params, key, x0, t))[columns]
            return jnp.argmax(logits, -1) == label, -jax.nn.log_softmax(logits)[:, label]

        return jax.vmap(one)(keys, x, labels)

    rows, keys = [], jax.random.split(jax.random.key(seed), len(held_out))
    for t in (0.0,) if prefix else TIMES:
        chunks = [slice(i, i + CHUNK) for i in range(0, len(held_out), CHUNK)]
        parts = [
            jax.device_get(of_batch(keys[some], held_out.tokens[some], labels[some], jnp.float32(t))) for some in chunks
        ]
        right, nats = (np.concatenate(part) for part in zip(*parts, strict=True))
        for i, column in enumerate(columns):
            shown = f"{column} of {length} tokens" if prefix else f"noise at t = {t:g}"
            accuracy, cost = mean(right[:, i]), mean(nats[:, i])
            rows.append({"shown": shown, "accuracy": list(accuracy), "nats": list(cost)})
            say(f"{shown}: right {accuracy}, {cost} nats")
    say(f"the commonest class alone: {chances.max():.4f}")
    return {
        "kind": "classifier",
        "reads": judge.reads,
        "metrics": {"rows": rows, "chance": chances.max(), "sequences": len(held_out)},
    }


def title(found: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """The title of a classifier's page, and the line below it."""
    name = f"{found['data'].split('/')[0]}: a classifier of {found['reads']} tokens"
    return name, f"Step {found['step']}, with averaged parameters."


def parts(found: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """How well it finds classes, as HTML."""
    figures = found["metrics"]
    yield "<h2>How well it finds classes</h2>"
    yield page.table(
        ("shown", "right", "-log p of the class, nats"),
        ((row["shown"], page.pair(row["accuracy"]), page.pair(row["nats"])) for row in figures["rows"]),
    )
    yield page.note(
        f"Of {figures['sequences']} held-out sequences. To say the commonest class always is right in "
        f"{page.shown(figures['chance'])} of them."
    )
