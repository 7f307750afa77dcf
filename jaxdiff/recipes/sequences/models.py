"""The two kinds of model of sequences, alike to the rest of the recipe: what a training of it minimises, how it draws,
and how likely it finds a sequence.

`Diffusion` is a token network and a process. `Autoregression` is a causal network that reads a first token `vocab`, of
its own, and then the sequence; its likelihood is exact."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import denoisers, guidance, samplers
from jaxdiff.errors import InputError
from jaxdiff.processes import Categorical, Mixing
from jaxdiff.recipes.progress import Progress
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.sequences.names import SAMPLERS
from jaxdiff.samplers import autoregressive

CHUNK = 128  # sequences written at a time


class Guide(NamedTuple):
    """How a model is steered to its class: gamma, the label that means none, and what D-CFG tempers."""

    gamma: float
    null: int | None
    tempers: str


class Diffusion(NamedTuple):
    """A network on tokens, its process, and the loss that trains it."""

    network: denoisers.TokenNetwork
    loss: Any

    @property
    def process(self) -> Categorical:
        """What noise does."""
        return self.network.process

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """The loss of one sequence at time t, in nats; keys of the noise and of dropout."""
        noise_key, dropout_key = keys
        return self.loss(noise_key, self.network(params, label, key=dropout_key if dropout else None), x0, t)

    def draw(
        self,
        key: Any,
        params: Any,
        n: int,
        length: int,
        labels: np.ndarray | None,
        spec: Mapping[str, Any],
        guide: Guide,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """n sequences (n, length) by the sampler of `spec`, with D-CFG of gamma."""
        make, temper = self._steered(params, guide)
        made = resolve("sample.sampler", SAMPLERS, spec, noise=self.process, temper=temper)
        return samplers.draw(key, n, make, made, (length,), cond=labels, progress=progress)

    def _steered(self, params, guide):
        """(label -> denoiser, kernel -> kernel) of a strength of guidance."""
        plain = self.network.bind(params), lambda kernel: kernel
        if guide.gamma == 1:
            return plain
        null = self.network(params, jnp.int32(guide.null))
        spread = not isinstance(self.process, Mixing) or self.process.spread
        if guide.tempers == "kernel" or (guide.tempers == "published" and spread):
            return plain[0], partial(guidance.tempered, null=null, gamma=guide.gamma)
        return Partial(_tempered, self.network, params, null, jnp.float32(guide.gamma)), plain[1]


def _tempered(network, params, null, gamma, label):
    return guidance.tempered_belief(network.process, network(params, label), null, gamma)


class Autoregression(NamedTuple):
    """A causal network: apply(params, tokens, None, labels) -> logits, and the same token by token."""

    apply: Any
    step: Any
    cache: Any  # (length) -> an empty cache of one sequence
    first: int

    def log_prob(self, params: Any, x0: Any, label: Any, key: Any = None) -> Any:
        """log p(x0 | label), exactly (with dropout where a key is given)."""
        cond, options = None if label is None else jnp.asarray(label)[None], {} if key is None else {"key": key}

        def logits(tokens):
            return self.apply(params, tokens[None], None, cond, **options)[0]

        return autoregressive.log_prob(logits, x0, jnp.int32(self.first))

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """-log p of one sequence, in nats; time plays no part."""
        return -self.log_prob(params, x0, label, keys[1] if dropout else None)

    def draw(
        self,
        key: Any,
        params: Any,
        n: int,
        length: int,
        labels: np.ndarray | None,
        spec: Mapping[str, Any],
        guide: Guide,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """n sequences (n, length), token by token, with guidance of gamma; `spec` is not asked: there is one way."""
        null, gamma = (None, None) if guide.gamma == 1 else (jnp.int32(guide.null), jnp.float32(guide.gamma))
        drawn = []
        for start in range(0, n, CHUNK):
            rows = np.minimum(
                np.arange(start, start + CHUNK), n - 1
            )  # the last chunk is filled up: one program for all n
            cond = None if labels is None else labels[rows]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(start, start + CHUNK))
            drawn.append(np.asarray(_written(self, params, keys, length, cond, null, gamma))[: n - start])
            if progress is not None:
                progress(min(start + CHUNK, n), n)
        return np.concatenate(drawn)


@eqx.filter_jit
def _written(model, params, keys, length, labels, null, gamma):
    def one(key, label):
        step, cache = Partial(_read, model.step, params, label), model.cache(length)
        if gamma is not None:
            step = guidance.tempered_step(step, Partial(_read, model.step, params, null), gamma)
            cache = cache, cache
        return autoregressive.generate(key, step, cache, model.first, length)

    return jax.vmap(one, (0, None if labels is None else 0))(keys, labels)


def _read(step, params, label, token, cache):
    logits, cache = step(params, token[None], cache, None, None if label is None else jnp.asarray(label)[None])
    return logits[0], cache


def checked_guide(config: Mapping[str, Any], classes: int | None, gamma: float, name: str) -> Guide:
    """The Guide of a strength; InputError for one that is not finite, or where no unconditional model was trained."""
    if not np.isfinite(gamma):
        raise InputError(f"the guidance gamma is {gamma}, expected a finite number; 1 is no guidance")
    if gamma != 1 and (classes is None or not config["label_dropout"]):
        why = f"{name} has no classes" if classes is None else "it was trained with label_dropout=0"
        raise InputError(
            f"guidance is {gamma}, but this model knows no sequences without their class ({why}): leave guidance at 1"
        )
    return Guide(float(gamma), classes, config["sample"]["tempers"])
