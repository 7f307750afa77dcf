"""What a config of this recipe can name, field by field. A new process, row, weight or law is one word here."""

import optax

from jaxdiff import data, grids, losses, networks, parameterizations, processes
from jaxdiff.recipes.images import samplers
from jaxdiff.recipes.resolve import named

DATA = named(data, "digits", "mnist_5k", "mnist", "fashion_mnist", "cifar10", "images")
PROCESSES = named(processes, "vp", "subvp", "ve", "edm", "cosine", "flow", "logsnr", "iddpm")
ROWS = named(parameterizations, "noise", "data", "velocity", "v", "score", "edm")
WEIGHTS = named(losses.weights, "unit", "snr", "edm", "min_snr", "sigmoid", "likelihood")
TIMES = named(grids, "uniform_times", "stratified_times", "lognormal_times", "importance_times")
NETWORKS = named(networks, "UNet", "MLP")
OPTIMIZERS = named(optax, "adam", "adamw", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd")
SAMPLERS = named(samplers, *samplers.__all__)
