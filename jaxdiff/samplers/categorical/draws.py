"""From the law of a step to the step: draws of tokens that are right in float32, however rare a token is.

A uniform number of float32 is a whole multiple of 2^-23, so a Gumbel number made of one stops at 16, and a token that
should win a step with probability 3e-8 wins far fewer: in walks of many steps, samples come out too likely and too much
alike (Zheng et al. 2025). Here a token first stays or leaves, by a uniform number of 46 bits, and then goes to one of
the others, by Gumbel numbers of as many: what a step seldom does and what a token seldom is are not multiplied."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jaxdiff.beliefs import believe
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.processes.categorical import Categorical, LogProbs, Mixing, Tokens, log_posterior, one_hot_logs
from jaxdiff.samplers.categorical.kernels import Kernel, alone, reverse
from jaxdiff.samplers.stepper import Stepper, one_step
from jaxdiff.types import PRNGKey, Scalar, Time

__all__ = ["draw", "greedy", "move", "pick", "x0_then_posterior"]


def draw(kernel: Kernel) -> Stepper:
    """The stepper that draws z_s from the law of a kernel."""
    return one_step(_draw, partial(kernel), stochastic=True)


def _draw(kernel, key, denoise, x, t, s, noise):
    return move(key, _law(kernel, denoise, x, t, s), x)


def greedy(kernel: Kernel) -> Stepper:
    """The likeliest z_s of each token in the place of a draw: for a last step, which it makes less diverse, and never
    the law of the data."""
    return one_step(_greedy, partial(kernel))


def _greedy(kernel, key, denoise, x, t, s, noise):
    return jnp.argmax(_law(kernel, denoise, x, t, s), -1).astype(x.dtype)


def _law(kernel, denoise, z, t, s):
    if not jnp.issubdtype(z.dtype, jnp.integer):
        raise InputError(f"a sampler of tokens got a state of {z.dtype}, expected whole numbers: start it at the prior")
    logs = kernel(denoise, z, t, s)
    if logs.ndim != z.ndim + 1 or logs.shape[:-1] != z.shape:
        raise InputError(
            f"a kernel returned {logs.shape} for tokens of shape {z.shape}, expected log-probabilities of each one's "
            "states, (..., states)"
        )
    return logs


def move(key: PRNGKey, logs: LogProbs, z: Tokens) -> Tokens:
    """Tokens of the law `logs`, (..., states), which need not be normalised: z stays, or else one of the others."""
    where, which = jax.random.split(key)
    here = jnp.isfinite(one_hot_logs(z, logs.shape[-1], logs.dtype))
    others = jnp.where(here, -jnp.inf, logs)
    stay, leave = jnp.take_along_axis(logs, z[..., None], -1)[..., 0], logsumexp(others, -1)
    return jnp.where(happens(where, leave, stay), pick(which, others), z).astype(z.dtype)


def happens(key: PRNGKey, log_yes: Scalar, log_no: Scalar) -> Any:
    """True with probability yes / (yes + no); the rarer of the two to its own relative precision."""
    rarer = jax.nn.sigmoid(-jnp.abs(log_yes - log_no))
    event = jax.random.bernoulli(key, jnp.where(log_yes == log_no, 0.5, rarer), mode="high")
    return jnp.where(log_yes <= log_no, event, ~event)


def pick(key: PRNGKey, logs: LogProbs) -> Tokens:
    """Tokens of the law `logs`, which need not be normalised, down to probabilities of 1e-13."""
    return jax.random.categorical(key, logs, mode="high").astype(jnp.int32)


def x0_then_posterior(process: Categorical) -> Stepper:
    """Draw x0 from the posterior p(x0 | z_t), then z_s from q(z_s | z_t, x0): the law of `draw(ancestral(process))`.

    For a mixture of masks and uniform noise the second draw is of four kinds (stay, x0, mask, uniform), of which three
    numbers a token decide, whatever the vocabulary."""
    return one_step(_x0_then_posterior, process, stochastic=True)


def _x0_then_posterior(process, key, denoise, x, t, s, noise):
    guess_key, bridge_key = jax.random.split(key)
    logs = reverse(process, alone(process, believe(process, denoise, x, t), x, t), x, t, 0.0)[..., : process.vocab]
    x0 = pick(guess_key, logs).astype(x.dtype)
    if isinstance(process, Mixing):
        drawn = _bridge(process, bridge_key, x0, x, t, s, logs.dtype)
    else:
        given = one_hot_logs(x0, process.vocab, logs.dtype)
        drawn = move(bridge_key, log_posterior(process, given, x, t, s), x)
    return jnp.where(as_array(s) > 0, drawn, x0)


def _bridge(process: Mixing, key: PRNGKey, x0: Tokens, z: Tokens, t: Time, s: Time, dtype: Any) -> Tokens:
    """z_s of q(z_s | z_t = z, x0), proportional to (keep [z_s = z] + came(z)) (alpha_s [z_s = x0] + noise_s(z_s)), each
    product of which is one kind of draw."""
    keep, mask, spread = (number.astype(dtype) for number in process.kept(t, s))
    alpha_s, mask_s, spread_s = (number.astype(dtype) for number in process.masses(s))
    hidden = (z == process.vocab) & process.masked
    came = jnp.where(hidden, mask, spread / process.vocab)  # z as noise that came between s and t
    old = jnp.where(hidden, mask_s, spread_s / process.vocab)  # z as noise that was there at s
    stay = keep * (old + alpha_s * (z == x0).astype(dtype))
    kinds = stay, came * alpha_s * jnp.ones_like(stay), came * mask_s, came * spread_s
    kind = pick(key, jnp.log(jnp.stack(kinds, -1)))
    anew = jax.random.randint(jax.random.fold_in(key, 1), z.shape, 0, process.vocab, z.dtype)
    return jnp.select([kind == 0, kind == 1, kind == 2], [z, x0, jnp.full_like(z, process.vocab)], anew)
