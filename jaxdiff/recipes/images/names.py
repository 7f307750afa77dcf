"""What a config of this recipe can name, field by field. A new process, row, weight or law is one word here."""

import optax

from jaxdiff import data, grids, losses, metrics, networks, parameterizations, preconditioning, processes
from jaxdiff.pretrained import alexnet, inception
from jaxdiff.recipes.images import samplers
from jaxdiff.recipes.resolve import named

DATA = named(data, "digits", "mnist_5k", "mnist", "fashion_mnist", "cifar10", "images")
PROCESSES = named(processes, "vp", "subvp", "ve", "edm", "brownian", "cosine", "flow", "logsnr", "iddpm")
ROWS = named(parameterizations, "noise", "data", "velocity", "v", "score", "scaled_score", "edm")
WEIGHTS = named(losses.weights, "unit", "snr", "edm", "min_snr", "sigmoid", "likelihood")
TIMES = named(
    grids,
    *("uniform_times", "stratified_times", "importance_times"),
    *("lognormal_times", "vp_times", "ve_times", "iddpm_times"),
)
C_IN = named(preconditioning, "unit_scale", "data_scale") | {"own": lambda row: None}
C_NOISE = named(preconditioning, "log_ratio", "vp_time", "log_half", "iddpm_index")
LOSS_ROWS = ROWS | {"own": lambda row: row}
AUGMENTATIONS = {"none": lambda: None, "pipeline": data.augment.pipeline}
NETWORKS = named(networks, "UNet", "MLP", "ddpmpp", "ncsnpp", "adm", "edm2")
OPTIMIZERS = named(optax, "adam", "adamw", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd")
SAMPLERS = named(samplers, *samplers.__all__)
FEATURES = {"pixels": metrics.pixels, "alexnet": alexnet.features, "inception": inception.features}
