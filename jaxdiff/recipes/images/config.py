"""What an image experiment may say, in plain values, and what it means when it says nothing."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.errors import InputError


def default() -> ConfigDict:
    """EDM (Karras et al. 2022) on a small image set: every field that a config of this recipe can have."""
    config = ConfigDict()
    config.recipe = "images"
    config.seed = 0

    config.data = ConfigDict({"name": "digits"})  # a reader of jaxdiff.data and its options
    config.held_out = 0.2  # the share (or number) of images kept for the metrics' floors, never trained on

    config.process = ConfigDict({"name": "edm"})  # jaxdiff.processes
    config.row = ConfigDict({"name": "edm"})  # jaxdiff.parameterizations: what the network predicts
    config.weight = ConfigDict({"name": "unit"})  # jaxdiff.losses.weights, on that row
    config.times = ConfigDict({"name": "lognormal_times"})  # jaxdiff.grids: at which noise it trains

    config.network = ConfigDict({"name": "UNet"})  # jaxdiff.networks
    config.label_dropout = 0.1  # how often a class is hidden, so that guidance has an unconditional model

    config.train = ConfigDict()
    config.train.steps = 2000
    config.train.batch_size = 128
    config.train.optimizer = ConfigDict({"name": "adam"})  # optax
    config.train.learning_rate = 1e-3
    config.train.warmup = 10_000  # examples until the learning rate is whole
    config.train.clip = 1.0  # largest gradient norm
    config.train.accumulate = 1  # parts in which a batch's gradient is computed
    config.train.ema_half_life = 50_000  # examples after which a weight of the average has halved
    config.train.ema_ramp = 0.05  # and at most this share of the examples seen
    config.train.flip = False  # mirror half of the images
    config.train.log_every = 50
    config.train.save_every = 500

    config.sample = ConfigDict()
    config.sample.sampler = ConfigDict({"name": "edm", "steps": 18})  # jaxdiff.recipes.images.samplers
    config.sample.guidance = 1.0  # 1: the conditional model as it is

    config.evaluate = ConfigDict()
    config.evaluate.samples = 1000
    config.evaluate.components = 64  # principal components that the metrics see; 0 for the pixels themselves
    config.evaluate.curve = (5, 9, 17, 35, 79)  # denoiser calls at which the samplers are compared; empty for none
    config.evaluate.curve_samples = 500
    return config


# What a continued run may change: how long it goes on, and what is done with it afterwards.
CONTINUATION = ("train.steps", "train.log_every", "train.save_every", "sample", "evaluate")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as a plain dict with every field, refused when it has an unknown field or a value of the wrong type.

    Raises InputError that names the field, what it got and what it expected."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return _complete(plain, default().to_dict(), "")


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
        number = (int, float) if isinstance(like, float) else type(like)
        if isinstance(like, tuple):
            number = (tuple, list)
        if not isinstance(value, number) or isinstance(value, bool) != isinstance(like, bool):
            raise InputError(f"{where} is {value!r}, expected a value such as {like!r}")
        out[key] = type(like)(value) if isinstance(like, tuple) else value
    _in_range(out, path)
    return out


AT_LEAST = {
    "train.steps": 1,
    "train.batch_size": 1,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.save_every": 1,
    "train.warmup": 0,
    "train.ema_half_life": 1,
    "evaluate.samples": 8,
    "evaluate.components": 0,
    "evaluate.curve_samples": 8,
}


def _in_range(config, path):
    for key, value in config.items():
        least = AT_LEAST.get(f"{path}{key}")
        if least is not None and value < least:
            raise InputError(f"config.{path}{key} is {value}, expected at least {least}")
    if "label_dropout" in config and not 0 <= config["label_dropout"] < 1:
        raise InputError(f"config.label_dropout is {config['label_dropout']}, expected a probability in [0, 1)")
    if "learning_rate" in config and not config["learning_rate"] > 0:
        raise InputError(f"config.train.learning_rate is {config['learning_rate']}, expected a number above 0")
