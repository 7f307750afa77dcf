"""The fields of an experiment's config: filled in, checked against defaults, and what of them makes a run that run."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.errors import InputError

Config = ConfigDict | Mapping[str, Any]
"""A config as a file gives it, or as plain values."""
Range = tuple[Callable[[Any], bool], str]
"""(whether a value is good, what good ones are)."""


def complete(config: Config, default: ConfigDict, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The config as a plain dict with every field of `default`, refused when it has an unknown field or a value of the
    wrong type or outside of its range.

    `held_out` may be a share or a number. Raises InputError that names the field, what it got and what it expected."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    out = _complete(plain, default.to_dict(), "", ranges)
    count = out["held_out"]
    return out | {"held_out": int(count) if count >= 1 and float(count).is_integer() else count}


def identity(config: Mapping[str, Any], continuation: Collection[str]) -> dict[str, Any]:
    """The part of a complete config that makes a run that run: all but what a `continuation` may change."""

    def without(node, prefix):
        return {
            key: without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if f"{prefix}{key}" not in continuation
        }

    return without(config, "")


def least(bound: float) -> Range:
    """Values of at least `bound`."""
    return lambda value: value >= bound, f"at least {bound}"


above_0: Range = (lambda value: 0 < value < math.inf), "a number above 0"
finite: Range = math.isfinite, "a finite number"


def training() -> ConfigDict:
    """The settings of a training, the same for every recipe."""
    train = ConfigDict()
    train.steps = 2000
    train.batch_size = 128
    train.optimizer = ConfigDict({"name": "adam"})  # optax
    train.learning_rate = 1e-3
    train.warmup = 10_000  # examples until the learning rate is whole
    train.flat = 0  # batches until the learning rate falls, as 1 / sqrt (EDM2); 0 for never
    train.clip = 1.0  # largest gradient norm
    train.accumulate = 1  # parts in which a batch's gradient is computed
    train.ema_half_life = 50_000  # examples after which a weight of the average has halved
    train.ema_ramp = 0.05  # and at most this share of the examples seen
    train.ema_widths = ()  # widths of averages, such as (0.05, 0.1), in the place of the half-life (EDM2)
    train.snapshot_every = 0  # examples between files of those averages, for post-hoc widths; 0 for none
    train.log_every = 50
    train.save_every = 500
    return train


TRAINING: dict[str, Range] = {
    "seed": least(0),
    "label_dropout": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "train.steps": least(1),
    "train.batch_size": least(1),
    "train.learning_rate": above_0,
    "train.warmup": least(0),
    "train.flat": least(0),
    "train.clip": above_0,
    "train.accumulate": least(1),
    "train.ema_half_life": least(1),
    "train.ema_ramp": above_0,
    "train.ema_widths": (
        lambda value: all(0 < width < 0.28 for width in value) and len(set(value)) == len(value),
        "different relative widths between 0 and .28",
    ),
    "train.snapshot_every": least(0),
    "train.log_every": least(1),
    "train.save_every": least(1),
    "sample.ema_width": (lambda value: 0 <= value < 0.28, "a relative width below .28, or 0"),
    "sample.guidance": finite,
    "likelihood.draws": least(1),
    "likelihood.times": least(1),
}
"""The ranges of the fields that every recipe has."""


def _complete(given, expected, path, ranges):
    out = dict(expected)
    if "name" in expected:  # a spec: the options are the named function's, and checked where it is resolved
        return dict(given)
    for key, value in given.items():
        where = f"config.{path}{key}"
        if key not in expected:
            raise InputError(f"{where} is unknown; config{'.' + path[:-1] if path else ''} has {', '.join(expected)}")
        like = expected[key]
        if isinstance(like, dict):
            if not isinstance(value, Mapping):
                raise InputError(f"{where} is {value!r}, expected a ConfigDict with {', '.join(like)}")
            out[key] = _complete(value, like, f"{path}{key}.", ranges)
            continue
        if not _alike(value, like):
            raise InputError(f"{where} is {value!r}, expected a value such as {like!r}")
        good, expected_range = ranges.get(f"{path}{key}", (None, ""))
        if good is not None and not good(value):
            raise InputError(f"{where} is {value!r}, expected {expected_range}")
        out[key] = tuple(value) if isinstance(like, tuple) else value
    return out


def _alike(value, like):
    """Whether a value has the type of a default one; a whole number may stand for a float."""
    if isinstance(like, tuple):
        kind = like[0] if like else 0.0
        return isinstance(value, tuple | list) and all(_alike(entry, kind) for entry in value)
    kinds = (int, float) if isinstance(like, float) else type(like)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(like, bool)
