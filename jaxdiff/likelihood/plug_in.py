"""The plug-in reverse family of a score s (Huang, Lim and Courville 2021): one generative model for each lam <= 1.

Backwards in time, from x ~ p_1,

    dx = mu dt + sigma dW        mu = (1 - lam / 2) g^2 s - f x,    sigma = sqrt(1 - lam) g

lam = 0 is the reverse SDE, lam = 1 the probability flow, lam < 0 adds noise; with the exact score and p_1 = q_1 all
have the marginals q_t of the forward process. For any score, with J = integral of g^2 E|s - grad log q_t|^2 / 2,

    KL(q_t0 | p_lam) <= KL(q_1 | p_1) + (1 - lam / 2)^2 / (1 - lam) J = KL(q_1 | p_1) + (1 + lam^2 / (4 (1 - lam))) J

The bound is least at lam = 0, where it is that of `elbo`, and infinite at lam = 1. That says nothing of the KL itself,
which may be least elsewhere: an over-dispersed score is made up for by more noise."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.likelihood.bound import bound
from jaxdiff.likelihood.elbo import gain, horizon, integral_law
from jaxdiff.likelihood.ends import start
from jaxdiff.numerics import as_array, cast, known, partial, require
from jaxdiff.processes.diffusing import Diffusing
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.sde import reverse_sde
from jaxdiff.samplers.stepper import Stepper, believe
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def plug_in(process: Diffusing, lam: Time = 0.0) -> Stepper:
    """Euler-Maruyama on the member `lam`, for any linear SDE: `samplers.reverse_sde` at eta^2 = 1 - lam. Raises
    InputError for lam > 1."""
    return reverse_sde(process, jnp.sqrt(1 - _member(lam)))


class Gap(NamedTuple):
    """An estimate of J in nats, and its standard error (NaN for one draw)."""

    value: Scalar
    stderr: Scalar


def score_gap(
    key: PRNGKey,
    process: Gaussian,
    denoise: Denoiser,
    exact: Denoiser,
    sample: Callable[[PRNGKey], Array],
    *,
    times: grids.Law = grids.importance_times,
    n_times: int = 64,
    draws: int = 16,
    t0: Time | None = None,
    noise: Noise = jax.random.normal,
) -> Gap:
    """J = integral from t0 to 1 of g^2 E|s - grad log q_t|^2 / 2, where the exact denoiser of the data is known.

    `sample(key)` draws one clean example, `exact` is its law's denoiser (an oracle's). Times as for `elbo`. Raises
    InputError for counts below 1, a law of noise levels, a bad t0 and beliefs of another shape."""
    for name, count in {"n_times": n_times, "draws": draws}.items():
        if count < 1:
            raise InputError(f"score_gap got {name}={count}, expected at least 1")
    functions = (partial(denoise), partial(exact), partial(sample), partial(integral_law(times)), partial(noise))
    return _score_gap(key, process, *functions, start(process, t0), n_times, draws)


@eqx.filter_jit
def _score_gap(key, process, denoise, exact, sample, times, noise, t0, n_times, draws):
    def at(key, t):
        data_key, noise_key = jax.random.split(key)
        x0 = sample(data_key)
        t = t.astype(x0.dtype)
        alpha, sigma = process.scales(t)
        x = alpha * x0 + sigma * noise(noise_key, x0.shape, x0.dtype)
        miss = believe(denoise, x, t) - believe(exact, x, t)
        return 0.5 * gain(process, t) * alpha / sigma**2 * jnp.sum(miss**2)

    def draw(key):
        time_key, key = jax.random.split(key)
        t, weight = times(time_key, process, n_times, low=t0, high=horizon(process, t0))
        values = jax.vmap(at)(jax.random.split(key, n_times), t)
        return jnp.mean(cast(weight, values.dtype) * values)

    found = bound({"gap": jax.lax.map(draw, jax.random.split(key, draws))})
    return Gap(found.value, found.stderr)


def plug_in_bound(prior_kl: Time, gap: Time, lam: Time = 0.0) -> Scalar:
    """The bound on KL(q_t0 | p_lam), from KL(q_1 | p_1) and J = `gap`, in nats. Raises InputError for lam > 1."""
    prior_kl, gap = as_array(prior_kl), as_array(gap)
    return prior_kl + gap + _excess(gap, lam)


def plug_in_elbo(elbo: Time, gap: Time, lam: Time = 0.0) -> Scalar:
    """The mean over data of the member's bound on log p_lam(x), from that of `elbo` (lam = 0) and J = `gap`.

    Only the mean is simple: for one x it takes the true score, and paths of an inference SDE other than the forward
    one. Raises InputError for lam > 1."""
    elbo, gap = as_array(elbo), as_array(gap)
    return elbo - _excess(gap, lam)


def _excess(gap, lam):
    lam = _member(lam)
    # An exact score costs no member anything, though the price of an error is infinite at lam = 1.
    return jnp.where(gap == 0, 0, gap * lam**2 / (4 * (1 - lam)))


def _member(lam):
    lam = as_array(lam)
    ok = known(lambda lam: jnp.all(lam <= 1), lam)
    return require(lam, ok, "the plug-in family got lam > 1, expected at most 1: its noise is sqrt(1 - lam) g")
