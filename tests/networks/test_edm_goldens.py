"""DDPM++, NCSN++ and ADM against arrays that the published EDM program computed: its weights, its outputs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import denoisers, parameterizations, processes, samplers
from jaxdiff.networks import adm, ddpmpp, functional, ncsnpp
from jaxdiff.pretrained import edm_names

pytestmark = pytest.mark.claim("DDPM++, NCSN++ and ADM equal the published programs: D and six steps of Heun to 5e-5")


SMALL = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,)}
NETWORKS = {
    "edm_ddpmpp": lambda: ddpmpp(3, 16, **SMALL, num_classes=4, augment=9, rngs=nnx.Rngs(0)),
    "edm_ncsnpp": lambda: ncsnpp(3, 16, **SMALL, rngs=nnx.Rngs(0)),
    "edm_adm": lambda: adm(3, 16, **(SMALL | {"width": 32}), num_classes=4, rngs=nnx.Rngs(0)),
}
TOLERANCE = 5e-5  # right ones agree to 2e-6; a wrong epsilon of the normalisation shows 4e-4


@pytest.fixture(scope="module", params=NETWORKS)
def golden(request):
    """(apply, params, file) of one golden file."""
    with np.load(Path(__file__).parents[1] / "golden" / f"{request.param}.npz") as file:
        arrays = dict(file)
    weights = {name.removeprefix("w/"): value for name, value in arrays.items() if name.startswith("w/")}
    apply, params = functional(edm_names.load(nnx.eval_shape(NETWORKS[request.param]), weights))
    return jax.jit(apply), params, arrays


def channels_last(images):
    return np.moveaxis(images, 1, -1)


def condition(arrays, n=None):
    named = {"label": arrays.get("labels"), "augment": arrays.get("augment_labels")}
    return {name: jnp.asarray(value[:n]) for name, value in named.items() if value is not None}


def test_the_denoiser_by_hand(golden):
    apply, params, arrays = golden
    x, sigma = channels_last(arrays["x"]), arrays["sigma"][:, None, None, None]
    total = np.sqrt(sigma**2 + np.float32(0.25))
    f = apply(params, x / total, jnp.log(arrays["sigma"]) / 4, condition(arrays))
    got = 0.25 / total**2 * x + sigma * 0.5 / total * f
    assert f.dtype == jnp.float32
    error = np.abs(got - channels_last(arrays["y"])).max()
    assert error < TOLERANCE, error
    if "w/model.dec.16x16_aux_conv.weight" in arrays:
        # DDPM++ and NCSN++ have last layers of 1e-6 in these files, so F varies by 7e-6: at sigma = 30, where y is
        # nearly c_out F, float32 still tells 4e-9, and a wrong border of the residual path shows 4e-8.
        assert np.abs(got - channels_last(arrays["y"]))[2].max() < 1.5e-8


def from_network(apply, params):
    network = denoisers.from_network(apply, parameterizations.edm(0.5), processes.edm())
    return network.bind(params)


def test_the_denoiser_by_from_network(golden):
    apply, params, arrays = golden
    make = from_network(apply, params)
    t = arrays["sigma"] / 80.0
    got = jax.jit(jax.vmap(lambda x, t, cond: make(cond)(x, t)))(channels_last(arrays["x"]), t, condition(arrays))
    assert np.abs(got - channels_last(arrays["y"])).max() < TOLERANCE


def test_six_steps_of_heun(golden, x64):
    apply, params, arrays = golden
    make, sampler = from_network(apply, params), samplers.edm(processes.edm(), steps=6)
    x = 80.0 * jnp.asarray(channels_last(arrays["latents"]))
    assert x.dtype == jnp.float64
    labels = condition(arrays, n=2).get("label")  # augmentation labels are zeros when sampling
    keys = jax.random.split(jax.random.key(0), 2)
    got = jax.jit(jax.vmap(lambda key, x, cond: sampler(key, make(cond), x)))(keys, x, labels)
    assert got.dtype == jnp.float64
    error = np.abs(got - channels_last(arrays["sample6"])).max()
    assert error < TOLERANCE, error
