"""A trained model as a value, with its parameters inside, and what can be asked of it.

A `Model` plans a drawing, and refuses what it cannot do before anything is drawn; the `Plan` draws. A model that says
how likely it finds data is `Scored` too."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

Progress = Callable[[int, int], Any]


class Request(NamedTuple):
    """How to draw, where it is not as the run's config says: the sampler's spec, or its name and steps; the weight of
    guidance; the run that guides; and how, a spec."""

    sampler: Mapping[str, Any] | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: "Run | None" = None
    steering: Mapping[str, Any] | None = None


AS_TRAINED = Request()


class Plan(NamedTuple):
    """A drawing that can be: draw(key, n, labels, progress) -> n examples as they are stored, in `domain`, whose
    classes the labels are; `spoken` is the sampler's name."""

    draw: Callable[..., np.ndarray]
    domain: Any
    spoken: str


@runtime_checkable
class Model(Protocol):
    """What draws examples of `domain`. `plan` raises InputError for what this model cannot do."""

    @property
    def domain(self) -> Any: ...
    def plan(self, request: Request = AS_TRAINED) -> Plan: ...


class Asked(NamedTuple):
    """What a likelihood is asked with: a key, draws an example, and by name of a figure where its parts are kept, so
    that the same command goes on, and how far it is."""

    key: Any
    draws: int
    resume: Callable[[str], Path]
    progress: Callable[[str], Progress]
    say: Callable[[str], Any]


@runtime_checkable
class Scored(Protocol):
    """A model that says how likely it finds `held_out` data, as plain figures by name, with settings of the config."""

    def bits(self, held_out: Any, settings: Mapping[str, Any], asked: Asked) -> dict[str, Any]: ...


class Run(NamedTuple):
    """A trained run: its folder, config and model, how far it came, and its data, (train, held_out), read when asked
    for; `beside(folder)` is another run of the same recipe."""

    folder: Path
    config: dict[str, Any]
    model: Any
    step: int | None
    data: Callable[[], tuple[Any, Any]]
    beside: Callable[[str | Path], "Run"]

    @property
    def domain(self) -> Any:
        """What it is about."""
        return self.model.domain

    @property
    def place(self) -> str:
        """Where what is drawn comes from, as progress says it."""
        return f"step {self.step}" if self.step is not None else str(self.folder)
