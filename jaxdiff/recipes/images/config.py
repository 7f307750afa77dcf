"""What an image experiment may say, in plain values, and what it means when it says nothing."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.errors import InputError

Config = ConfigDict | Mapping[str, Any]
"""A config as a file gives it, or as plain values."""


def default() -> ConfigDict:
    """EDM (Karras et al. 2022) on a small image set: every field that a config of this recipe can have."""
    config = ConfigDict()
    config.recipe = "images"
    config.seed = 0

    config.data = ConfigDict({"name": "digits"})  # a reader of jaxdiff.data and its options
    config.held_out = 0.2  # the share (or number) of images kept for the metrics' floors, never trained on

    config.dequantize = False  # train on grey levels spread uniformly over their cells, for densities

    config.process = ConfigDict({"name": "edm"})  # jaxdiff.processes, or a learned log-SNR (VDM)
    config.row = ConfigDict({"name": "edm"})  # jaxdiff.parameterizations: what the network predicts
    config.c_in = ConfigDict({"name": "own"})  # jaxdiff.preconditioning: how its input is scaled; own: as the row says
    config.c_noise = ConfigDict({"name": "log_ratio"})  # and in what units it hears the noise level
    config.loss = ConfigDict({"name": "matching"})  # or implicit, sliced; vdm: the whole variational bound
    config.loss_row = ConfigDict({"name": "own"})  # the row whose error is squared; own: what the network predicts
    config.weight = ConfigDict({"name": "unit"})  # jaxdiff.losses.weights, on that row
    config.times = ConfigDict({"name": "lognormal_times"})  # jaxdiff.grids: at which noise it trains

    config.augment = ConfigDict({"name": "none"})  # jaxdiff.data.augment.pipeline; the network takes its labels
    config.network = ConfigDict({"name": "UNet"})  # jaxdiff.networks
    config.uncertainty = False  # learn how large the loss is at each noise level, beside the network (EDM2)
    config.label_dropout = 0.1  # how often a class is hidden, so that guidance has an unconditional model

    config.train = ConfigDict()
    config.train.steps = 2000
    config.train.batch_size = 128
    config.train.optimizer = ConfigDict({"name": "adam"})  # optax
    config.train.learning_rate = 1e-3
    config.train.warmup = 10_000  # examples until the learning rate is whole
    config.train.flat = 0  # batches until the learning rate falls, as 1 / sqrt (EDM2); 0 for never
    config.train.clip = 1.0  # largest gradient norm
    config.train.accumulate = 1  # parts in which a batch's gradient is computed
    config.train.ema_half_life = 50_000  # examples after which a weight of the average has halved
    config.train.ema_ramp = 0.05  # and at most this share of the examples seen
    config.train.ema_widths = ()  # widths of averages, such as (0.05, 0.1), in the place of the half-life (EDM2)
    config.train.snapshot_every = 0  # examples between files of those averages, for post-hoc widths; 0 for none
    config.train.project = False  # keep the weights of magnitude-preserving layers at unit size (EDM2)
    config.train.flip = False  # mirror half of the images
    config.train.log_every = 50
    config.train.save_every = 500

    config.sample = ConfigDict()
    config.sample.sampler = ConfigDict({"name": "edm", "steps": 18})  # jaxdiff.recipes.images.samplers
    config.sample.guidance = 1.0  # 1: the conditional model as it is
    config.sample.ema_width = 0.0  # which average draws: one of ema_widths, or any from snapshots; 0 for the first

    config.evaluate = ConfigDict()
    config.evaluate.samples = 1000
    config.evaluate.components = 64  # principal components that the metrics see; 0 for the pixels themselves
    config.evaluate.curve = (5, 9, 17, 35, 79)  # denoiser calls at which the samplers are compared; empty for none

    config.likelihood = ConfigDict()
    config.likelihood.images = 0  # how many of the held-out ones; 0 for all
    config.likelihood.draws = 1  # of noise, times and probes an image
    config.likelihood.times = 64  # at which the bound's integrand is seen
    config.likelihood.divergence = "hutchinson"  # of the probability flow, or exact
    config.likelihood.probes = 1
    config.likelihood.rtol = 1e-5
    config.likelihood.atol = 1e-5
    return config


# What a continued run may change: how long it goes on, and what is done with it afterwards.
CONTINUATION = ("train.steps", "train.log_every", "train.save_every", "sample", "evaluate", "likelihood")


def complete(config: Config) -> dict[str, Any]:
    """The config as a plain dict with every field, refused when it has an unknown field or a value of the wrong type.

    Raises InputError that names the field, what it got and what it expected."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    out = _complete(plain, default().to_dict(), "")
    count = out["held_out"]
    return out | {"held_out": int(count) if count >= 1 and float(count).is_integer() else count}


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a complete config that makes a run that run: what a continuation must not change."""

    def without(node, prefix):
        return {
            key: without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in node.items()
            if f"{prefix}{key}" not in CONTINUATION
        }

    return without(config, "")


def _complete(given, expected, path):
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
            out[key] = _complete(value, like, f"{path}{key}.")
            continue
        if not _alike(value, like):
            raise InputError(f"{where} is {value!r}, expected a value such as {like!r}")
        good, expected_range = RANGES.get(f"{path}{key}", (None, ""))
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


def _least(least):
    return lambda value: value >= least, f"at least {least}"


_above_0 = (lambda value: 0 < value < math.inf), "a number above 0"

RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _least(0),
    "label_dropout": (lambda value: 0 <= value < 1, "a probability in [0, 1)"),
    "train.steps": _least(1),
    "train.batch_size": _least(1),
    "train.learning_rate": _above_0,
    "train.warmup": _least(0),
    "train.flat": _least(0),
    "train.clip": _above_0,
    "train.accumulate": _least(1),
    "train.ema_half_life": _least(1),
    "train.ema_ramp": _above_0,
    "train.ema_widths": (
        lambda value: all(0 < width < 0.28 for width in value) and len(set(value)) == len(value),
        "different relative widths between 0 and .28",
    ),
    "train.snapshot_every": _least(0),
    "train.log_every": _least(1),
    "train.save_every": _least(1),
    "sample.ema_width": (lambda value: 0 <= value < 0.28, "a relative width below .28, or 0"),
    "sample.guidance": (math.isfinite, "a finite number"),
    "evaluate.samples": _least(8),
    "evaluate.components": _least(0),
    "likelihood.images": _least(0),
    "likelihood.draws": _least(1),
    "likelihood.times": _least(1),
    "likelihood.divergence": (lambda value: value in ("exact", "hutchinson"), "exact or hutchinson"),
    "likelihood.probes": _least(1),
    "likelihood.rtol": _above_0,
    "likelihood.atol": _above_0,
    "evaluate.curve": (lambda value: min(value, default=1) >= 1, "numbers of denoiser calls, each at least 1"),
}
