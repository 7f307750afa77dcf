"""A trained model of sequences: what draws them, and says how likely it finds them; or what judges them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxdiff.errors import InputError
from jaxdiff.recipes.sequences.autoregression import Autoregression
from jaxdiff.recipes.sequences.diffusion import Diffusion
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.steering import Guide, checked
from jaxdiff.runs.drawing import chosen_sampler
from jaxdiff.runs.model import AS_TRAINED, Asked, Plan, Request, Run


@dataclass(frozen=True)
class Model:
    """A `kind` of model with its parameters, of the run in `folder`; `null` is the label that hides a class, None for
    data without classes."""

    config: Mapping[str, Any]
    domain: Any
    kind: Diffusion | Autoregression
    params: Any
    folder: Path

    @property
    def null(self) -> int | None:
        """The label that hides a class; None for data without classes."""
        return len(self.domain.classes) or None

    def plan(self, request: Request = AS_TRAINED) -> Plan:
        """A drawing as asked for, steered by the judge of the run `request.guide`, whose classes the labels then are.

        Raises InputError for a sampler or guidance that cannot be."""
        judge, weights = self._judge(request.guide)
        gamma = self.config["sample"]["guidance"] if request.guidance is None else request.guidance
        strength = checked(self.config, self.null, gamma, self.domain.name, judge is not None)
        guide = Guide(strength, self.null, request.steering or self.config["sample"]["steering"], judge, weights)
        drawing = self.kind.drawing(self.params, self.domain.length, self._spec(request), guide)
        domain = self.domain if request.guide is None else self.domain.of_classes(request.guide.model.domain)
        return Plan(drawing, domain, "drawing")

    def check(self) -> None:
        """InputError where what the config says of drawing cannot be; nothing is drawn, no parameters asked."""
        sample = self.config["sample"]
        checked(self.config, self.null, sample["guidance"], self.domain.name, bool(sample["guide"]))
        if isinstance(self.kind, Diffusion):
            self.kind.sampler(sample["sampler"])

    def _spec(self, request):
        asked = request.sampler is not None or request.steps is not None
        if asked and not isinstance(self.kind, Diffusion):
            raise InputError(
                f"the model in {self.folder} writes token by token, which no sampler or number of steps changes: leave "
                "--sampler and --steps out"
            )
        return chosen_sampler(self.config["sample"]["sampler"], request)

    def _judge(self, guide: Run | None):
        """(the judge of a run, its parameters), refused where it cannot steer this one."""
        if guide is None:
            return None, None
        other = guide.model
        if not isinstance(other, Judging):
            raise InputError(f"the guide {guide.folder} is no classifier; give a run with config.model.name=classifier")
        if (other.domain.tokeniser, other.domain.length) != (self.domain.tokeniser, self.domain.length):
            raise InputError(
                f"the guide {guide.folder} reads other sequences than {self.folder} writes: of another alphabet or "
                "length"
            )
        other.kind.check_guides(self.config, guide.config, self.folder, guide.folder)
        return other.kind, other.params

    def bits(self, held_out: Any, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
        """Bits per token of held-out sequences: exactly, or at most. All tokens count, those of the frame (`<bos>`,
        `<pad>`) too, as all are modelled."""
        cond = held_out.labels if self.null is not None else None
        return self.kind.bits(self.params, held_out, cond, settings, asked)


@dataclass(frozen=True)
class Judging:
    """A judge with its parameters."""

    config: Mapping[str, Any]
    domain: Any
    kind: Judge
    params: Any
    folder: Path

    def plan(self, request: Request = AS_TRAINED) -> Plan:
        """InputError: it draws nothing."""
        raise InputError(
            "this run is a classifier, which draws nothing: it steers another, as "
            "`jaxdiff sample --workdir=ANOTHER --guide=THIS`"
        )

    def check(self) -> None:
        """Nothing: it draws nothing."""


def model(kind: Diffusion | Autoregression | Judge, **parts: Any) -> Model | Judging:
    """The trained model of a kind, with its config, domain, params and folder."""
    return partial(Judging if isinstance(kind, Judge) else Model, kind=kind)(**parts)
