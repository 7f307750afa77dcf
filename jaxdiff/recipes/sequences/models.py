"""The two kinds of model of sequences that draw, alike to the rest of the recipe: what a training of it minimises, how
it draws, and what it makes of a sequence on the way (`states`), for classifiers that read that.

`Diffusion` is a token network and a process. `Autoregression` is a causal network that reads a first token `vocab`, of
its own, and then the sequence; its likelihood is exact. `part` is a network's other methods, by name, as functions of
its parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import denoisers, samplers
from jaxdiff.processes import Categorical
from jaxdiff.recipes.progress import Progress
from jaxdiff.recipes.resolve import resolve
from jaxdiff.recipes.sequences import steering
from jaxdiff.recipes.sequences.names import SAMPLERS
from jaxdiff.recipes.sequences.steering import Guide
from jaxdiff.samplers import autoregressive

CHUNK = 128  # sequences written at a time


class Diffusion(NamedTuple):
    """A network on tokens, its process, and the loss that trains it."""

    network: denoisers.TokenNetwork
    loss: Any
    part: Any

    @property
    def process(self) -> Categorical:
        """What noise does."""
        return self.network.process

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """The loss of one sequence at time t, in nats per token; keys of the noise and of dropout."""
        noise_key, dropout_key = keys
        denoise = self.network(params, label, key=dropout_key if dropout else None)
        return self.loss(noise_key, denoise, x0, t) / x0.size

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
        """n sequences (n, length) by the sampler of `spec`, steered by `guide`."""
        make, temper = self.network.bind(params), lambda kernel: kernel
        if not guide.plain:
            make, temper = steering.steered(steering.OF_DIFFUSION, self, params, guide)
        made = resolve("sample.sampler", SAMPLERS, spec, noise=self.process, temper=temper)
        return samplers.draw(key, n, make, made, (length,), cond=labels, progress=progress)

    def hidden(self, params: Any, label: Any) -> Any:
        """(z, t) -> the network's last hidden state (length, width)."""
        return Partial(_hidden, self.network, self.part("hidden"), params, label)

    def head(self, params: Any, label: Any) -> Any:
        """(hidden state, t) -> the belief that is read from it."""
        return Partial(_head, self.network, self.part("head"), params, label)

    def states(self, params: Any, label: Any, key: Any, x0: Any, t: Any) -> Any:
        """The hidden state (length, width) of x0 noised to time t."""
        return self.hidden(params, label)(self.process.perturb(key, x0, t), t)


def _hidden(network, apply, params, label, z, t):
    return apply(params, z[None], network.heard(params, t), _row(label))[0]


def _head(network, apply, params, label, h, t):
    return network.meant(apply(params, h[None], network.heard(params, t), _row(label))[0])


def _row(label):
    return None if label is None else jnp.asarray(label)[None]


class Autoregression(NamedTuple):
    """A causal network: apply(params, tokens, None, labels) -> logits, and the same token by token."""

    apply: Any
    part: Any
    cache: Any  # (length) -> an empty cache of one sequence
    first: int

    def log_prob(self, params: Any, x0: Any, label: Any, key: Any = None) -> Any:
        """log p(x0 | label), exactly (with dropout where a key is given)."""
        cond, options = _row(label), {} if key is None else {"key": key}

        def logits(tokens):
            return self.apply(params, tokens[None], None, cond, **options)[0]

        return autoregressive.log_prob(logits, x0, jnp.int32(self.first))

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """-log p of one sequence, in nats per token; time plays no part."""
        return -self.log_prob(params, x0, label, keys[1] if dropout else None) / x0.size

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
        """n sequences (n, length), token by token, steered by `guide`; `spec` is not asked: there is one way."""
        make = Partial(_reader, self.part("step"), self.cache, params)
        if not guide.plain:
            make = steering.steered(steering.OF_AUTOREGRESSION, self, params, guide)
        drawn = []
        for start in range(0, n, CHUNK):
            rows = np.minimum(
                np.arange(start, start + CHUNK), n - 1
            )  # the last chunk is filled up: one program for all n
            cond = None if labels is None else labels[rows]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(start, start + CHUNK))
            drawn.append(np.asarray(_written(make, self.first, keys, length, cond))[: n - start])
            if progress is not None:
                progress(min(start + CHUNK, n), n)
        return np.concatenate(drawn)

    def reader(self, params: Any, label: Any, length: int) -> tuple[Any, Any]:
        """(the step that reads a token and says the next one's logits, its empty cache)."""
        return _reader(self.part("step"), self.cache, params, label, length)

    def halves(self, params: Any, label: Any, length: int) -> tuple[Any, Any, Any]:
        """(token, cache -> hidden state (width,), cache; hidden state -> logits; the empty cache)."""
        advance = Partial(_read, self.part("advance"), params, label)
        return advance, Partial(_say, self.part("head"), params, label), self.cache(length)

    def states(self, params: Any, label: Any, key: Any, x0: Any, t: Any) -> Any:
        """The hidden states (length + 1, width) of the first token and of x0; neither noise nor time play a part."""
        tokens = jnp.concatenate([jnp.full((1,), self.first, x0.dtype), x0])
        return self.part("hidden")(params, tokens[None], None, _row(label))[0]


@eqx.filter_jit
def _written(make, first, keys, length, labels):
    def one(key, label):
        step, cache = make(label, length)
        return autoregressive.generate(key, step, cache, first, length)

    return jax.vmap(one, (0, None if labels is None else 0))(keys, labels)


def _reader(step, cache, params, label, length):
    return Partial(_read, step, params, label), cache(length)


def _read(step, params, label, token, cache):
    said, cache = step(params, token[None], cache, None, _row(label))
    return said[0], cache


def _say(head, params, label, h):
    return head(params, h[None, None], None, _row(label))[0, 0]
