"""Variational diffusion models (Kingma et al. 2021): a bound on log p(x) in T steps, or in infinitely many.

    -log p(x) <= KL(q(z_1 | x) | p_1) + E[-log p(x | z_0)] + L
    L_T = 1/2 sum_i (SNR(t_(i-1)) - SNR(t_i)) E|x - D(z_i, t_i)|^2 = T/2 E_i[expm1(gamma_t - gamma_s) |eps - eps_hat|^2]
    L_inf = 1/2 integral of -SNR'(t) E|x - D(z_t, t)|^2 dt = 1/2 E_t[gamma'(t) |eps - eps_hat|^2]

gamma = -log SNR, t = t_i and s = t_(i-1). L_T is a Riemann sum of L_inf that asks the denoiser at the noisier end of
each step: for the exact one, whose error grows with the noise, it is larger, by O(1 / T). L_inf is an integral over
SNR: it depends on gamma through its ends alone. What gamma does in between changes the variance of the estimate, and
`vdm_objective` learns it so.

p_1 is the process's own prior N(0, sigma(1)^2), from which its samplers start (the paper has N(0, 1)). So KL = SNR(1)
|x|^2 / 2: one more step, whose denoiser says 0."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from jaxdiff import gammas, grids
from jaxdiff.errors import InputError
from jaxdiff.likelihood.bound import Bound, bound
from jaxdiff.likelihood.decoders import Decoder, checked
from jaxdiff.likelihood.elbo import integral_law
from jaxdiff.likelihood.ends import start
from jaxdiff.likelihood.truncation import truncate
from jaxdiff.losses.matching import Loss
from jaxdiff.numerics import aligned, as_array, cast, concrete, known, partial, require
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import believe
from jaxdiff.types import Denoiser, Noise, PRNGKey, Scalar, Time


def vdm(
    key: PRNGKey,
    process: Gaussian,
    denoise: Denoiser,
    x: Array,
    *,
    decoder: Decoder,
    steps: int | None = None,
    times: grids.Law = grids.lattice_times,
    n_times: int = 16,
    draws: int = 8,
    t0: Time | None = None,
    noise: Noise = jax.random.normal,
) -> Bound:
    """The bound on log p(x) of one example, in nats, of terms `prior`, `reconstruction` and `diffusion`.

    `steps` is T, or None for infinitely many. `times` is a law whose weighted mean is an integral over time; `n_times`
    of them are asked side by side, `draws` times in turn (a stratified or lattice law asks every step once at n_times =
    T). The model starts at `t0`: by default at t = 0 where the process keeps noise there, as a log-SNR schedule does,
    else where sigma / alpha = .002. `noise` draws eps (n_times, *x.shape), and once a draw that of z_0.

    Raises InputError for an x that is no finite float32 or float64 array, counts below 1, a law of noise levels, a t0
    without noise, a belief of another shape, and what the decoder refuses."""
    _positive(steps=steps, n_times=n_times, draws=draws)
    if x.dtype not in (jnp.float32, jnp.float64):
        raise InputError(f"vdm got x of {x.dtype}, expected float32 or float64, in the scale of the model's data")
    finite = known(lambda x: jnp.all(jnp.isfinite(x)), x)
    x = checked(decoder, require(x, finite, "vdm got an x that is not finite; drop or repair such examples first"))
    functions = partial(denoise), partial(decoder), partial(integral_law(times)), partial(noise)
    return _vdm(key, process, *functions, x, _first(process, t0), _count(steps), n_times, draws)


@eqx.filter_jit
def _vdm(key, process, denoise, decoder, times, noise, x, t0, steps, n_times, draws):
    x, t0 = aligned(x, t0)

    def draw(key):
        time_key, noise_key, end_key = jax.random.split(key, 3)
        t, weight = cast(times(time_key, process, n_times, low=t0), x.dtype)
        eps = noise(noise_key, (n_times, *x.shape), x.dtype)
        losses = jax.vmap(lambda t, eps: _diffusion(process, steps, t0, denoise, x, t, eps))(t, eps)
        _, end = truncate(end_key, process, denoise, x, decoder, t0, noise=noise)
        return jnp.mean(weight * losses), end["reconstruction"]

    losses, reconstructions = jax.lax.map(draw, jax.random.split(key, draws))
    return bound({"prior": -_prior(process, x), "reconstruction": reconstructions, "diffusion": -losses})


def vdm_loss(process: Gaussian, decoder: Decoder | None = None, *, steps: int | None = None) -> Loss:
    """One draw of the bound's negative at time t, in nats: loss(key, denoise, x0, t, *, noise=jax.random.normal).

    The mean of a law's weight x loss over t in (0, 1] is -`vdm`, or L alone without a decoder. It trains the denoiser
    and, through `process`, the schedule. Raises InputError for steps below 1, and with a decoder for a process without
    noise at t = 0, where the decoder reads."""
    _positive(steps=steps)
    first = jnp.zeros(()) if decoder is None else start(process, 0.0)
    return Partial(_loss, process, decoder, first, _count(steps))


def _loss(
    process: Gaussian,
    decoder: Decoder | None,
    first: Scalar,
    steps: Scalar | None,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    noise: Noise = jax.random.normal,
) -> Scalar:
    x0, t = aligned(x0, t)
    first = first.astype(t.dtype)
    diffusion = _diffusion(process, steps, first, denoise, x0, t, noise(key, x0.shape, x0.dtype))
    if decoder is None:
        return diffusion
    z = process.perturb(jax.random.fold_in(key, 1), x0, first, noise=noise)
    return diffusion + _prior(process, x0) - decoder(process, denoise, x0, z, first)


Losses = Callable[[PyTree, gammas.Learned], Float[Array, " batch"]]
"""(params, gamma) -> one loss an example, each at its own draw of time and noise."""


def vdm_objective(loss: Losses, diffusion: Losses, params: PyTree, gamma: gammas.Learned) -> Float[Array, " batch"]:
    """Losses whose values are `loss` and whose gradient trains each group of parameters by its own criterion: the
    denoiser's `params` and gamma's ends by the mean of `loss`, gamma's interior by the mean of diffusion^2.

    As the mean of `diffusion` does not depend on the interior, its mean square is its variance, but for a constant
    (Kingma et al. 2021). That holds in infinitely many steps, and where `params` make a denoiser that knows the noise
    level, not t. Each of the two functions is asked once, with its own half of the gradient stopped."""
    value = loss(params, gammas.ends_only(gamma))
    square = diffusion(jax.lax.stop_gradient(params), gammas.interior_only(gamma)) ** 2
    return value + (square - jax.lax.stop_gradient(square))  # the difference is 0, its gradient is not


def _diffusion(process, steps, t0, denoise, x, t, eps):
    """-(slope of SNR) |x - D(z_t, t)|^2 / 2: the tangent at t, or the secant of the step of the T that holds t, at its
    end."""
    if steps is None:
        slope = jax.jvp(lambda t: _snr(process, t), (t,), (jnp.ones_like(t),))[1]
    else:
        steps = steps.astype(t.dtype)
        width = (1 - t0) / steps
        i = jnp.clip(jnp.ceil((t - t0) / width), 1, steps)
        t, s = t0 + width * i, t0 + width * (i - 1)
        slope = _snr(process, s) * jnp.expm1(process.log_snr(t) - process.log_snr(s)) / width
    alpha, sigma = process.scales(t)
    miss = x - believe(denoise, alpha * x + sigma * eps, t)
    return -0.5 * slope * jnp.sum(miss**2)


def _snr(process, t):
    # Not exp(log_snr), whose slope is 0 x infinity where alpha is 0.
    alpha, sigma = process.scales(t)
    return (alpha / sigma) ** 2


def _prior(process, x):
    """KL(q(z_1 | x) | N(0, sigma(1)^2))."""
    return 0.5 * _snr(process, jnp.ones((), x.dtype)) * jnp.sum(x**2)


def _first(process, t0):
    """`t0`, checked; by default 0 where the process keeps noise there, else the start of every likelihood."""
    if t0 is not None:
        return start(process, t0)
    noisy = known(_noisy, process)
    if concrete(noisy):
        return jnp.zeros(()) if noisy else start(process)
    return jnp.where(noisy, 0.0, start(process))


def _noisy(process):
    return process.scales(0.0)[1] > 0


def _count(steps):
    """T as an array, not as a static number: another T compiles nothing."""
    return None if steps is None else as_array(steps)


def _positive(**counts):
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"vdm got {name}={count}, expected at least 1")
