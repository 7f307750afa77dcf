import jax
import numpy as np
import pytest


@pytest.fixture
def perturb(key):
    """Adds noise to every parameter: a new network is zero, its blocks are their skips, and so nothing could be
    seen."""

    def perturb(params, scale=0.1):
        leaves, tree = jax.tree.flatten(params)
        draw = np.random.default_rng(np.asarray(jax.random.key_data(key))).standard_normal
        return tree.unflatten([p + (scale * draw(p.shape)).astype(p.dtype) for p in leaves])

    return perturb
