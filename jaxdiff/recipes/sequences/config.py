"""What a sequence experiment may say, in plain values, and what it means when it says nothing."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.runs import fields
from jaxdiff.runs.fields import Config


def default() -> ConfigDict:
    """MDLM (Sahoo et al. 2024) on a small transformer: every field that a config of this recipe can have."""
    config = ConfigDict()
    config.recipe = "sequences"
    config.seed = 0

    config.data = ConfigDict({"name": "kjv"})  # a reader of jaxdiff.data.sequences and its options
    config.held_out = 0.05  # the share (or number) of sequences kept for the metrics' floors, never trained on

    config.model = ConfigDict({"name": "diffusion"})  # or autoregressive, or a classifier that steers either
    config.process = ConfigDict({"name": "absorbing"})  # jaxdiff.processes, on tokens
    config.alpha = ConfigDict({"name": "linear"})  # jaxdiff.alphas: how data are lost
    config.meaning = "leave_one_out"  # what the network's logits mean: leave_one_out or posterior
    config.level = "none"  # what the network hears of the time: none or total_noise (-log alpha)
    config.loss = ConfigDict({"name": "bound"})  # jaxdiff.losses, on tokens
    config.times = ConfigDict({"name": "lattice_times", "low": 0.001})  # jaxdiff.grids: at which noise it trains

    config.network = ConfigDict({"name": "TokenDiT"})  # jaxdiff.networks
    config.label_dropout = 0.1  # how often a class is hidden, so that guidance has an unconditional model

    config.train = fields.training()
    config.train.optimizer = ConfigDict({"name": "adamw", "weight_decay": 0.0})

    config.sample = ConfigDict()
    config.sample.sampler = ConfigDict({"name": "ancestral", "steps": 64})  # jaxdiff.recipes.sequences.samplers
    config.sample.guidance = 1.0  # gamma; 1: the conditional model as it is, or with a guide Bayes' rule
    config.sample.guide = ""  # the folder of a classifier's run, to be steered by
    config.sample.steering = ConfigDict({"name": "auto"})  # jaxdiff.recipes.sequences.steering
    config.sample.ema_width = 0.0  # which average draws: one of ema_widths, or any from snapshots; 0 for the first

    config.evaluate = ConfigDict()
    config.evaluate.samples = 1024
    config.evaluate.label = -1  # the class of the samples; -1 for all in turn
    config.evaluate.guidance = ()  # strengths at which the class's property is measured; empty for none

    config.likelihood = ConfigDict()
    config.likelihood.sequences = 1000  # how many of the held-out ones; 0 for all
    config.likelihood.draws = 1  # of noise and times a sequence
    config.likelihood.times = 32  # at which the bound's integrand is seen
    return config


# What a continued run may change: how long it goes on, and what is done with it afterwards.
CONTINUATION = ("train.steps", "train.log_every", "train.save_every", "sample", "evaluate", "likelihood")

RANGES = fields.TRAINING | {
    "meaning": (lambda value: value in ("leave_one_out", "posterior"), "leave_one_out or posterior"),
    "level": (lambda value: value in ("none", "total_noise"), "none or total_noise"),
    "evaluate.samples": fields.least(8),
    "evaluate.label": fields.least(-1),
    "likelihood.sequences": fields.least(0),
}


def complete(config: Config) -> dict[str, Any]:
    """The config as a plain dict with every field; InputError as `fields.complete`."""
    return fields.complete(config, default(), RANGES)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a complete config that makes a run that run: what a continuation must not change."""
    return fields.identity(config, CONTINUATION)
