"""What a denoiser of tokens says of the clean data, in three tongues, and every translation between them.

- `Posterior`: p(x0^l | z_t), what cross-entropy against x0 is least at.
- `LeaveOneOut`: p(x0^l | z_t without its l-th token), what the bound of a process is least at when its reverse step is
  the plug-in posterior q(z_s | z_t, x0) with a belief in x0's place (UDLM, D3PM).
- `Score`: log p_t(z with y at l) - log p_t(z), what score entropy is least at (SEDD).

With L_j = q(z_t^l = z^l | x0^l = j) and q_t the marginal of the process: Posterior_j is proportional to LeaveOneOut_j
L_j, and Score_y = log q_t(y) - log q_t(z) with x0 ~ LeaveOneOut. On a masked token of the absorbing process L is flat
and the first two are one, which is why nobody had to tell them apart there; under uniform noise, one in the other's
place costs .93 nats on a toy of two tokens. So a belief carries its meaning in its type, and whatever takes one
translates it: any loss trains any belief to its own meaning, and any sampler draws from it rightly.

Each is an array of logits of one example, tokens last. Where the absorbing process shows a token, the posterior is
certain, and the leave-one-out belief cannot be had from it: nothing asks for that, and the logits are handed on."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdiff.processes.categorical import Categorical, LogProbs, Tokens, log_likelihood, normalized
from jaxdiff.processes.meanings import Belief, LeaveOneOut, Posterior, Score
from jaxdiff.types import Denoiser, Time

__all__ = ["LeaveOneOut", "Posterior", "Score", "believe", "leave_one_out", "posterior", "score"]


def believe(process: Categorical, denoise: Denoiser, z: Tokens, t: Time) -> Belief:
    """denoise(z, t), refused when it is not a belief about z on the process's tokens."""
    return process.believed(denoise(z, t), z)


def leave_one_out(process: Categorical, belief: Any, z: Tokens, t: Time) -> LogProbs:
    """log p(x0^l | z_t without its l-th token), (..., vocab), of any belief."""
    process.believed(belief, z)
    if isinstance(belief, LeaveOneOut):
        return jax.nn.log_softmax(belief.logits, -1)
    if isinstance(belief, Score):
        return process.unmixed(jax.nn.log_softmax(belief.log_ratios, -1), t)
    seen = log_likelihood(process, z, t).astype(belief.logits.dtype)
    logs = jax.nn.log_softmax(belief.logits, -1)
    return jax.nn.log_softmax(logs - jnp.where(jnp.isneginf(seen), jnp.zeros_like(seen), seen), -1)


def posterior(process: Categorical, belief: Any, z: Tokens, t: Time) -> LogProbs:
    """log p(x0^l | z_t), (..., vocab), of any belief.

    What cannot have become z is left out, whatever the belief says of it: a token that the absorbing process shows is
    certain."""
    seen = log_likelihood(process, z, t)
    if isinstance(belief, Posterior):
        process.believed(belief, z)
        logs, seen = jax.nn.log_softmax(belief.logits, -1), jnp.where(jnp.isneginf(seen), -jnp.inf, 0)
    else:
        logs = leave_one_out(process, belief, z, t)
    return normalized(logs + seen.astype(logs.dtype), logs)


def score(process: Categorical, belief: Any, z: Tokens, t: Time) -> LogProbs:
    """log p_t(z with y at l) - log p_t(z), (..., states), of any belief."""
    if isinstance(belief, Score):
        process.believed(belief, z)
        logs = belief.log_ratios
    else:
        logs = process.log_marginal(leave_one_out(process, belief, z, t), t)
    return logs - jnp.take_along_axis(logs, z[..., None], -1)
