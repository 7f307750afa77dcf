"""From the law of a step to the step: draws of tokens that are right in float32, however rare a token is.

Drawn with Gumbel numbers of float32, rare tokens win too seldom: in walks of many steps, samples come out too likely
and too much alike (Zheng et al. 2025). `numerics.picks` draws them with more bits, and first whether a token moves."""

import jax
import jax.numpy as jnp

from jaxdiff.beliefs import believe
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.numerics.picks import move, pick
from jaxdiff.processes.categorical import Categorical
from jaxdiff.samplers.categorical.kernels import Kernel, alone, reverse
from jaxdiff.samplers.stepper import Stepper, one_step

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


def x0_then_posterior(process: Categorical) -> Stepper:
    """Draw x0 from the posterior p(x0 | z_t), then z_s from q(z_s | z_t, x0), the process's own bridge: the law of
    `draw(ancestral(process))`."""
    return one_step(_x0_then_posterior, process, stochastic=True)


def _x0_then_posterior(process, key, denoise, x, t, s, noise):
    guess_key, bridge_key = jax.random.split(key)
    logs = reverse(process, alone(process, believe(process, denoise, x, t), x, t), x, t, 0.0)[..., : process.vocab]
    x0 = pick(guess_key, logs).astype(x.dtype)
    return jnp.where(as_array(s) > 0, process.bridge(bridge_key, x, x0, t, s), x0)
