"""The continuous-time evidence lower bound of a score model (Huang, Lim and Courville 2021): what its reverse SDE says.

A denoiser makes a score s, and s a generative model: the reverse SDE from the prior p_1 at t = 1 down to t0. Of its
log-density at x,

    log p_t0(x) >= E[ log p_1(x_1) - integral from t0 to 1 of ( g^2 |s|^2 / 2 + div(g^2 s - f) ) dt | x_t0 = x ]

along the forward process from x. With the exact score and p_1 = q_1 the bound is log q_t0(x) itself, for every x. Its
mean over data is -H(q_t0) - KL(q_1 | p_1) - J, J the integral of g^2 E|s - grad log q_t|^2 / 2: score matching is
maximum likelihood. In three forms of equal mean,

    ism   |s|^2 / 2 + div s                   the divergence exact, or along Hutchinson's probes v
    ssm   (v' s)^2 / 2 + v' (ds/dx) v         (`ism` with "hutchinson" is its variance-reduced form)
    dsm   |s|^2 / 2 + s . eps / b             = (|s + eps / b|^2 - |eps / b|^2) / 2, for x_t = a x + b eps

What is known is taken out. The score r = -x / v of N(0, 1) data, v = alpha^2 + sigma^2, has an exact bound: its
integral is E[log N(x_1; 0, v_1) - log N(x_t0; 0, v_t0)], with the term n log alpha of div f in it. With s - r = (alpha
/ sigma^2) delta, delta = D(x_t) - alpha x_t / v, what is left to estimate is

    -integral of (alpha g^2 / sigma^2) E[ delta . (s + r) / 2 + div delta ] dt

in which alpha g^2 / sigma^2 = 2 (alpha sigma' - alpha' sigma) / sigma is finite where alpha = 0 (flow and cosine at 1)
and g^2, f and log alpha are not. The dsm form asks at x_t and at its mirror image a x - b eps: eps . (delta(+) -
delta(-)) / 2b stays finite where b -> 0, as no single draw does."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.grids.training import of_levels
from jaxdiff.likelihood.bound import Bound, bound
from jaxdiff.likelihood.decoders import Decoder
from jaxdiff.likelihood.ends import start
from jaxdiff.likelihood.truncation import entropy, truncate
from jaxdiff.numerics import aligned, as_array, cast, known, partial, require
from jaxdiff.numerics.divergence import exact, hutchinson, rademacher
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import believe
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time

FORMS = ("dsm", "ism", "ssm")
DIVERGENCES = ("exact", "hutchinson")


def elbo(
    key: PRNGKey,
    process: Gaussian,
    denoise: Denoiser,
    x: Array,
    *,
    form: str = "dsm",
    divergence: str = "exact",
    probes: int = 1,
    times: grids.Law = grids.importance_times,
    n_times: int = 16,
    draws: int = 8,
    t0: Time | None = None,
    prior: Callable[[Array], Scalar] | None = None,
    decoder: Decoder | None = None,
    noise: Noise = jax.random.normal,
) -> Bound:
    """The bound on log p(x) of one example, in nats.

    Without a decoder x is the state at `t0` (by default where sigma / alpha = .002, or 0 where the process keeps more
    noise), the bound is on its log-density there, and the terms are `prior` = E log p_1(x_1) and `diffusion`, the
    integral. With one of `likelihood.decoders` x is clean data, and two terms more pay for [0, t0]: `entropy` =
    n/2 log(2 pi e sigma(t0)^2) and `reconstruction` = E log p(x | x_t0).

    `prior` is a log-density at t = 1; the default is that from which samplers start, N(0, sigma(1)^2), whose mean is
    known exactly. `divergence` ("exact" or "hutchinson") is the ism form's; `probes` are the random signs of the ism
    and ssm forms. `times` is a law whose weighted mean is an integral over time; `n_times` of them and as many noises
    are asked side by side, `draws` times in turn: what the standard errors come from, and what costs no memory. Where
    the log-SNR has no end they stop at sigma / alpha = 1 / sqrt(epsilon), beyond which nothing is left but rounding.
    Cost in denoiser calls, a time: two for dsm, one and a `jax.jvp` a probe (or an element, if exact) for the others.

    Raises InputError for an x that is no finite float32 or float64 array, an unknown form or divergence, counts below
    1, a law of noise levels (whose weighted mean is another objective), a t0 outside [0, 1) or without noise, a belief
    of another shape, and what the decoder refuses."""
    _one_of("form", form, FORMS)
    _one_of("divergence", divergence, DIVERGENCES)
    for name, count in {"probes": probes, "n_times": n_times, "draws": draws}.items():
        if count < 1:
            raise InputError(f"elbo got {name}={count}, expected at least 1")
    functions = (
        partial(denoise),
        None if prior is None else partial(prior),
        decoder,
        partial(integral_law(times)),
        partial(noise),
    )
    return _elbo(key, process, *functions, _checked(x), start(process, t0), form, divergence, probes, n_times, draws)


def integral_law(times: grids.Law) -> grids.Law:
    """`times`, refused where its weighted mean is known to be no integral over time."""
    if of_levels(times):
        raise InputError(
            "the bound got a law of noise levels as `times`, whose density is an objective's own weight; expected one "
            "that estimates the integral over time, such as grids.importance_times or grids.uniform_times"
        )
    return times


def _checked(x):
    if x.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"elbo got x of {x.dtype}, expected float32 or float64, in the scale of the model's data")
    finite = known(lambda x: jnp.all(jnp.isfinite(x)), x)
    # As an array: a weakly typed one would be another program.
    return require(as_array(x), finite, "elbo got an x that is not finite; drop or repair such examples first")


def _one_of(name, value, allowed):
    if value not in allowed:
        raise InputError(f"elbo got {name}={value!r}, expected one of {', '.join(allowed)}")


@eqx.filter_jit
def _elbo(key, process, denoise, prior, decoder, times, noise, x, t0, form, divergence, probes, n_times, draws):
    x, t0 = aligned(x, t0)
    last = jnp.ones_like(t0)
    kernel = partial(_kernel, process, t0 if decoder is None else None)  # from where x is: t0, or clean
    estimate = {"dsm": _dsm, "ism": _ism, "ssm": _ssm}[form]
    probes = None if form == "ism" and divergence == "exact" else probes
    high = horizon(process, t0)

    def beyond(key, t):
        noise_key, probe_key = jax.random.split(key)
        a, b = kernel(t)
        eps = noise(noise_key, x.shape, x.dtype)
        value = estimate(probe_key, *_difference(process, denoise, t), a * x, b, eps, probes)
        return gain(process, t) * value

    def log_prior(key):
        a, b = kernel(last)
        return prior(a * x + b * noise(key, x.shape, x.dtype))

    def log_data(key):
        _, terms = truncate(key, process, denoise, x, decoder, t0, noise=noise)  # pyright: ignore[reportArgumentType]
        return terms["reconstruction"]

    def draw(key):
        time_key, *keys = jax.random.split(key, 4)
        diffusion_keys, prior_keys, data_keys = (jax.random.split(key, n_times) for key in keys)
        t, weight = cast(times(time_key, process, n_times, low=t0, high=high), x.dtype)
        terms = {"diffusion": -jnp.mean(weight * jax.vmap(beyond)(diffusion_keys, t))}
        if prior is not None:
            terms["prior"] = jnp.mean(jax.vmap(log_prior)(prior_keys))
        if decoder is not None:
            terms["reconstruction"] = jnp.mean(jax.vmap(log_data)(data_keys))
        return terms

    def log_normal(variance, t):
        """E[log N(x_t; 0, variance)]."""
        a, b = kernel(t)
        return -0.5 * ((jnp.sum((a * x) ** 2) + x.size * b**2) / variance + x.size * jnp.log(2 * jnp.pi * variance))

    terms = jax.lax.map(draw, jax.random.split(key, draws))
    reference = log_normal(_total(process, t0), t0) - log_normal(_total(process, last), last)
    terms["diffusion"] = reference + terms["diffusion"]
    if prior is None:
        terms["prior"] = log_normal(process.scales(last)[1] ** 2, last)
    if decoder is not None:
        terms["entropy"] = entropy(process, x, t0)
    return bound(terms)


def _kernel(process, t0, t):
    """(a, b) of x_t = a x + b eps, given x at t0, or clean where t0 is None."""
    alpha, sigma = process.scales(t)
    if t0 is None:
        return alpha, sigma
    gone = -jnp.expm1(process.log_snr(t) - process.log_snr(t0))  # 1 - SNR(t) / SNR(t0): no difference of variances
    return alpha / process.scales(t0)[0], sigma * jnp.sqrt(jnp.maximum(gone, 0))


def _total(process, t):
    alpha, sigma = process.scales(t)
    return alpha**2 + sigma**2


def horizon(process: Gaussian, t0: Scalar) -> Scalar:
    """Where an integral from `t0` in log-SNR stops: t = 1, or sigma / alpha = 1 / sqrt(epsilon) if that is earlier;
    what is left out is of the order of SNR = epsilon."""
    level = 1 / jnp.sqrt(jnp.finfo(t0.dtype).eps).astype(t0.dtype)
    return jnp.clip(process.time_of(level), t0, 1)


def gain(process: Gaussian, t: Time) -> Scalar:
    """alpha g^2 / sigma^2, finite where alpha = 0."""
    t = as_array(t)
    (alpha, sigma), (d_alpha, d_sigma) = jax.jvp(process.scales, (t,), (jnp.ones_like(t),))
    return 2 * (alpha * d_sigma / sigma - d_alpha)


def _difference(process, denoise, t):
    """delta(x), and (s + r) / 2 as a function of (x, delta); and sigma."""
    alpha, sigma = process.scales(t)
    total = _total(process, t)

    def delta(x):
        return believe(denoise, x, t) - alpha / total * x

    def lean(x, delta):
        return 0.5 * alpha / sigma**2 * delta - x / total

    return delta, lean, sigma


# Estimates of E[delta . (s + r) / 2 + div delta] at x_t = mean + b eps


def _dsm(key, delta, lean, sigma, mean, b, eps, probes):
    # Where t has rounded to t0 the quotient is 0 / 0. A width below sqrt(epsilon) sigma changes what it is by rounding.
    b = jnp.maximum(b, jnp.sqrt(jnp.finfo(b.dtype).eps) * sigma)
    x, image = mean + b * eps, mean - b * eps
    there, mirrored = delta(x), delta(image)
    along = 0.5 * jnp.sum(there * lean(x, there) + mirrored * lean(image, mirrored))
    return along + jnp.sum(eps * (there - mirrored)) / (2 * b)


def _ism(key, delta, lean, sigma, mean, b, eps, probes):
    x = mean + b * eps
    if probes is None:
        there, divergence = exact(delta, x)
    else:
        there, divergences = hutchinson(delta, x, rademacher(key, x.shape, x.dtype, probes))
        divergence = jnp.mean(divergences)
    return jnp.sum(there * lean(x, there)) + divergence


def _ssm(key, delta, lean, sigma, mean, b, eps, probes):
    x = mean + b * eps
    v = rademacher(key, x.shape, x.dtype, probes)
    there, divergences = hutchinson(delta, x, v)
    along = [jnp.sum((v * side).reshape(probes, -1), axis=1) for side in (there, lean(x, there))]
    return jnp.mean(along[0] * along[1] + divergences)
