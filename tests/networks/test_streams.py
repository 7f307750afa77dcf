"""The keys of a stream that counts in Python are those of Flax's own."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxdiff.networks import functional
from jaxdiff.networks.edm import song_unet
from jaxdiff.networks.streams import counted


@pytest.mark.parametrize("form", [lambda f: f, jax.jit], ids=["at once", "traced"])
def test_the_keys_are_flaxs(form):
    def drawn(make):
        rngs = make(7)
        return [jax.random.key_data(key) for key in (rngs.params(), rngs.dropout(), rngs(), rngs.default())]

    ours, flaxs = (np.array(form(lambda make=make: drawn(make))()) for make in (counted, nnx.Rngs))
    np.testing.assert_array_equal(ours, flaxs)
    assert len(np.unique(ours, axis=0)) == 4


def test_a_network_made_inside_a_trace_is_the_same_bits_each_time():
    @jax.jit
    def made():
        net = song_unet.ddpmpp(2, 4, width=8, multipliers=(1,), blocks=1, attention=(), rngs=counted(3))
        return functional(net)[1]

    again = jax.tree.map(np.array_equal, made(), jax.jit(made.__wrapped__)())
    assert all(jax.tree.leaves(again))
