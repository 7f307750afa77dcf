"""What an image experiment may say, in plain values, and what it means when it says nothing."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.runs import fields
from jaxdiff.runs.fields import Config


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

    config.train = fields.training()
    config.train.project = False  # keep the weights of magnitude-preserving layers at unit size (EDM2)
    config.train.flip = False  # mirror half of the images

    config.sample = ConfigDict()
    config.sample.sampler = ConfigDict({"name": "edm", "steps": 18})  # jaxdiff.samplers.named
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

    config.theory = ConfigDict()
    config.theory.images = 256  # training and held-out images at which the excess loss is measured; 0 for all
    config.theory.levels = 12  # noise levels at which it is
    config.theory.draws = 256  # for the error budget
    return config


# What a continued run may change: how long it goes on, and what is done with it afterwards.
CONTINUATION = ("train.steps", "train.log_every", "train.save_every", "sample", "evaluate", "likelihood", "theory")


def complete(config: Config) -> dict[str, Any]:
    """The config as a plain dict with every field; InputError as `fields.complete`."""
    return fields.complete(config, default(), RANGES)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a complete config that makes a run that run: what a continuation must not change."""
    return fields.identity(config, CONTINUATION)


RANGES = fields.TRAINING | {
    "evaluate.samples": fields.least(8),
    "evaluate.components": fields.least(0),
    "evaluate.curve": (lambda value: min(value, default=1) >= 1, "numbers of denoiser calls, each at least 1"),
    "likelihood.images": fields.least(0),
    "likelihood.divergence": (lambda value: value in ("exact", "hutchinson"), "exact or hutchinson"),
    "likelihood.probes": fields.least(1),
    "likelihood.rtol": fields.above_0,
    "likelihood.atol": fields.above_0,
    "theory.images": fields.least(0),
    "theory.levels": fields.least(2),
    "theory.draws": fields.least(2),
}
