"""The names, layouts and options of EDM's checkpoints; that the numbers are right is `networks/test_edm_goldens.py`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import functional
from jaxdiff.networks.edm.song_unet import RESIDUAL, SKIP
from jaxdiff.networks.streams import counted
from jaxdiff.pretrained import edm_names

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"img_resolution": 16, "img_channels": 3, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8, 4]}
STORED = {
    "edm_ddpmpp": SMALL | {"model_type": "SongUNet", "model_channels": 16, "label_dim": 4, "augment_dim": 9},
    "edm_ncsnpp": SMALL
    | {"model_type": "SongUNet", "model_channels": 16, "label_dim": 0, "embedding_type": "fourier"}
    | {"encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1], "sigma_data": 0.5},
    "edm_adm": SMALL | {"model_type": "DhariwalUNet", "model_channels": 32, "label_dim": 4, "use_fp16": False},
}


def weights(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key.removeprefix("w/"): file[key] for key in file.files if key.startswith("w/")}


def network(name, **options):
    return nnx.eval_shape(lambda: edm_names.network_from_kwargs(STORED[name] | options, rngs=counted(0)))


@pytest.mark.parametrize("name", STORED)
def test_weights_of_the_published_program_come_back_with_the_same_bits(name):
    arrays = weights(name)
    net = edm_names.load(network(name), arrays)
    assert not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(net)))
    back = edm_names.arrays_from_params(net, functional(net)[1])
    assert back.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_the_skip_kinds_come_back_too():
    net = network("edm_ddpmpp", encoder_type="skip", decoder_type="skip")
    assert net.feed is SKIP
    assert net.progressive
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda leaf: draw(leaf.shape).astype(np.float32), functional(net)[1])
    arrays = edm_names.arrays_from_params(net, params)
    assert arrays["model.enc.8x8_aux_skip.weight"].shape == (16, 3, 1, 1)
    assert {"model.enc.8x8_aux_down.resample_filter", "model.dec.16x16_aux_up.resample_filter"} <= arrays.keys()
    jax.tree.map(np.testing.assert_array_equal, functional(edm_names.load(net, arrays))[1], params)


def test_parameters_alone_where_nothing_else_is_to_be_loaded():
    net = network("edm_adm")
    params = edm_names.params_from_arrays(net, arrays := weights("edm_adm"))
    jax.tree.map(np.testing.assert_array_equal, params, functional(edm_names.load(net, arrays))[1])
    ncsnpp = network("edm_ncsnpp")
    with pytest.raises(InputError, match=r"map_noise.freqs is no parameter.*load"):
        edm_names.params_from_arrays(ncsnpp, arrays := weights("edm_ncsnpp"))
    loaded = edm_names.load(ncsnpp, arrays)
    assert edm_names.params_from_arrays(loaded, arrays).keys() == functional(loaded)[1].keys()


def test_options_become_the_structure():
    net = network("edm_ncsnpp")
    assert net.feed is RESIDUAL
    assert net.taps == (0.125, 0.375, 0.375, 0.125)
    assert net.null_class is None
    assert network("edm_adm", use_fp16=True).dtype == jnp.float16
    net = nnx.eval_shape(lambda: edm_names.network_from_kwargs(STORED["edm_adm"], out_channels=6, rngs=counted(0)))
    assert net.out_conv.kernel.shape[-1] == 6
    assert net.null_class == 4


BIAS = "model.map_layer0.bias"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop(BIAS), rf"lacks {BIAS}"),
        (lambda a: a.update({"model.enc.8x8_block1.conv0.weight": a[BIAS]}), r"has model.enc.8x8_block1.conv0.weight"),
        (lambda a: a.update({BIAS: a[BIAS][:-1]}), rf"{BIAS} \(127,\) for \(128,\)"),
        (lambda a: a.update({BIAS: a[BIAS].astype(int)}), rf"floating-point numbers in {BIAS}"),
        (
            lambda a: a.update({"model.dec.16x16_up.skip.resample_filter": np.ones((1, 1, 2, 2), np.float32)}),
            r"16x16_up.skip.resample_filter is not",
        ),
    ],
)
def test_another_checkpoint_is_refused_by_the_name_of_what_differs(change, words):
    arrays = weights("edm_adm")
    change(arrays)
    with pytest.raises(InputError, match=words):
        edm_names.load(network("edm_adm"), arrays)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_type": "UNet"}, r"'UNet', expected one of SongUNet, DhariwalUNet"),
        ({"encoder_type": "cubic"}, r"'cubic', expected one of standard, skip, residual"),
        ({"embedding_type": ["fourier"]}, r"\['fourier'\], expected one of positional, fourier"),
        ({"chanel_mult": [1]}, "has chanel_mult"),
        ({"channel_mult": "12"}, r"channel_mult'\] is '12', expected a list"),
        ({"num_blocks": 1.5}, r"num_blocks'\] is 1.5, expected a whole number"),
        ({"dropout": "none"}, r"dropout'\] is 'none', expected a number"),
        ({"use_fp16": 1}, r"use_fp16'\] is 1, expected True or False"),
    ],
)
def test_unknown_options_and_values_are_refused_by_name(options, words):
    with pytest.raises(InputError, match=words):
        edm_names.network_from_kwargs(STORED["edm_ncsnpp"] | options, rngs=nnx.Rngs(0))


def test_what_has_no_default_is_asked_for():
    with pytest.raises(InputError, match="lacks img_channels"):
        edm_names.network_from_kwargs({"model_type": "SongUNet", "img_resolution": 8}, rngs=nnx.Rngs(0))
