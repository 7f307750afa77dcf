"""Diffusion of tokens: a network, the process that it undoes, and the loss that trains it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax.tree_util import Partial

from jaxdiff import beliefs, denoisers, likelihood, samplers
from jaxdiff.processes import Categorical
from jaxdiff.recipes.sequences import names, steering
from jaxdiff.recipes.sequences.parts import level, maker, methods, row
from jaxdiff.recipes.sequences.steering import Guide
from jaxdiff.runs.model import Asked
from jaxdiff.runs.resolve import resolve

MEANINGS = {"leave_one_out": beliefs.LeaveOneOut, "posterior": beliefs.Posterior}
ROWS = 256  # of the network at a time, where likelihoods are computed: sequences by times


class Diffusion(NamedTuple):
    """A network on tokens, of `make`, with its process; `loss` of one sequence, and the network's other methods as
    functions of its parameters, `part(name)`."""

    make: Callable[[], Any]
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

    def sampler(self, spec: Mapping[str, Any], temper: Any = steering.same) -> samplers.Sampler:
        """The Sampler that `spec` names, with its kernel steered; InputError for one that cannot be."""
        return resolve("sample.sampler", names.SAMPLERS, spec, noise=self.process, temper=temper)

    def drawing(self, params: Any, length: int, spec: Mapping[str, Any], guide: Guide) -> Callable[..., Any]:
        """(key, n, labels, progress) -> n sequences (n, length) by the sampler of `spec`, steered by `guide`."""
        make, temper = self.network.bind(params), steering.same
        if not guide.plain:
            make, temper = steering.steered(steering.OF_DIFFUSION, self, params, guide)
        return Partial(_drawn, make, self.sampler(spec, temper), length)

    def hidden(self, params: Any, label: Any) -> Any:
        """(z, t) -> the network's last hidden state (length, width)."""
        return Partial(_hidden, self.network, self.part("hidden"), params, label)

    def head(self, params: Any, label: Any) -> Any:
        """(hidden state, t) -> the belief that is read from it."""
        return Partial(_head, self.network, self.part("head"), params, label)

    def states(self, params: Any, label: Any, key: Any, x0: Any, t: Any) -> Any:
        """The hidden state (length, width) of x0 noised to time t."""
        return self.hidden(params, label)(self.process.perturb(key, x0, t), t)

    def bits(self, params: Any, held_out: Any, cond: Any, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Bits per token at most: the variational bound, with every constant in it."""
        log_prob, chunk = self.log_prob(params, settings), min(max(ROWS // settings["times"], 1), len(held_out))
        return bits_of(log_prob, held_out, cond, asked, chunk, exact=False)

    def log_prob(self, params: Any, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """(key, x, label, mask) -> the terms of the bound on one sequence, in nats, as `bits_per_token` asks it."""

        def bound(key, x, label, mask):
            denoise, times = self.network(params, label), settings["times"]
            return likelihood.nelbo(key, self.process, denoise, x, mask=mask, n_times=times, draws=1).terms

        return bound


def _drawn(make, sampler, length, key, n, labels, progress=None):
    return samplers.draw(key, n, make, sampler, (length,), cond=labels, progress=progress)


def _hidden(network, apply, params, label, z, t):
    return apply(params, z[None], network.heard(params, t), row(label))[0]


def _head(network, apply, params, label, h, t):
    return network.meant(apply(params, h[None], network.heard(params, t), row(label))[0])


def bits_of(log_prob: Any, held_out: Any, cond: Any, asked: Asked, chunk: int, *, exact: bool) -> dict[str, Any]:
    """Figures of held-out sequences under `log_prob`, exact or a bound."""
    options = {"cond": cond, "draws": asked.draws, "chunk": chunk}
    watched = {"resume": asked.resume("bits"), "progress": asked.progress("likelihood")}
    found = likelihood.bits_per_token(asked.key, log_prob, held_out.tokens, **options, **watched)
    asked.say(
        f"{'exactly' if exact else 'at most'} {found.bits:.4f} +- {found.stderr:.4f} bits per token, perplexity "
        f"{found.perplexity:.4f} +- {found.perplexity_stderr:.4f}"
    )
    return {
        "tokens": found.tokens,
        "exact": exact,
        "bits": found.bits,
        "stderr": found.stderr,
        "perplexity": found.perplexity,
        "perplexity_stderr": found.perplexity_stderr,
        "terms": found.terms,
    }


def process_of(config: Mapping[str, Any], vocab: int) -> Categorical:
    """The process that a config names, on so many tokens."""
    alpha = resolve("alpha", names.ALPHAS, config["alpha"])
    return resolve("process", names.PROCESSES, config["process"], vocab=vocab, alpha=alpha)


class Diffusing(NamedTuple):
    """A process undone (config.model)."""

    def build(self, config: Mapping[str, Any], domain: Any) -> Diffusion:
        """The diffusion of a complete config for sequences of `domain`."""
        process, heard = process_of(config, domain.vocab), level(config)
        make = maker(
            config,
            vocab=domain.vocab,
            states=process.states,
            num_classes=len(domain.classes) or None,
            causal=False,
            time_conditioned=heard is not None,
            shape=getattr(domain.tokeniser, "shape", (domain.length,)),
        )
        part = methods(make)
        network = denoisers.from_token_network(part("__call__"), process, MEANINGS[config["meaning"]], level=heard)
        return Diffusion(make, network, resolve("loss", names.LOSSES, config["loss"], noise=process), part)
