"""Small networks on tokens for the tests: drawn parameters, for a new network says zero, and one compiled program for
all tests that call the same network on the same shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdiff.networks import StateSpace, TokenDiT, functional

VOCAB, STATES, BATCH, LENGTH = 5, 6, 3, 7
SMALL = {
    TokenDiT: {"width": 8, "depth": 1, "heads": 2, "cond_dim": 8},
    StateSpace: {"width": 8, "depth": 1, "state": 3, "chunk": 3, "cond_dim": 8},
}


def build(kind, **options):
    """The network without its numbers."""
    return nnx.eval_shape(lambda: kind(VOCAB, **({"states": STATES} | SMALL[kind] | options), rngs=nnx.Rngs(0)))


def draw(shapes, scale=0.3, seed=0):
    """Numbers of the size that trained weights have; norms and decay rates around 1."""
    rng = np.random.default_rng(seed)

    def one(path, leaf):
        centre = 1.0 if str(path[-1]) in ("['scale']", "['log_rate']", "['skip']") else 0.0
        return jnp.asarray(centre + scale * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


@functools.cache
def made(kind, method="__call__", **options):
    """(jitted apply, parameters) of a network."""
    apply, shapes = functional(build(kind, **options), method)
    return jax.jit(apply), draw(shapes)


def batch(seed=0, length=LENGTH):
    """Tokens, noise levels, labels: the null class is among them where there are two."""
    tokens = jnp.asarray(np.random.default_rng(seed).integers(0, STATES, (BATCH, length)), jnp.int32)
    return tokens, jnp.linspace(0.1, 4.0, BATCH, dtype=jnp.float32), jnp.arange(BATCH, dtype=jnp.int32)
