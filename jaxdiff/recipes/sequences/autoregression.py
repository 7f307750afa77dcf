"""Token by token: a causal network that reads a first token `vocab`, of its own, and then the sequence; its likelihood
is exact."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.numerics import chunks
from jaxdiff.recipes.sequences import steering
from jaxdiff.recipes.sequences.diffusion import ROWS, bits_of
from jaxdiff.recipes.sequences.parts import check_reads_text, maker, methods, nothing, row
from jaxdiff.recipes.sequences.steering import Guide
from jaxdiff.runs.model import Asked
from jaxdiff.samplers import autoregressive

CHUNK = 128  # sequences written at a time


class Autoregression(NamedTuple):
    """A causal network of `make`: apply(params, tokens, None, labels) -> logits, its other methods by name, and
    (length) -> an empty cache of one sequence."""

    make: Callable[[], Any]
    apply: Any
    part: Any
    cache: Any
    first: int

    @property
    def process(self) -> None:
        """It has none, and trains at no times."""
        return None

    def log_prob_of(self, params: Any, x0: Any, label: Any, key: Any = None) -> Any:
        """log p(x0 | label), exactly (with dropout where a key is given)."""
        cond, options = row(label), {} if key is None else {"key": key}

        def logits(tokens):
            return self.apply(params, tokens[None], None, cond, **options)[0]

        return autoregressive.log_prob(logits, x0, jnp.int32(self.first))

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """-log p of one sequence, in nats per token; time plays no part."""
        return -self.log_prob_of(params, x0, label, keys[1] if dropout else None) / x0.size

    def drawing(self, params: Any, length: int, spec: Mapping[str, Any], guide: Guide) -> Callable[..., Any]:
        """(key, n, labels, progress) -> n sequences (n, length), token by token, steered by `guide`; there is one way,
        so a config's sampler plays no part."""
        make = Partial(_reader, self.part("step"), self.cache, params)
        if not guide.plain:
            make = steering.steered(steering.OF_AUTOREGRESSION, self, params, guide)
        return Partial(_drawn, make, self.first, length)

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
        return self.part("hidden")(params, tokens[None], None, row(label))[0]

    def bits(self, params: Any, held_out: Any, cond: Any, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Bits per token, exactly."""
        chunk = min(max(ROWS // settings["times"], 1), len(held_out))
        return bits_of(self.log_prob(params, settings), held_out, cond, asked, chunk, exact=True)

    def log_prob(self, params: Any, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """(key, x, label, mask) -> log p of one sequence, in nats, as `bits_per_token` asks it."""
        return lambda key, x, label, mask: self.log_prob_of(params, x, label)


def _drawn(make, first, length, key, n, labels, progress=None):
    def write(places, labels):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
        return _written(make, first, keys, length, labels)

    return chunks.over(write, n, labels, chunk=CHUNK, progress=progress)


@eqx.filter_jit
def _written(make, first, keys, length, labels):
    def one(key, label):
        step, cache = make(label, length)
        return autoregressive.generate(key, step, cache, first, length)

    return jax.vmap(one, (0, None if labels is None else 0))(keys, labels)


def _reader(step, cache, params, label, length):
    return Partial(_read, step, params, label), cache(length)


def _read(step, params, label, token, cache):
    said, cache = step(params, token[None], cache, None, row(label))
    return said[0], cache


def _say(head, params, label, h):
    return head(params, h[None, None], None, row(label))[0, 0]


class Writing(NamedTuple):
    """Token by token: the baseline of the same network (config.model)."""

    def build(self, config: Mapping[str, Any], domain: Any) -> Autoregression:
        """The autoregressive model of a complete config for sequences of `domain`."""
        check_reads_text(config)
        make = maker(
            config,
            vocab=domain.vocab,
            states=domain.vocab + 1,  # a first token
            num_classes=len(domain.classes) or None,
            causal=True,
            time_conditioned=False,
            shape=getattr(domain.tokeniser, "shape", (domain.length,)),
        )
        part = methods(make)
        empty = nothing(make, lambda net, length: net.init_cache(1, length))
        return Autoregression(make, part("__call__"), part, empty, domain.vocab)
