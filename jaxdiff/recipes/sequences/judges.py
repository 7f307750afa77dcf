"""Classifiers of sequences, which draw nothing, and steer a model that does.

What one reads says whom it can steer, and how (`ways`): tokens z_t at their noise level, for D-CBG; clean tokens as far
as they are written, for FUDGE; or what the network of another run makes of either, for NOS where that run is a
diffusion, and PPLM where it is autoregressive. It learns -log p(y | what it reads), of prefixes the mean over their
lengths from 0 to L."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdiff import networks
from jaxdiff.errors import InputError
from jaxdiff.networks.streams import counted
from jaxdiff.recipes.sequences.autoregression import Autoregression
from jaxdiff.recipes.sequences.diffusion import Diffusion, process_of
from jaxdiff.recipes.sequences.parts import check_reads_text, level, maker, methods, nothing
from jaxdiff.runs.model import Run


@dataclass(frozen=True)
class Judge:
    """A network that tells classes: apply(params, *see(key, x0, t)) -> logits.

    One that judges every prefix has a `step`, which reads one column more, and `nothing(length)`, what it remembers of
    none. `process` is that at whose times it trains."""

    make: Callable[[], Any]
    apply: Any
    step: Any = None
    nothing: Any = None
    process: Any = None
    reads: ClassVar[str] = ""
    ways: ClassVar[tuple[str, ...]] = ()

    def see(self, key: Any, x0: Any, t: Any) -> tuple[Any, ...]:
        """What it reads of x0 at time t, each with a batch axis."""
        return (x0[None],)

    def logits(self, params: Any, key: Any, x0: Any, t: Any, dropout_key: Any = None) -> Any:
        """Class logits (classes,) of x0 noised to time t, or (L + 1, classes) of the prefixes of x0."""
        options = {} if dropout_key is None else {"key": dropout_key}
        return self.apply(params, *self.see(key, x0, t), **options)[0]

    def cost(self, params: Any, keys: Any, x0: Any, label: Any, t: Any, *, dropout: bool) -> Any:
        """-log p(label | what it reads), in nats; keys of the noise and of dropout."""
        logits = self.logits(params, keys[0], x0, t, keys[1] if dropout else None)
        return -jnp.mean(jax.nn.log_softmax(logits)[..., label])

    def check_guides(self, own: Mapping[str, Any], its: Mapping[str, Any], folder: Path, guide: Path) -> None:
        """InputError where this judge, of the run `guide` with config `its`, was not made for the run in `folder`."""


@dataclass(frozen=True)
class NoisyJudge(Judge):
    """It reads tokens at their noise level, of which it hears `level`."""

    level: Any = None
    reads: ClassVar[str] = "noisy"
    ways: ClassVar[tuple[str, ...]] = ("classifier_based",)

    def see(self, key: Any, x0: Any, t: Any) -> tuple[Any, Any]:
        heard = None if self.level is None else self.level(self.process, t)[None]
        return self.process.perturb(key, x0, t)[None], heard

    def check_guides(self, own: Mapping[str, Any], its: Mapping[str, Any], folder: Path, guide: Path) -> None:
        diffuses = own["model"]["name"] == "diffusion"
        if diffuses and any(own[part] != its[part] for part in ("process", "alpha")):
            raise InputError(
                f"the guide {guide} knows the noise of {its['process']}, {its['alpha']}, and {folder} has "
                f"{own['process']}, {own['alpha']}: train it with the same"
            )


@dataclass(frozen=True)
class PrefixJudge(Judge):
    """It reads clean tokens, after the first token of an autoregressive model."""

    first: int = 0
    reads: ClassVar[str] = "prefixes"
    ways: ClassVar[tuple[str, ...]] = ("fudge",)

    def see(self, key: Any, x0: Any, t: Any) -> tuple[Any]:
        return (jnp.concatenate([jnp.full((1,), self.first, x0.dtype), x0])[None],)


@dataclass(frozen=True)
class HiddenJudge(Judge):
    """It reads what the network of another run, `of`, made of sequences at its step `base_step`, without a class."""

    of: str = ""
    base: Any = None
    base_params: Any = None
    null: Any = None
    base_step: int = 0
    reads: ClassVar[str] = "hidden"
    ways: ClassVar[tuple[str, ...]] = ("nos", "pplm")

    def see(self, key: Any, x0: Any, t: Any) -> tuple[Any]:
        return (self.base.states(self.base_params, self.null, key, x0, t)[None],)

    def check_guides(self, own: Mapping[str, Any], its: Mapping[str, Any], folder: Path, guide: Path) -> None:
        if Path(self.of).resolve() != folder.resolve():
            raise InputError(f"the guide {guide} reads the hidden states of {self.of}, not of {folder}")


@dataclass(frozen=True)
class Classifier:
    """The class of a sequence, from `reads`: noisy tokens, prefixes, or the hidden states of the run in `of`
    (config.model)."""

    reads: str = "noisy"
    of: str = ""
    attention: bool = False
    beside: Callable[[str], Run] | None = None

    def __post_init__(self):
        if self.reads not in READERS or (self.reads == "hidden") != bool(self.of):
            raise InputError(
                f"config.model.reads is {self.reads!r} with of={self.of!r}; expected one of {', '.join(READERS)}, and "
                "the folder `of` another run with hidden alone"
            )

    def build(self, config: Mapping[str, Any], domain: Any) -> Judge:
        """The judge of a complete config for sequences of `domain`; InputError for one without classes."""
        if not domain.classes:
            raise InputError(
                f"{domain.name} has no classes to tell apart; give a data set with labels, or config.data.label"
            )
        return READERS[self.reads](self, config, domain)


def _classifier(kind, config, domain, states, *, causal, heard=None):
    """A maker of a trunk that reads tokens, with a head of classes."""
    check_reads_text(config)
    trunk = maker(
        config,
        vocab=len(domain.classes),
        states=states,
        num_classes=None,
        causal=causal,
        time_conditioned=heard is not None,
    )

    def make():
        rngs = counted(config["seed"])
        return networks.TokenClassifier(trunk(rngs), attention=kind.attention, rngs=rngs)

    return make


def _noisy(kind, config, domain):
    process, heard = process_of(config, domain.vocab), level(config)
    make = _classifier(kind, config, domain, process.states, causal=False, heard=heard)
    return NoisyJudge(make, methods(make)("__call__"), process=process, level=heard)


def _prefixes(kind, config, domain):
    make = _classifier(kind, config, domain, domain.vocab + 1, causal=True)
    part, empty = methods(make), nothing(make, lambda net, length: net.init_cache(1, length))
    return PrefixJudge(make, part("__call__"), part("step"), empty, first=domain.vocab)


def _hidden(kind, config, domain):
    assert kind.beside is not None
    run = kind.beside(kind.of)
    base, its = run.model.kind, run.model.domain
    if isinstance(base, Judge):
        raise InputError(f"config.model.of is {kind.of}, a classifier; give the run of a model that draws")
    check_reads_text(run.config)
    if (its.tokeniser, its.length) != (domain.tokeniser, domain.length):
        raise InputError(
            f"config.model.of is {kind.of}, a run on other sequences than {domain.name} (of another length or "
            "alphabet); give one on the same data"
        )
    null = None if run.model.null is None else jnp.int32(run.model.null)
    example = jax.ShapeDtypeStruct((domain.length,), jnp.int32)
    seen = jax.eval_shape(lambda x0: base.states(run.model.params, null, jax.random.key(0), x0, 0.5), example)
    prefix = isinstance(base, Autoregression)

    def make():
        options = {"attention": kind.attention, "prefix": prefix, "rngs": counted(config["seed"])}
        return networks.HiddenClassifier(len(domain.classes), seen.shape[-1], **options)

    part, whose = methods(make), {"of": kind.of, "base": base, "base_params": run.model.params, "null": null}
    told = whose | {"base_step": run.step, "process": base.process}
    if isinstance(base, Diffusion):
        return HiddenJudge(make, part("__call__"), **told)
    return HiddenJudge(make, part("__call__"), part("step"), nothing(make, lambda net, _: net.nothing(1)), **told)


READERS = {"noisy": _noisy, "prefixes": _prefixes, "hidden": _hidden}
