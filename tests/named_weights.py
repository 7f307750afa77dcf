"""Weights made from their names, by a rule that another program follows as well: what it computed with them is golden
(tests/golden/README.md), and the weights need not be kept."""

import zlib
from functools import cache

import numpy as np
from flax import nnx

from jaxdiff.networks.inception import Inception
from jaxdiff.pretrained import inception

ALEXNET = {
    "Conv_0": (11, 11, 3, 64),
    "Conv_1": (5, 5, 64, 192),
    "Conv_2": (3, 3, 192, 384),
    "Conv_3": (3, 3, 384, 256),
    "Conv_4": (3, 3, 256, 256),
}


def values(name, shape):
    """He's normal for kernels, .8 to 1.2 for scales and variances, N(0, .1^2) for the rest, seeded by crc32(name)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(("conv.weight", ".kernel")):
        fan_in = np.prod(shape[1:] if name.endswith("weight") else shape[:-1])
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
    if name.endswith(("bn.weight", "running_var")):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)


@cache
def inception_arrays():
    """All weights of Inception by their PyTorch names and shapes."""
    made = {}
    for place, variable in nnx.to_flat_state(nnx.split(nnx.eval_shape(lambda: Inception(rngs=nnx.Rngs(0))))[1]):
        name, axes = inception._named(place)
        made[name] = values(name, tuple(variable.get_value().shape[axis] for axis in axes))
    return made


def alexnet_arrays():
    """AlexNet's convolutions by name and leaf."""
    shapes = {f"{layer}.{leaf}": s if leaf == "kernel" else s[-1:] for layer, s in ALEXNET.items() for leaf in LEAVES}
    return {name.replace(".", "/"): values(name, shape) for name, shape in shapes.items()}


LEAVES = ("kernel", "bias")
