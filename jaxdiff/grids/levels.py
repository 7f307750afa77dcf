"""Noise levels sigma / alpha: the range that a process has, and sequences in it."""

import jax.numpy as jnp

from jaxdiff.errors import InputError
from jaxdiff.numerics import concrete


def geometric(u, low, high):
    return jnp.exp(jnp.log(high) + u * (jnp.log(low) - jnp.log(high)))


def reach(process):
    """The lowest and the highest sigma / alpha of the process."""
    (alpha0, sigma0), (alpha1, sigma1) = process.scales(0.0), process.scales(1.0)
    return sigma0 / alpha0, sigma1 / alpha1


def ordered(sigma_min, sigma_max):
    if sigma_min is not None and sigma_max is not None and sigma_min >= sigma_max:
        raise InputError(f"sigma_min={sigma_min} is not below sigma_max={sigma_max}; swap or widen them")


def shown(value):
    return f"{float(value):g}" if concrete(value) else "(traced)"
