"""The ancestral forms of one-step methods: below the aim, then back up to it by fresh noise."""

import jax
import jax.numpy as jnp

from jaxdiff.numerics import as_array, cast
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.brownian import increment
from jaxdiff.samplers.stepper import Around, Stepper, memoryless, positive
from jaxdiff.types import Scalar


def ancestral_form(process: Gaussian, inner: Stepper, eta: float | Scalar = 1.0) -> Stepper:
    """`inner` steps past s to the time where sigma / alpha is what eta leaves of it, and noise brings x back to s.

    The noise is eta times the standard deviation of p(x_s | x_t, x0) (k-diffusion's ancestral step): of `euler` this
    makes `ddim(eta)`, of `dpm_2s` and `dpmpp_2s` its dpm_2_ancestral and dpmpp_2s_ancestral. Where the process ends
    with noise it cannot go below, so less is added. Raises InputError for a multistep inner stepper, whose history the
    noise would make wrong."""
    return _Ancestral(inner, process, as_array(eta))


class _Ancestral(Around):
    process: Gaussian
    eta: Scalar

    @property
    def stochastic(self):
        return positive(self.eta) or self.inner.stochastic

    def init(self, x, t):
        why = "whose memory new noise makes wrong; use one such as dpm_2s"
        return memoryless("ancestral_form", self.inner, x, t, why=why)

    def demands(self, ts):
        # The inner stepper walks from each time to one below the next: look at the first such interval and the last.
        ends = (ts[0], ts[1]), (ts[-2], ts[-1])
        return sum((self.inner.demands(jnp.stack([t, self.below(t, s)])) for t, s in ends), ())

    def below(self, t, s):
        """The time that the inner step aims at."""
        (alpha, sigma), (alpha_s, sigma_s) = self.process.scales(t), self.process.scales(s)
        keep = alpha * sigma_s / (alpha_s * sigma)
        left = jnp.sqrt(jnp.clip(1 - cast(self.eta, t.dtype) ** 2 * (1 - keep**2), min=0))
        return jnp.clip(self.process.time_of(left * sigma_s / alpha_s), 0, s)

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        inner_key, noise_key = jax.random.split(key)
        below = self.below(t, s)
        x, carry = self.inner.step(inner_key, denoise, carry, x, t, below, noise=noise)
        (alpha, sigma), (alpha_s, sigma_s) = self.process.scales(below), self.process.scales(s)
        up = alpha_s / alpha
        fresh = jnp.sqrt(jnp.clip(sigma_s**2 - (up * sigma) ** 2, min=0))
        return up * x + fresh * increment(noise, noise_key, x, t, s), carry
