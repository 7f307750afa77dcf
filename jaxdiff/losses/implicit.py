"""Score matching that does not see the clean data: the divergence of the score stands in for it.

With s the score that the denoiser makes and eps the noise in x_t, Stein's lemma E[eps . s] / sigma = E[div s] gives

    E |s + eps / sigma|^2  =  E[ |s|^2 + 2 div s ] + n / sigma^2        n: the number of elements

so these losses have the mean of `matching(process, parameterizations.score, weight)`, in value and in gradient, at
another variance (Hyvärinen 2005; sliced: Song et al. 2019; all three as one bound: Huang et al. 2021). In the belief D,
s = (alpha D - x_t) / sigma^2, they are Stein's unbiased estimate of the denoising risk."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.errors import InputError
from jaxdiff.losses.matching import Loss
from jaxdiff.losses.weights import Weight, likelihood
from jaxdiff.numerics import aligned, partial
from jaxdiff.numerics.divergence import exact, hutchinson, rademacher
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import believe
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def implicit(process: Gaussian, weight: Weight = likelihood) -> Loss:
    """w(t) (|s|^2 + 2 div s + n / sigma^2), summed over an example's axes, with the exact divergence: as many
    derivatives as there are elements; needs sigma(t) > 0.

    Called like `matching`: the same key gives it the same x_t. `mask` keeps the elements where it is true, in the
    divergence too. Raises InputError when the belief is no array like x0."""
    return Partial(_implicit, process, partial(weight))


def sliced(process: Gaussian, weight: Weight = likelihood, *, probes: int = 1, variance_reduced: bool = True) -> Loss:
    """`implicit` with the divergence seen along random signs v (Song et al. 2019): w(t) (|s|^2 + 2 v' ds/dx v + n /
    sigma^2), averaged over `probes`.

    Not `variance_reduced`, |s|^2 is (v' s)^2 too: their first form. Raises InputError for probes < 1."""
    if probes < 1:
        raise InputError(f"sliced score matching got probes={probes}, expected at least 1 direction")
    return _Sliced(process, partial(weight), probes, variance_reduced)


def _implicit(
    process: Gaussian,
    weight: Any,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    mask: Array | None = None,
    noise: Noise = jax.random.normal,
) -> Scalar:
    x0, t = aligned(x0, t)
    eps, divergence = exact(*_noise_field(process, denoise, key, x0, t, mask, noise))
    return _risk(process, weight, t, jnp.sum(eps**2), divergence, _count(x0, mask))


class _Sliced(eqx.Module):
    process: Gaussian
    weight: Any
    probes: int = eqx.field(static=True)
    variance_reduced: bool = eqx.field(static=True)

    def __call__(
        self,
        key: PRNGKey,
        denoise: Denoiser,
        x0: Array,
        t: Time,
        *,
        mask: Array | None = None,
        noise: Noise = jax.random.normal,
    ) -> Scalar:
        x0, t = aligned(x0, t)
        noise_key, probe_key = jax.random.split(key)
        v = _kept(rademacher(probe_key, x0.shape, x0.dtype, self.probes), mask)
        eps, along = hutchinson(*_noise_field(self.process, denoise, noise_key, x0, t, mask, noise), v)
        if self.variance_reduced:
            square = jnp.sum(eps**2)
        else:
            square = jnp.mean(jnp.sum((v * eps).reshape(self.probes, -1), axis=1) ** 2)
        return _risk(self.process, self.weight, t, square, jnp.mean(along), _count(x0, mask))


def _noise_field(process, denoise, key, x0, t, mask, noise):
    """x -> eps_hat = -sigma s(x), 0 where the mask hides it, and the x_t to see it at."""
    alpha, sigma = process.scales(t)

    def field(x):
        return _kept((x - alpha * believe(denoise, x, t)) / sigma, mask)

    return field, alpha * x0 + sigma * noise(key, x0.shape, x0.dtype)


def _kept(x, mask):
    return x if mask is None else jnp.where(mask, x, 0)


def _count(x0, mask):
    return x0.size if mask is None else jnp.sum(jnp.broadcast_to(mask, x0.shape), dtype=x0.dtype)


def _risk(process, weight, t, square, divergence, n):
    """w (|s|^2 + 2 div s + n / sigma^2) of s = -eps_hat / sigma."""
    sigma = process.scales(t)[1]
    return weight(process, t) * (square - 2 * sigma * divergence + n) / sigma**2
