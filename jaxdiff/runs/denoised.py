"""A model of Gaussian noise that draws images: a process, and a denoiser of each class."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdiff import data, denoisers, guidance, samplers
from jaxdiff.domains import Pixels
from jaxdiff.errors import InputError
from jaxdiff.processes import Gaussian
from jaxdiff.runs import samplers as named
from jaxdiff.runs.drawing import chosen_sampler
from jaxdiff.runs.model import AS_TRAINED, Plan, Request
from jaxdiff.runs.resolve import resolve, takes


class Denoised(NamedTuple):
    """label -> Denoiser of one image of `domain`, under `process`, down to noise level `lowest` where that is above 0.

    `without` is the denoiser that is told no class, or the reason why there is none. `sample` is the config's part of
    that name."""

    domain: Pixels
    process: Gaussian
    denoiser: Callable[[Any], Any]
    without: Any
    sample: Mapping[str, Any]
    lowest: float = 0.0

    def plan(self, request: Request = AS_TRAINED) -> Plan:
        """A drawing by the sampler and with the guidance asked for: away from a weaker model, `request.guide`, else
        from this one without its class.

        Raises InputError for a sampler or guidance that cannot be."""
        if request.steering is not None:
            raise InputError(
                f"steering is {dict(request.steering)}, but images are guided by a weight alone: leave it out"
            )
        spec = chosen_sampler(self.sample["sampler"], request)
        weight = self.sample["guidance"] if request.guidance is None else request.guidance
        drawing = Partial(
            _drawn, self.domain, sampler(spec, self.process, self.lowest), self.guided(weight, request.guide)
        )
        return Plan(drawing, self.domain, spec["name"])

    def guided(self, weight: float, guide: Any = None) -> Callable[[Any], Any]:
        """label -> Denoiser with guidance of `weight` (1 is none), away from the model of the run `guide`, else from
        the one without its class; InputError where none can be."""
        if not np.isfinite(weight):
            raise InputError(f"the guidance weight is {weight}, expected a finite number; 1 is no guidance")
        weaker = None if guide is None else self._weaker(guide)
        if weight == 1:
            return self.denoiser
        if weaker is not None:
            if eqx.tree_equal(weaker.process, self.process):
                return Partial(_autoguided_alike, self.denoiser, weaker.denoiser, jnp.float32(weight))
            both = self.process, self.denoiser, weaker.process, weaker.denoiser
            return Partial(_autoguided, *both, jnp.float32(weight))
        if isinstance(self.without, str):
            raise InputError(
                f"guidance is {weight}, but this model knows no images without their class ({self.without}): leave "
                "guidance at 1"
            )
        return Partial(_guided, self.denoiser, self.without, jnp.float32(weight))

    def _weaker(self, guide):
        """The model to be guided away from, refused where it draws other images."""
        own, other = self.domain, guide.model.domain
        if (other.shape, len(other.classes)) != (own.shape, len(own.classes)):
            raise InputError(
                f"the guide {guide.folder} draws {other.shape} in {len(other.classes)} classes, expected {own.shape} "
                f"in {len(own.classes)}: give a model of the same images"
            )
        return guide.model


def sampler(spec: Mapping[str, Any], process: Gaussian, lowest: float = 0.0) -> samplers.Sampler:
    """The Sampler of `process` that `spec` names, down to the noise level `lowest` unless it says another; InputError
    for one that cannot be."""
    held = {"sigma_min": lowest} if lowest > 0 and takes(named.SAMPLERS, spec, "sigma_min") else {}
    return resolve("sample.sampler", named.SAMPLERS, held | dict(spec))(process)


def _drawn(domain, sampler, denoiser, key, n, labels, progress=None):
    x = samplers.draw(key, n, denoiser, sampler, domain.shape, cond=labels, progress=progress)
    return data.to_pixels(x, domain.levels)


def _autoguided(process, denoiser, other_process, other, weight, label):
    return guidance.autoguidance(denoiser(label), denoisers.recast(other(label), other_process, process), weight)


def _autoguided_alike(denoiser, other, weight, label):
    return guidance.autoguidance(denoiser(label), other(label), weight)


def _guided(denoiser, without, weight, label):
    return guidance.classifier_free(denoiser(label), without, weight)
