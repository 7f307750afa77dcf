"""The fine digits of a pixel, written large: sin(2^n pi x) and cos(2^n pi x) of a network's input (Kingma et al. 2021).

A likelihood counts grey levels that a network in float32 hardly tells apart: of 256 in [-1, 1], two neighbours differ
by 2/255. At n = 8 they are a whole period apart, so that the wave tells where in a level x is; at n = 7 half of one,
which tells odd levels from even. For another number of levels that is n = log2(levels - 1) and the one below: 4 and 3
for 17.

The exponents are those of the data's own scale, so they go with a network input that has it: x_t itself, on a
variance-preserving process with a row whose c_in is 1 (noise, v)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.errors import InputError


def fourier_features(
    x: Float[Array, "batch *spatial channels"], exponents: Sequence[int] = (7, 8)
) -> Float[Array, "batch *spatial waves"]:
    """sin, then cos, of 2^n pi x for each exponent n, of every channel: x (B, *spatial, C) -> (B, *spatial, 2 N C).

    To float32's full precision at any n: 2^n x and its remainder in a period are exact. Raises InputError for repeated
    exponents."""
    if len(set(exponents)) != len(exponents):
        raise InputError(f"Fourier features got the exponents {tuple(exponents)}, expected each once")
    turns = [jnp.asarray(2.0**n, x.dtype) * x for n in exponents]  # in half periods
    angles = jnp.pi * jnp.concatenate([turn - 2 * jnp.round(0.5 * turn) for turn in turns], axis=-1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
