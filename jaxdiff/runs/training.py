"""Train what a recipe has put together in a folder, and read the averaged parameters back, without its optimiser."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxdiff import data, networks, training
from jaxdiff.data.pipeline import Data
from jaxdiff.errors import InputError
from jaxdiff.runs.folder import remember
from jaxdiff.runs.resolve import resolve

QUICK = {"xla_backend_optimization_level": 0}
"""To compile what runs once, as the first parameters do: three times faster, to the same bits."""


class Training(NamedTuple):
    """All that `fit` needs, which drawing never sees: objective(params, key, batch) -> the cost of each example, and
    the first parameters, pure, to be made or only shaped. `identity` is what makes the run that run."""

    config: Mapping[str, Any]
    train: Data
    held_out: Data
    domain: Any
    objective: Callable[..., Any]
    parameters: Callable[[], Any]
    optimizer: optax.GradientTransformation
    average: Any
    identity: Mapping[str, Any]

    def initial(self) -> training.TrainState:
        """The state before step 0."""
        return training.init(jax.random.key(self.config["seed"]), self.parameters(), self.optimizer, ema=self.average)


def batch_cost(cost: Callable[..., Any], law: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
    """(params, key, batch) -> cost(params, key, example, t, weight) of each example, at the times that
    law(params, key, n) draws for the whole batch.

    All else is drawn from the example's own key, so the costs do not depend on how a batch is cut between devices."""

    def costs(params, key, batch):
        time_key, key = jax.random.split(key)
        times = law(params, time_key, batch_size)
        place = batch["index"] % batch_size
        rows = training.example_keys(key, batch), batch, times.t[place], times.weight[place]
        return jax.vmap(lambda *row: cost(params, *row))(*rows)

    return costs


class Stream:
    """The training batches by position, read ahead by Grain from wherever the run stands."""

    def __init__(self, examples: Data, batch_size: int, seed: int, flip: bool = False):
        self.examples, self.batch_size, self.options = examples, batch_size, {"seed": seed, "flip": flip}
        self.position, self.batches = None, None

    def __call__(self, position: int) -> dict[str, np.ndarray]:
        if self.batches is None or position != self.position:
            start = position // self.batch_size
            self.batches = data.training_batches(self.examples, self.batch_size, start=start, **self.options)
        self.position = position + self.batch_size
        return _narrow(next(self.batches))

    def first(self) -> dict[str, np.ndarray]:
        """The batch at position 0, without reading ahead."""
        return _narrow(data.training_stream(self.examples, self.batch_size, **self.options)[0])


def _narrow(batch):
    return {**batch, "index": batch["index"].astype(np.uint32)}  # JAX has no 64-bit integers by default


def fit(made: Training, folder: Path) -> training.Run:
    """Train to config.train.steps in `folder`, from its newest checkpoint where there is one.

    Raises InputError for a folder of a run of another identity; training.RunStopped when it cannot go on. What the step
    cannot be compiled for is found before the folder is taken."""
    config, settings, domain = made.config, made.config["train"], made.domain
    step = training.make_train_step(
        made.objective,
        made.optimizer,
        ema=made.average,
        accumulate=settings["accumulate"],
        project=networks.project if settings.get("project") else None,
    )
    stream = Stream(made.train, settings["batch_size"], config["seed"], settings.get("flip", False))
    jax.eval_shape(step, jax.eval_shape(made.initial), stream.first())
    state = jax.jit(made.initial, compiler_options=QUICK)()
    with training.Checkpoints(folder, dict(made.identity), say=print) as checkpoints:
        remember(folder, config, domain)
        sinks = [
            training.progress(settings["steps"], unit=f"{domain.unit}s"),
            training.jsonl(folder / "log.jsonl"),
            training.tensorboard(folder / "tensorboard"),
        ]
        return training.fit(
            state,
            training.data_parallel(step, _mesh(settings["batch_size"])),
            stream,
            steps=settings["steps"],
            checkpoints=checkpoints,
            save_every=settings["save_every"],
            log=sinks,
            log_every=settings["log_every"],
            snapshots=_snapshots(folder, settings),
        )


def _snapshots(folder, settings):
    every = settings["snapshot_every"]
    return training.Snapshots(folder / "snapshots", settings["ema_widths"], every=every) if every else None


def averaged(
    folder: Path, config: Mapping[str, Any], parameters: Callable[[], Any], ema_width: float | None = None
) -> tuple[Any, int]:
    """(averaged parameters, step) of the newest checkpoint in `folder`; `parameters` makes such a tree, and is only
    shaped.

    `ema_width` (the config's unless given) chooses among several averages; one that was not tracked is reconstructed
    from the run's snapshots. InputError where there is no checkpoint, or no such average."""
    like, widths = jax.eval_shape(parameters), config["train"]["ema_widths"]
    kept = training.ema.widths(*widths) if widths else {}
    with training.Checkpoints(folder, say=print) as checkpoints:
        saved = checkpoints.restore_average({name: like for name in kept} or like)
    if saved is None:
        raise InputError(f"{folder} holds no checkpoint yet; let `jaxdiff train` save one there first")
    width = config["sample"]["ema_width"] if ema_width is None else ema_width
    return _average(folder, config["train"], saved[0], width, like), saved[1]


def _average(folder, settings, saved, width, like):
    widths = settings["ema_widths"]
    if not widths:
        if width:
            raise InputError(f"ema_width is {width}, but this run keeps one average by half-life: leave it at 0")
        return saved
    if not width or width in widths:
        return saved[next(iter(training.ema.widths(width or widths[0])))]
    if not settings["snapshot_every"]:
        raise InputError(f"ema_width is {width}; without snapshots (train.snapshot_every) there is one of {widths}")
    return training.post_hoc.reconstruct(folder / "snapshots", width, like=like)


def _mesh(batch_size):
    """All devices, or as many as divide the batch."""
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return training.data_mesh(devices[:count])


def optimizer(settings: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[optax.GradientTransformation, Any]:
    """(the optimiser, the kind of average) that config.train names, among the `known` optimisers."""
    chosen = resolve("train.optimizer", known, settings["optimizer"], learning_rate=_schedule(settings))
    widths: Any = settings["ema_widths"]
    average = training.ema.half_life(settings["ema_half_life"], ramp=settings["ema_ramp"])
    average = training.ema.widths(*widths) if widths else average
    if settings["snapshot_every"] and not widths:
        raise InputError("config.train.snapshot_every keeps the averages of config.train.ema_widths: give their widths")
    return training.clipped(chosen, settings["clip"]), average


def _schedule(settings):
    warmup, batch = settings["warmup"], settings["batch_size"]
    if settings["flat"]:
        return training.inverse_sqrt(settings["learning_rate"], batch, flat=settings["flat"], examples=warmup)
    return training.ramp(settings["learning_rate"], warmup, batch)
