"""What a config of this recipe can name, field by field. A new process, row, weight or law is one word here."""

import jax
import optax

from jaxdiff import (
    data,
    gammas,
    grids,
    likelihood,
    losses,
    metrics,
    networks,
    parameterizations,
    preconditioning,
    processes,
)
from jaxdiff.pretrained import alexnet, inception
from jaxdiff.recipes.images import samplers
from jaxdiff.recipes.images.objective import Criterion
from jaxdiff.recipes.resolve import named
from jaxdiff.types import PRNGKey


def learned(*, seed: int, hidden: int = 64, start: float = -13.3, end: float = 5.0) -> processes.Gaussian:
    """A log-SNR that learns with the network, from -`start` to -`end` at first (Kingma et al. 2021)."""
    return processes.logsnr(gammas.learned(gammas.monotone(jax.random.key(seed), hidden=hidden), start, end))


def matching(*, row: parameterizations.Row, weight: losses.weights.Weight) -> Criterion:
    """The weighted squared error of a row."""
    return Criterion(lambda process: losses.matching(process, row, weight))


def implicit(*, weight: losses.weights.Weight) -> Criterion:
    """Implicit score matching, with the exact divergence: for images of few pixels."""
    return Criterion(lambda process: losses.implicit(process, weight))


def sliced(*, weight: losses.weights.Weight, probes: int = 1, variance_reduced: bool = True) -> Criterion:
    """Sliced score matching."""
    return Criterion(lambda process: losses.sliced(process, weight, probes=probes, variance_reduced=variance_reduced))


def soft_truncated_times(
    key: PRNGKey, process: processes.Gaussian, n: int, *, power: float = 1.0, low: float = 1e-5, high: float = 1.0
) -> grids.Times:
    """Importance-sampled times from a low end that is drawn anew for each batch (Kim et al. 2022)."""
    return grids.soft_truncated(grids.importance_times, power=power, low=low, high=high)(key, process, n)


def vdm(*, levels: int, steps: int | None = None) -> Criterion:
    """The negative variational bound on whole grey levels, in T steps or infinitely many."""
    decoder = likelihood.decoders.discrete(levels)
    return Criterion(
        lambda process: likelihood.vdm_loss(process, decoder, steps=steps),
        lambda process: likelihood.vdm_loss(process),  # whose mean alone does not depend on the interior
    )


DATA = named(data, "digits", "mnist_5k", "mnist", "fashion_mnist", "cifar10", "images")
PROCESSES = named(processes, "vp", "subvp", "ve", "edm", "brownian", "cosine", "flow", "logsnr", "iddpm")
PROCESSES |= {"learned": learned}
LOSSES = {"matching": matching, "implicit": implicit, "sliced": sliced, "vdm": vdm}
ROWS = named(parameterizations, "noise", "data", "velocity", "v", "score", "scaled_score", "edm")
WEIGHTS = named(losses.weights, "unit", "snr", "edm", "min_snr", "sigmoid", "likelihood")
TIMES = named(
    grids,
    *("uniform_times", "stratified_times", "lattice_times", "importance_times", "debiased_times"),
    *("lognormal_times", "vp_times", "ve_times", "iddpm_times"),
)
TIMES |= {"soft_truncated_times": soft_truncated_times}
C_IN = named(preconditioning, "unit_scale", "data_scale") | {"own": lambda row: None}
C_NOISE = named(preconditioning, "log_ratio", "vp_time", "log_half", "iddpm_index")
LOSS_ROWS = ROWS | {"own": lambda row: row}
AUGMENTATIONS = {"none": lambda: None, "pipeline": data.augment.pipeline}
NETWORKS = named(networks, "UNet", "MLP", "ddpmpp", "ncsnpp", "adm", "edm2")
OPTIMIZERS = named(optax, "adam", "adamw", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd")
SAMPLERS = samplers.SAMPLERS
FEATURES = {"pixels": metrics.pixels, "alexnet": alexnet.features, "inception": inception.features}
