"""Stepper -> Stepper: more noise before a step, correction or projection after it, another process's denoiser, and many
steppers side by side."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxdiff.denoisers import recast
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, keys_of, partial
from jaxdiff.processes.gaussian import Gaussian
from jaxdiff.samplers.stepper import Around, Stepper, believe, memoryless, positive
from jaxdiff.types import Scalar


def churn(
    process: Gaussian,
    inner: Stepper,
    amount: float | Scalar,
    *,
    low: float | Scalar = 0.0,
    high: float | Scalar = jnp.inf,
    noise_scale: float | Scalar = 1.0,
) -> Stepper:
    """Climb to the noise level (1 + amount) sigma / alpha, then take the inner step from there (Karras et al. 2022,
    Alg. 2).

    `amount` is the paper's gamma, S_churn / N held below sqrt(2) - 1; it acts while sigma / alpha is in [low, high] =
    [S_min, S_max], and the added noise is scaled by `noise_scale` = S_noise. The climb stops at t = 1, and does
    nothing at alpha = 0. Raises InputError for a multistep inner stepper, whose history the new noise would make
    wrong."""
    return _Churn(inner, process, tuple(as_array(v) for v in (amount, low, high, noise_scale)))


class _Churn(Around):
    process: Gaussian
    numbers: tuple[Scalar, ...]

    @property
    def stochastic(self):
        return positive(self.numbers[0]) or self.inner.stochastic

    def init(self, x, t):
        why = "whose memory new noise makes wrong; churn a one-step one such as heun"
        return memoryless("churn", self.inner, x, t, why=why)

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        amount, low, high, noise_scale = cast(self.numbers, x.dtype)
        churn_key, step_key = jax.random.split(key)
        alpha, sigma = self.process.scales(t)
        level = sigma / alpha
        climbs = (amount > 0) & (level >= low) & (level <= high) & (alpha > 0)
        up = jnp.where(climbs, jnp.clip(self.process.time_of((1 + amount) * level), t, 1), t)
        alpha_up, sigma_up = self.process.scales(up)
        keep = jnp.where(climbs, alpha_up / alpha, 1)
        fresh = jnp.sqrt(jnp.where(climbs, jnp.clip(sigma_up**2 - (keep * sigma) ** 2, min=0), 0))
        x = keep * x + noise_scale * fresh * noise(churn_key, x.shape, x.dtype)
        return self.inner.step(step_key, denoise, carry, x, up, s, noise=noise)


def langevin(process: Gaussian, inner: Stepper, *, snr: float | Scalar = 0.16, steps: int = 1) -> Stepper:
    """After the inner step, `steps` Langevin corrections at its end: x += e score + sqrt(2 e) z, e = 2 (snr sigma)^2.

    Song et al. (2021) take snr |z| / |score|, averaged over the batch, for snr sigma; its expected value is used here,
    so that a sample does not depend on its batch."""
    if steps < 1:
        raise InputError(f"langevin got steps={steps}, expected at least 1")
    return _Langevin(inner, process, as_array(snr), steps)


class _Langevin(Around):
    process: Gaussian
    snr: Scalar
    steps: int = eqx.field(static=True)

    @property
    def calls(self):
        return self.inner.calls + self.steps

    @property
    def stochastic(self):
        return True

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        snr = cast(self.snr, x.dtype)
        step_key, correct_key = jax.random.split(key)
        x, carry = self.inner.step(step_key, denoise, carry, x, t, s, noise=noise)
        alpha, sigma = self.process.scales(s)

        def correct(x, k):
            pull = alpha * believe(denoise, x, s) - x  # sigma^2 score
            return x + 2 * snr**2 * pull + 2 * snr * sigma * noise(k, x.shape, x.dtype), None

        return jax.lax.scan(correct, x, jax.random.split(correct_key, self.steps))[0], carry


def project(inner: Stepper, onto: Callable[..., Any]) -> Stepper:
    """x <- onto(x, s) after each inner step: a constraint set, a zero mean, a hard mask."""
    return _Project(inner, partial(onto))


class _Project(Around):
    onto: Any

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        x, carry = self.inner.step(key, denoise, carry, x, t, s, noise=noise)
        return self.onto(x, s), carry


def recasting(inner: Stepper, source: Gaussian, process: Gaussian) -> Stepper:
    """`inner`, a stepper of `process`, fed with a denoiser that was made for `source` (`denoisers.recast`)."""
    return _Recasting(inner, source, process)


class _Recasting(Around):
    source: Gaussian
    process: Gaussian

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        return self.inner.step(key, recast(denoise, self.source, self.process), carry, x, t, s, noise=noise)


def product(steppers: PyTree[Any]) -> Stepper:
    """A tree of steppers walks the tree-shaped state of a `processes.Product`, with one joint belief a step.

    Raises InputError for a leaf that asks its denoiser anew (heun, churn): the joint belief at its point was never
    computed."""
    return _Product(steppers)


def _is_stepper(node):
    return isinstance(node, Stepper)


class _Product(Stepper):
    steppers: PyTree[Any]

    @property
    def order(self):
        return min(stepper.order for stepper in self.leaves())

    @property
    def stochastic(self):
        return any(stepper.stochastic for stepper in self.leaves())

    def leaves(self):
        return jax.tree.leaves(self.steppers, is_leaf=_is_stepper)

    def init(self, x, t):
        return jax.tree.map(lambda stepper, leaf: stepper.init(leaf, t), self.steppers, x, is_leaf=_is_stepper)

    def demands(self, ts):
        return sum((stepper.demands(ts) for stepper in self.leaves()), ())

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        beliefs = denoise(x, t)
        keys = keys_of(key, self.steppers, _is_stepper)

        def step(stepper, k, belief, carry, x):
            return stepper.step(k, _given(belief, x, t), carry, x, t, s, noise=noise)

        form = jax.tree.structure(self.steppers, is_leaf=_is_stepper)
        columns = (form.flatten_up_to(tree) for tree in (self.steppers, keys, beliefs, carry, x))
        moved = [step(*row) for row in zip(*columns, strict=True)]
        return form.unflatten([x for x, _ in moved]), form.unflatten([carry for _, carry in moved])


def _given(belief, x, t):
    def denoise(asked_x, asked_t):
        if asked_x is not x or asked_t is not t:
            raise InputError(
                "a leaf of a product stepper asked for a belief away from (x, t), but a step has one joint belief; "
                "use steppers of one denoiser call, such as euler, ddim, ancestral or dpmpp_2m"
            )
        return belief

    return denoise
