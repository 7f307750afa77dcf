"""How a model is steered to a class, by name. Of a diffusion each is (label -> denoiser, kernel -> kernel), of an
autoregressive model (label, length) -> (step, cache).

`tempered` is D-CFG, of the model with its class and without. The others ask a judge (`recipes.sequences.judges`) of the
model without its class, where gamma = 0 is that model: `classifier_based` is D-CBG and `fudge` its like token by token,
where gamma = 1 is Bayes' rule; `nos` and `pplm` move hidden states by steps of gamma `step_size`. `auto` is `tempered`,
or with a judge the one that it was trained for."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import guidance, samplers
from jaxdiff.errors import InputError
from jaxdiff.processes import Mixing
from jaxdiff.runs.resolve import resolve


class Guide(NamedTuple):
    """To which strength a model is steered, and how: the label that means no class, the spec of the way, a judge."""

    gamma: float = 1.0
    null: int | None = None
    steering: Mapping[str, Any] = {"name": "auto"}
    judge: Any = None
    weights: Any = None  # the judge's parameters

    @property
    def plain(self) -> bool:
        """Whether the model draws as it is, with its class."""
        return self.judge is None and self.gamma == 1 and self.steering.get("name", "auto") in ("auto", "tempered")


# Of a diffusion: (label -> denoiser, kernel -> kernel) -------------------------------------------------------------


def tempered(*, model: Any, params: Any, guide: Guide, what: str = "published") -> tuple[Any, Any]:
    """D-CFG of the "kernel", the "belief", or the "published" one of the noise: absorbing the belief, others the
    kernel."""
    if what not in ("published", "belief", "kernel"):
        raise InputError(f"config.sample.steering.what is {what!r}, expected published, belief or kernel")
    null, gamma = _unconditional(model, params, guide)(None), jnp.float32(guide.gamma)
    spread = not isinstance(model.process, Mixing) or model.process.spread
    if what == "kernel" or (what == "published" and spread):
        return model.network.bind(params), partial(guidance.tempered, null=null, gamma=guide.gamma)
    return Partial(_tempered_belief, model.network, params, null, gamma), same


def classifier_based(
    *,
    model: Any,
    params: Any,
    guide: Guide,
    method: str = "first_order",
    classifier_time: str = "t",
    chunk: int = 256,
) -> tuple[Any, Any]:
    """D-CBG by a judge of noisy tokens: guidance.classifier_based."""
    judge = _judge(guide, "classifier_based", "noisy")
    classify = guidance.from_classifier(judge.apply, model.process, guide.weights, level=judge.level)
    options = {"method": method, "classifier_time": classifier_time, "chunk": chunk}
    # Whether the options are right is said before anything is drawn.
    kernel = samplers.categorical.ancestral(model.process)
    guidance.classifier_based(kernel, guidance.log_prob_of(classify, 0), guide.gamma, **options)

    def steered(kernel):
        return _ByLabel(kernel, classify, jnp.float32(guide.gamma), tuple(options.items()))

    return Partial(_labelled, _unconditional(model, params, guide)), steered


def nos(
    *, model: Any, params: Any, guide: Guide, steps: int = 3, step_size: float = 0.1, strength: float = 0.01
) -> tuple[Any, Any]:
    """NOS by a judge of this model's hidden states: guidance.nos."""
    judge = _judge(guide, "nos", "hidden")
    halves = (model.hidden(params, _none(guide)), model.head(params, _none(guide)))
    options = {"steps": steps, "strength": strength}
    size = jnp.float32(step_size * guide.gamma)
    return Partial(_moved, model.process, *halves, judge.apply, guide.weights, size, **options), same


class _ByLabel(eqx.Module):
    """D-CBG towards the label that a denoiser carries."""

    kernel: Any
    classify: Any
    gamma: Any
    options: tuple = eqx.field(static=True)

    def __call__(self, denoise, z, t, s):
        log_prob = guidance.log_prob_of(self.classify, denoise.label)
        return guidance.classifier_based(self.kernel, log_prob, self.gamma, **dict(self.options))(denoise, z, t, s)


class _Labelled(eqx.Module):
    """A denoiser that is not told its label, and carries it."""

    denoise: Any
    label: Any

    def __call__(self, x, t):
        return self.denoise(x, t)


def _labelled(make, label):
    return _Labelled(make(None), label)


def _tempered_belief(network, params, null, gamma, label):
    return guidance.tempered_belief(network.process, network(params, label), null, gamma)


def _moved(process, hidden, head, apply, weights, step_size, label, *, steps, strength):
    def log_prob(h, t):
        return jax.nn.log_softmax(apply(weights, h[None])[0])[label]

    return guidance.nos(process, hidden, head, log_prob, steps=steps, step_size=step_size, strength=strength)


def _unconditional(model, params, guide):
    return Partial(_without, model.network, params, _none(guide))


def _without(network, params, null, label):
    return network(params, null)


def same(kernel: Any) -> Any:
    """The kernel as it is."""
    return kernel


# Of an autoregressive model: (label, length) -> (step, cache) -------------------------------------------------------


def tempered_step(*, model: Any, params: Any, guide: Guide) -> Any:
    """D-CFG token by token: guidance.tempered_step."""
    return Partial(_tempered_step, model, params, _none(guide), jnp.float32(guide.gamma))


def fudge(*, model: Any, params: Any, guide: Guide, k: int | None = None) -> Any:
    """FUDGE by a judge of prefixes, over the k likeliest tokens (all): guidance.fudge."""
    judge = _judge(guide, "fudge", "prefixes")
    asked = (judge.step, guide.weights, jnp.float32(guide.gamma))
    return Partial(_fudge, model, params, _none(guide), *asked, k=k, nothing=judge.nothing)


def pplm(
    *,
    model: Any,
    params: Any,
    guide: Guide,
    steps: int = 3,
    step_size: float = 0.1,
    strength: float = 0.01,
    fusion: float = 0.9,
) -> Any:
    """PPLM by a judge of this model's hidden states: guidance.pplm."""
    judge = _judge(guide, "pplm", "hidden")
    options = {"steps": steps, "strength": strength, "fusion": fusion, "nothing": judge.nothing}
    asked = (judge.step, guide.weights, jnp.float32(step_size * guide.gamma))
    return Partial(_pplm, model, params, _none(guide), *asked, **options)


def _tempered_step(model, params, null, gamma, label, length):
    step, cache = model.reader(params, label, length)
    other, _ = model.reader(params, null, length)
    return guidance.tempered_step(step, other, gamma), (cache, cache)


def _fudge(model, params, null, step, weights, gamma, label, length, *, k, nothing):
    def judge(token, state):
        logits, state = step(weights, token[None], state)
        return jax.nn.log_softmax(logits[0])[label], state

    own, cache = model.reader(params, null, length)
    return guidance.fudge(own, judge, gamma, k=k), (cache, nothing(length + 1))


def _pplm(model, params, null, step, weights, step_size, label, length, *, nothing, **options):
    advance, head, cache = model.halves(params, null, length)

    def hidden(token, state):
        cache, _, before = state
        h, cache = advance(token, cache)
        return h, (cache, before, step(weights, h[None], before)[1])

    def log_prob(h, state):  # of the tokens before, and of this one as it is moved
        return jax.nn.log_softmax(step(weights, h[None], state[1])[0][0])[label]

    none = nothing(length + 1)
    return guidance.pplm(hidden, head, log_prob, step_size=step_size, **options), (cache, none, none)


def _none(guide):
    return None if guide.null is None else jnp.int32(guide.null)


# Both -----------------------------------------------------------------------------------------------------------------

OF_DIFFUSION = {"tempered": tempered, "classifier_based": classifier_based, "nos": nos}
OF_AUTOREGRESSION = {"tempered": tempered_step, "fudge": fudge, "pplm": pplm}


def steered(known: Mapping[str, Any], model: Any, params: Any, guide: Guide) -> Any:
    """What a guide makes of a model, by one of the two tables `known`; InputError for a way that it cannot go."""
    spec = {"name": "auto"} | dict(guide.steering)
    if spec["name"] == "auto":
        if len(spec) > 1:
            raise InputError(f"config.sample.steering is {spec!r}: auto has no options; name the way that they are of")
        judge = guide.judge
        fits = [way for way in (("tempered",) if judge is None else judge.ways) if way in known]
        if judge is not None and not fits:
            raise InputError(
                f"the guide judges {judge.reads} tokens, which this model has none of: train one with "
                f"config.model.reads={'prefixes' if 'fudge' in known else 'noisy'} or hidden"
            )
        spec["name"] = fits[0]
    if spec["name"] == "tempered" and guide.judge is not None:
        raise InputError(
            "config.sample.steering is tempered, which asks the model itself; leave the guide out, or say auto"
        )
    return resolve("sample.steering", known, spec, model=model, params=params, guide=guide)


def _judge(guide: Guide, name: str, reads: str) -> Any:
    if guide.judge is None or name not in guide.judge.ways:
        got = "none" if guide.judge is None else f"one that reads {guide.judge.reads} tokens"
        raise InputError(f"{name} asks a judge, and got {got}; give the run of one with config.model.reads={reads}")
    return guide.judge


def checked(config: Mapping[str, Any], classes: int | None, gamma: float, name: str, judged: bool = False) -> float:
    """The strength; InputError for one that is not finite, or where no model without its class was trained."""
    if not np.isfinite(gamma):
        raise InputError(f"the guidance gamma is {gamma}, expected a finite number; 1 is no guidance, with a guide 0")
    if judged and classes is not None and not config["label_dropout"]:
        raise InputError(
            f"a guide asks the model without its class, which this one of {name} never learned: it was trained with "
            "label_dropout=0; train one with more"
        )
    if not judged and gamma != 1 and (classes is None or not config["label_dropout"]):
        why = f"{name} has no classes" if classes is None else "it was trained with label_dropout=0"
        raise InputError(
            f"guidance is {gamma}, but this model knows no sequences without their class ({why}): leave guidance at 1"
        )
    return float(gamma)
