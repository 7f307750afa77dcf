"""What can be believed of the clean tokens, as types: a belief carries its meaning in its type, and bare logits are
refused. What the three have to do with each other, and how each becomes the others, is in `jaxdiff.beliefs`."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import Array, Float, Int

from jaxdiff.errors import InputError


class Posterior(eqx.Module):
    """logits of p(x0^l | z_t), (..., vocab)."""

    logits: Float[Array, "... vocab"]


class LeaveOneOut(eqx.Module):
    """logits of p(x0^l | z_t without its l-th token), (..., vocab)."""

    logits: Float[Array, "... vocab"]


class Score(eqx.Module):
    """log p_t(z with y at l) - log p_t(z), (..., states), up to a constant a token: what is said of z itself is
    subtracted."""

    log_ratios: Float[Array, "... states"]


Belief = Posterior | LeaveOneOut | Score


@runtime_checkable
class Vocabulary(Protocol):
    """Ids 0 .. vocab - 1 are data; `states` counts the mask too, where there is one."""

    @property
    def vocab(self) -> int: ...
    @property
    def states(self) -> int: ...


def about_tokens(process: Vocabulary, belief: Any, z: Int[Array, "..."]) -> Belief:
    """`belief`, refused when it is no belief about the tokens `z` of one example of the process."""
    if not isinstance(belief, Belief):
        raise InputError(
            f"the denoiser returned a {type(belief).__name__}, expected a belief about tokens: wrap its logits in "
            "beliefs.Posterior (a network trained by cross-entropy), beliefs.LeaveOneOut or beliefs.Score"
        )
    array, n = (belief.log_ratios, process.states) if isinstance(belief, Score) else (belief.logits, process.vocab)
    if array.shape != (*z.shape, n):
        raise InputError(
            f"the denoiser returned a {type(belief).__name__} of shape {array.shape} for tokens of shape {z.shape}; "
            f"expected {(*z.shape, n)}: one example, {'states' if isinstance(belief, Score) else 'data tokens'} last"
        )
    return belief
