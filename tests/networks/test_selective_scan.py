"""The chunked associative scan beside the recurrence itself, token by token in NumPy's float64; its derivative by a
complex step, which has no cancellation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from jaxdiff.errors import InputError
from jaxdiff.networks.tokens.selective_scan import selective_scan

pytestmark = pytest.mark.claim("the selective scan is its recurrence; 32,768 bases in memory and time")


BATCH, LENGTH, CHANNELS, STATE = 2, 11, 3, 4
NAMES = ("x", "dt", "decay", "into", "out", "state")


def arguments(seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((BATCH, LENGTH, CHANNELS)),
        rng.uniform(0, 1, (BATCH, LENGTH, CHANNELS)),
        -rng.uniform(0.1, 3, (STATE, CHANNELS)),
        rng.standard_normal((BATCH, LENGTH, STATE)),
        rng.standard_normal((BATCH, LENGTH, STATE)),
        rng.standard_normal((BATCH, STATE, CHANNELS)),
    )


def recurrence(x, dt, decay, into, out, state):
    h, y = state, []
    for t in range(x.shape[1]):
        h = np.exp(dt[:, t, None] * decay) * h + (dt * x)[:, t, None] * into[:, t, :, None]
        y.append((out[:, t, :, None] * h).sum(1))
    return np.stack(y, 1), h


@pytest.mark.parametrize("chunk", [1, 2, 4, 11, 100])
def test_the_recurrence(x64, chunk):
    args = arguments()
    y, last = jax.jit(lambda *args: selective_scan(*args, chunk=chunk))(*map(jnp.asarray, args))
    expected = recurrence(*args)
    np.testing.assert_allclose(y, expected[0], atol=1e-13)
    np.testing.assert_allclose(last, expected[1], atol=1e-13)


@pytest.mark.parametrize("chunk", [4, 11])
def test_the_gradient_in_every_argument(x64, chunk):
    args, rng = arguments(), np.random.default_rng(1)
    weights = [rng.standard_normal(a.shape) for a in recurrence(*args)]

    def loss(args):
        return sum((w * a).sum() for w, a in zip(weights, selective_scan(*args, chunk=chunk), strict=True))

    slopes = jax.jit(jax.grad(loss))(tuple(map(jnp.asarray, args)))
    for i, name in enumerate(NAMES):
        for _ in range(3):
            toward = rng.standard_normal(args[i].shape)
            moved = tuple(a + 1e-30j * toward if j == i else a for j, a in enumerate(args))
            exact = sum((w * a.imag).sum() for w, a in zip(weights, recurrence(*moved), strict=True)) / 1e-30
            np.testing.assert_allclose(np.sum(np.asarray(slopes[i]) * toward), exact, rtol=1e-11, err_msg=name)


def test_tokens_without_time_leave_the_state_and_halves_follow_one_another(x64):
    x, dt, decay, into, out, state = arguments()
    dt[:, 4:7] = 0
    scan = jax.jit(lambda *args: selective_scan(*args, chunk=3))
    still, last = scan(x, dt, decay, into, out, state)
    x, dt, into, out = (np.delete(a, np.arange(4, 7), axis=1) for a in (x, dt, into, out))
    short, end = scan(x, dt, decay, into, out, state)
    np.testing.assert_allclose(np.delete(still, np.arange(4, 7), axis=1), short, atol=1e-13)
    np.testing.assert_allclose(last, end, atol=1e-13)


def test_memory_holds_the_state_of_one_chunk():
    """The largest array of the compiled program, forward and backward, against all states of the sequence."""
    length, channels, state, chunk = 512, 16, 8, 16
    shapes = [(1, length, channels), (1, length, channels), (state, channels), (1, length, state), (1, length, state)]
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    loss = lambda args: selective_scan(*args, chunk=chunk)[0].sum()  # noqa: E731

    def largest(jaxpr):
        sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
        inner = [largest(j) for eqn in jaxpr.eqns for j in jaxprs_in_params(eqn.params)]
        return max(sizes + inner)

    program = jax.make_jaxpr(jax.grad(loss))(args).jaxpr
    assert largest(program) <= length // chunk * state * channels * 2
    assert length * state * channels == 8 * length // chunk * state * channels * 2


def test_a_chunk_is_a_token_or_more():
    with pytest.raises(InputError, match="chunk=0"):
        selective_scan(*(jnp.asarray(a, jnp.float32) for a in arguments()), chunk=0)
