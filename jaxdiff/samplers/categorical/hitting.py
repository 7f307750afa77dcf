"""First hitting (Zheng et al. 2025): the absorbing process backwards, event by event, without a grid of times.

Of n masked tokens each is shown, going back, at a time whose chance of lying below s is (1 - alpha_s) / (1 - alpha_t):
the next of them at 1 - alpha = (1 - alpha_t) u^(1 / n), u uniform, and any of them is as likely to be it. So L tokens
ask the denoiser L times, whatever the schedule, and what is drawn has the law that ancestral steps have in the limit of
many: with an exact belief, that of the data."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff.beliefs import believe
from jaxdiff.errors import InputError
from jaxdiff.numerics import float_dtype, partial
from jaxdiff.processes.categorical import Categorical, Mixing, Share
from jaxdiff.samplers.categorical.draws import pick
from jaxdiff.samplers.categorical.kernels import absorbing_alone, alone
from jaxdiff.types import Denoiser, PRNGKey, State

__all__ = ["calls", "first_hitting"]


def first_hitting(
    key: PRNGKey, process: Categorical, denoise: Denoiser, shape: tuple[int, ...], *, block: int = 1
) -> State:
    """One example of `shape`, all masked at first, by at most as many calls of the denoiser as it has tokens.

    `block` tokens are shown by one call, asked for at the time of the first of them: ceil(tokens / block) calls, exact
    for block = 1 alone. Raises InputError for another process than the absorbing one, and a block below 1."""
    if not callable(denoise):
        raise InputError(f"the denoiser is a {type(denoise).__name__}, expected a function of (z, t) to a belief")
    return _first_hitting(key, absorbing_alone(process, "first_hitting"), partial(denoise), shape, _checked(block))


def calls(shape: tuple[int, ...], block: int = 1) -> int:
    """How often `first_hitting` asks the denoiser."""
    return -(-_size(shape) // _checked(block))


@eqx.filter_jit
def _first_hitting(key, process, denoise, shape, block):
    size, rounds = _size(shape), calls(shape, block)
    time_key, order_key, token_key = jax.random.split(key, 3)
    times = event_times(time_key, process, size)[::block]
    # Places beyond the last, where the blocks do not divide the tokens, are dropped.
    order = jnp.append(jax.random.permutation(order_key, size), jnp.full(rounds * block - size, size))

    def show(z, now):
        t, places, key = now
        z = z.reshape(shape)
        logs = alone(process, believe(process, denoise, z, t), z, t).reshape(size, process.vocab)
        return z.reshape(-1).at[places].set(pick(key, logs[places]), mode="drop"), None

    start = jnp.full(size, process.vocab, jnp.int32)
    keys = jax.random.split(token_key, rounds)
    return jax.lax.scan(show, start, (times, order.reshape(rounds, block), keys))[0].reshape(shape)


def event_times(key: PRNGKey, process: Mixing, size: int) -> Array:
    """The falling times at which `size` masked tokens are shown, one after the other."""
    dtype = float_dtype(process, jnp.result_type(float))
    waits = jax.random.exponential(key, (size,), dtype) / jnp.arange(size, 0, -1).astype(dtype)
    alpha = cast(Share, process.noise).alpha
    return jnp.clip(alpha.time_of(alpha.rest(jnp.ones((), dtype)) * jnp.exp(-jnp.cumsum(waits))), 0, 1)


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    if size < 1:
        raise InputError(f"first_hitting got shape={shape}, expected at least one token")
    return size


def _checked(block):
    if block < 1:
        raise InputError(f"first_hitting got block={block}, expected at least 1 token a call")
    return block
