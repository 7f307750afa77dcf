"""A classifier of sequences, the third kind of model of the recipe: it draws nothing, and steers one that does.

What it reads says whom it can steer. "noisy": tokens z_t at their noise level, for D-CBG. "prefixes": clean tokens as
far as they are written, for FUDGE. "hidden": what the network of another run (`of`) makes of either, for NOS where that
run is a diffusion, and PPLM where it is autoregressive. It learns -log p(y | what it reads), of prefixes the mean over
their lengths from 0 to L."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.processes import Categorical

READS = ("noisy", "prefixes", "hidden")


class Judge(NamedTuple):
    """A network that tells classes: apply(params, *see(key, x0, t)) -> logits.

    Of prefixes, `step` reads one column more and `nothing(length)` is what it remembers of none."""

    reads: str
    apply: Any
    see: Any
    step: Any = None
    nothing: Any = None
    level: Any = None  # what one of noisy tokens hears of the time
    base_step: int | None = None  # of the run whose hidden states it reads

    @property
    def prefix(self) -> bool:
        """Whether it judges every prefix, by its own or by another network's hidden states."""
        return self.step is not None

    def logits(self, params: Any, key: Any, x0: Any, t: Any, dropout_key: Any = None) -> Any:
        """Class logits (classes,) of x0 noised to time t, or (L + 1, classes) of the prefixes of x0."""
        options = {} if dropout_key is None else {"key": dropout_key}
        return self.apply(params, *self.see(key, x0, t), **options)[0]

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """-log p(label | what it reads), in nats; keys of the noise and of dropout."""
        logits = self.logits(params, keys[0], x0, t, keys[1] if dropout else None)
        return -jnp.mean(jax.nn.log_softmax(logits)[..., label])


def noisy(process: Categorical, level: Any, key: Any, x0: Any, t: Any) -> tuple[Any, Any]:
    """(z_t, what the classifier hears of t), each with a batch axis."""
    return process.perturb(key, x0, t)[None], None if level is None else level(process, t)[None]


def prefixes(first: int, key: Any, x0: Any, t: Any) -> tuple[Any]:
    """x0 after the first token of an autoregressive model, with a batch axis."""
    return (jnp.concatenate([jnp.full((1,), first, x0.dtype), x0])[None],)


def hidden(model: Any, params: Any, label: Any, key: Any, x0: Any, t: Any) -> tuple[Any]:
    """What the network of another model makes of x0, with a batch axis."""
    return (model.states(params, label, key, x0, t)[None],)
