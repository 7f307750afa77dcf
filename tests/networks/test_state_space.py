"""The state-space network beside a NumPy program that runs each direction on its own, token by token; skips, size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from token_networks import BATCH, LENGTH, batch, made

from jaxdiff.networks import StateSpace, count, functional
from jaxdiff.networks.tokens.state_space import FASTEST, SLOWEST


@pytest.mark.claim("every published parameter count, EDM2's too, is exact")
@pytest.mark.parametrize(("classes", "millions"), [(None, 4.777), (10, 4.778)])
def test_published_parameter_count(classes, millions):
    """4.78M at 256 x 8 with 16 ids, 16 numbers of state a channel and conditioning of length 128."""
    net = nnx.eval_shape(lambda: StateSpace(16, width=256, depth=8, num_classes=classes, rngs=nnx.Rngs(0)))
    assert round(count(functional(net)[1]) / 1e6, 3) == millions


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale


def direction(block, p, h):
    """One direction as an ordinary causal layer: in, convolution, recurrence, gate, out."""
    x, z = np.split(h @ block["into"]["kernel"], 2, -1)
    taps, (state, channels) = len(p["kernel"]), p["log_rate"].shape
    past = np.concatenate([np.zeros((len(x), taps - 1, channels)), x], 1)
    x = silu(np.stack([(past[:, t : t + taps] * p["kernel"]).sum(1) for t in range(x.shape[1])], 1) + p["bias"])
    rank = p["spread"]["kernel"].shape[0]
    low, into, out = np.split(x @ p["read"]["kernel"], [rank, rank + state], -1)
    dt = np.log1p(np.exp(low @ p["spread"]["kernel"] + p["spread"]["bias"]))
    memory, y = np.zeros((len(x), state, channels)), []
    for t in range(x.shape[1]):
        memory = np.exp(-dt[:, t, None] * np.exp(p["log_rate"])) * memory
        memory = memory + (dt * x)[:, t, None] * into[:, t, :, None]
        y.append((out[:, t, :, None] * memory).sum(1) + p["skip"] * x[:, t])
    return (np.stack(y, 1) * silu(z)) @ block["out"]["kernel"]


@pytest.mark.parametrize("causal", [False, True])
def test_hidden_states_are_those_of_a_program_token_by_token(x64, causal):
    options = {"causal": causal, "time_conditioned": False, "depth": 2, "dtype": "float64", "param_dtype": "float64"}
    hidden, params = made(StateSpace, "hidden", **options)
    x = batch()[0]
    p = jax.tree.map(np.asarray, params)
    h = p["embed"]["table"][np.asarray(x)]
    for block in p["blocks"].values():
        read = rms(h, block["norm"]["scale"])
        mixed = direction(block, block["left"], read)
        if not causal:
            mixed = mixed + direction(block, block["right"], read[:, ::-1])[:, ::-1]
        h = h + mixed
    np.testing.assert_allclose(hidden(params, x, None), h, atol=1e-12)


@pytest.mark.parametrize("options", [{"time_conditioned": False}, {"num_classes": 2}], ids=["plain", "conditioned"])
def test_the_input_is_added_in_every_block(options):
    """With every mixer at zero the logits are still the tokens' own."""
    hidden, params = made(StateSpace, "hidden", **options)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if "'blocks'" in str(path) and "'out'" in str(path) else leaf, params
    )
    x, c, y = batch()
    told = (c, y) if "num_classes" in options else (None,)
    np.testing.assert_array_equal(hidden(params, x, *told), params["embed"]["table"][x])


def test_first_steps_are_within_their_range():
    block = jax.jit(lambda: functional(StateSpace(5, width=32, depth=1, rngs=nnx.Rngs(0)))[1])()["blocks"]["0"]
    for side in ("left", "right"):
        dt = jax.nn.softplus(block[side]["spread"]["bias"])
        assert SLOWEST * 0.99 < dt.min() < 3 * SLOWEST
        assert FASTEST / 3 < dt.max() < FASTEST * 1.01
        np.testing.assert_allclose(jnp.exp(block[side]["log_rate"][:, 0]), np.arange(1, 17), rtol=1e-5)
        assert 0.4 < np.abs(block[side]["kernel"]).max() <= 0.5
    assert not jnp.array_equal(block["left"]["kernel"], block["right"]["kernel"])


def test_any_chunk_gives_the_same_numbers():
    one, params = made(StateSpace)
    two, _ = made(StateSpace, chunk=100)
    x, c, _ = batch()
    assert one(params, x, c).shape == (BATCH, LENGTH, 5)
    np.testing.assert_allclose(one(params, x, c), two(params, x, c), atol=1e-6)
