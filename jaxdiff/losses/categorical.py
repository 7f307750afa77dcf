"""Losses of beliefs about tokens. Each takes any belief and translates it, but has its optimum where it has it:

    bound, score_entropy, d3pm      the exact leave-one-out belief, p(x0^l | z_t without its l-th token)
    cross_entropy, flow_matching    the exact posterior, p(x0^l | z_t)

A network whose logits are declared as one and trained by a loss of the other learns what it is declared as: the
translation is part of the loss. With the exact belief `bound` is not only tight on average: its integral over time is
-log p(x0) for every x0. The mean of `bound` and `d3pm` over t ~ U(0, 1) is what bounds -log p(x0), in nats, but for the
ends (`likelihood.nelbo` counts those too)."""

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxdiff.beliefs import Score, believe
from jaxdiff.errors import InputError
from jaxdiff.losses import token_rates
from jaxdiff.losses.matching import Loss
from jaxdiff.losses.weights import Weight, unit
from jaxdiff.numerics import as_array, concrete, partial, sealed
from jaxdiff.processes.categorical import Categorical, check_tokens
from jaxdiff.types import Denoiser, PRNGKey, Scalar, Time


def bound(process: Categorical) -> Loss:
    """The continuous-time bound of any process: MDLM's on `absorbing` (Sahoo et al. 2024; Shi et al. 2024), UDLM's on
    `uniform` (Schiff et al. 2024, eq. 18), GIDD's on `gidd`, of a chain Campbell et al.'s (2022).

    As loss(key, denoise, x0, t, *, mask=None), summed over tokens: `key` draws z_t, `mask` (broadcast to x0) counts the
    tokens where it is true; all are noised. Never negative, and finite at both ends of time. Raises InputError for
    tokens outside the vocabulary (traced ones cost NaN), and for what is no belief about them."""
    return Partial(_noised, partial(token_rates.bound), process)


def score_entropy(process: Categorical) -> Loss:
    """`bound` of the ratios p_t(y) / p_t(z) as they are said (Lou et al. 2024, SEDD): a `Score` need not be one of any
    data, and pays here for what it is not; `bound` makes it one first. On other beliefs the two are equal."""
    return Partial(_noised, partial(token_rates.score_entropy), process)


def cross_entropy(process: Categorical, weight: Weight = unit) -> Loss:
    """weight(process, t) times -log p(x0 | z_t), on the tokens that z leaves in doubt: of the absorbing process those
    that are masked.

    With `weights.unmasking` it is `bound` on the absorbing process, and on no other. Called like `bound`."""
    return Partial(_noised, partial(_weighed, partial(weight)), process)


def d3pm(process: Categorical, steps: int) -> Loss:
    """T KL(q(z_s | z_t, x0) | p(z_s | z_t)) of that one of T = `steps` equal steps in which t falls (Austin et al.
    2021), the last, to s = 0, as any other: it is -log p(x0 | z_(1/T)).

    Its mean over t ~ U(0, 1) is the sum over steps; for many steps it is `bound`, from above with the exact belief.
    Called like `bound`. Raises InputError for steps < 1."""
    if steps < 1:
        raise InputError(f"d3pm got steps={steps}, expected at least 1")
    return Partial(_stepped, process, as_array(steps))


def flow_matching(process: Categorical) -> Loss:
    """The generalised Kullback-Leibler bound of discrete flow matching (Gat et al. 2024; Shaul et al. 2024), from the
    source that the process ends in; called like `bound`.

    From masks it is `bound`. From uniform noise it is the bound of another chain, whose velocity -alpha' / (1 - alpha)
    (p(. | z_t) - z_t) never leaves x0 again: it is not tight, even with the exact belief. Raises InputError for a
    process whose noise is not one law at all times."""
    if not token_rates.has_one_source(process):
        raise InputError(
            f"flow matching got a {type(process).__name__} whose noise changes with time or with the token; expected "
            "absorbing, uniform or hybrid noise, which mix the data with one source"
        )
    return Partial(_noised, partial(token_rates.flow), process)


def _weighed(weight, process, belief, x0, z, t):
    return weight(process, t) * token_rates.surprise(process, belief, x0, z, t)


def _noised(
    form: Any,
    process: Categorical,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    mask: Array | None = None,
) -> Scalar:
    x0, t = check_tokens(process, x0), as_array(t)
    z = process.perturb(key, x0, t)
    belief = believe(process, denoise, z, t)
    return _told(process, x0, counted(form(process, belief, x0, z, t.astype(_dtype(belief))), mask))


def _stepped(
    process: Categorical,
    steps: Scalar,
    key: PRNGKey,
    denoise: Denoiser,
    x0: Array,
    t: Time,
    *,
    mask: Array | None = None,
) -> Scalar:
    x0, t = check_tokens(process, x0), as_array(t)
    steps = steps.astype(t.dtype)
    i = jnp.clip(jnp.ceil(t * steps), 1, steps)
    t, s = i / steps, (i - 1) / steps
    z = process.perturb(key, x0, t)
    belief = believe(process, denoise, z, t)
    t, s, steps = (value.astype(_dtype(belief)) for value in (t, s, steps))
    return _told(process, x0, counted(steps * token_rates.step(process, belief, x0, z, t, s), mask))


def _told(process, x0, cost):
    """The cost, NaN where traced tokens are none of the vocabulary: known ones were refused."""
    return cost if concrete(x0) else sealed(cost, (x0 >= 0) & (x0 < process.vocab))


def counted(costs: Array, mask: Array | None) -> Scalar:
    """The sum over the tokens where the mask is true. Raises InputError for a mask that is no part of the example."""
    if mask is None:
        return jnp.sum(costs)
    shape = jnp.shape(mask)
    fits = len(shape) <= costs.ndim and all(m in (1, n) for m, n in zip(shape[::-1], costs.shape[::-1], strict=False))
    if not fits or not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
        raise InputError(
            f"a mask of {jnp.result_type(mask)} and shape {shape} was given for tokens of shape "
            f"{costs.shape}; expected booleans that broadcast to them, true where a token counts"
        )
    return jnp.sum(jnp.where(mask, costs, 0))


def _dtype(belief):
    return (belief.log_ratios if isinstance(belief, Score) else belief.logits).dtype
