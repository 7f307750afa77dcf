"""The selective state-space recurrence (Gu & Dao 2023): each channel keeps N numbers, which decay and take in at rates
that the input sets,

    h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t,    y_t = C_t . h_t,

with A < 0. Steps compose, (a2, b2) after (a1, b1) = (a1 a2, a2 b1 + b2), so a chunk of the sequence is one associative
scan of logarithmic depth; chunks follow one another and hand on the state. The N numbers of every channel exist for one
chunk at a time, in the backward pass as well, which keeps the state at the chunks' ends and computes the rest again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError

CHUNK = 64  # tokens


def selective_scan(
    x: Float[Array, "batch length channels"],
    dt: Float[Array, "batch length channels"],
    decay: Float[Array, "state channels"],
    into: Float[Array, "batch length state"],
    out: Float[Array, "batch length state"],
    state: Float[Array, "batch state channels"] | None = None,
    *,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "batch length channels"], Float[Array, "batch state channels"]]:
    """y (B, L, E) and the last state (B, N, E), of inputs x, steps dt >= 0, A = `decay` (N, E), B = `into` and C =
    `out` (B, L, N), starting from `state` or zeros.

    A token with dt = 0 leaves the state as it is. Memory is O(chunk B N E) besides the arguments."""
    if chunk < 1:
        raise InputError(f"chunk={chunk}: expected at least one token")
    batch, length, channels = x.shape
    chunk = max(1, min(chunk, length))
    if state is None:
        state = jnp.zeros((batch, *decay.shape), x.dtype)

    def chunks(a):  # (B, L, ...) -> (L / chunk, chunk, B, ...); the rest of the last chunk is dt = 0
        a = jnp.moveaxis(a, 1, 0)
        a = jnp.pad(a, [(0, -length % chunk)] + [(0, 0)] * (a.ndim - 1))
        return a.reshape(-1, chunk, *a.shape[1:])

    @jax.checkpoint
    def body(state, part):
        x, dt, into, out = part
        keep = jnp.exp(dt[:, :, None] * decay)
        add = (dt * x)[:, :, None] * into[..., None]
        add = add.at[0].add(keep[0] * state)
        _, h = jax.lax.associative_scan(_after, (keep, add))
        return h[-1], jnp.sum(out[..., None] * h, axis=2)

    state, y = jax.lax.scan(body, state, tuple(map(chunks, (x, dt, into, out))))
    return jnp.moveaxis(y.reshape(-1, batch, channels)[:length], 0, 1), state


def _after(first, second):
    (a1, b1), (a2, b2) = first, second
    return a1 * a2, a2 * b1 + b2
