"""The bound on log p(x0) of a sequence of tokens, with every constant, and what it says per token.

    log p(x0) >= -KL(q(z_1 | x0) | p_1) - integral from t0 to 1 of the bound's rate dt + E log p(x0 | z_t0)

The first term is 0 where alpha(1) = 0, the last where the process keeps no noise at t0 = 0. With the exact belief the
other two make up log p(x0), for every x0. The p that is bounded is the model's: where tokens are drawn side by side,
from z_t0 or in steps, it is not that of the data even with the exact belief, above it for some x0 and below on average.
The middle term alone, as is often reported, is the bound where both ends are 0."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxdiff import grids
from jaxdiff.errors import InputError
from jaxdiff.likelihood.bits import bits_per_dim
from jaxdiff.likelihood.bound import Bound, bound
from jaxdiff.likelihood.elbo import integral_law
from jaxdiff.likelihood.ends import shown
from jaxdiff.losses import categorical, token_rates
from jaxdiff.numerics import as_array, cast, concrete, known, partial, require, sealed
from jaxdiff.processes.categorical import (
    Categorical,
    Mixing,
    check_tokens,
    log_likelihood,
    one_hot_logs,
)
from jaxdiff.types import Denoiser, PRNGKey, Time


def nelbo(
    key: PRNGKey,
    process: Categorical,
    denoise: Denoiser,
    x0: Array,
    *,
    mask: Array | None = None,
    steps: int | None = None,
    times: grids.Law = grids.lattice_times,
    n_times: int = 16,
    draws: int = 8,
    t0: Time = 0.0,
) -> Bound:
    """The bound on log p(x0) of one example, in nats, of terms `prior`, `diffusion` and `reconstruction`.

    `mask` counts the tokens where it is true; the others are noised and believed in as they are. `steps` is T of the
    discrete-time bound (`losses.d3pm`, of the ancestral sampler in T equal steps), None for infinitely many. `times` is
    a law whose weighted mean is an integral over time; `n_times` of them are asked side by side, `draws` times in turn
    (a lattice asks every step once at n_times = T). A law that needs t0 > 0, such as `grids.log_rest_times`, has the
    rest in the reconstruction.

    Raises InputError for tokens outside the vocabulary, what is no belief about them, counts below 1, a law of noise
    levels, a t0 outside [0, 1), one above 0 with `steps`, and for masks that hide not all data at t = 1: all of the
    prior is hidden, so the bound is infinite."""
    for name, count in {"steps": steps, "n_times": n_times, "draws": draws}.items():
        if count is not None and count < 1:
            raise InputError(f"nelbo got {name}={count}, expected at least 1")
    ok = known(lambda t: (t >= 0) & (t < 1) & ((steps is None) | (t == 0)), t0)
    message = f"nelbo got t0={shown(t0)}, expected a time in [0, 1), and 0 for the bound in steps"
    t0, x0 = require(as_array(t0), ok, message), check_tokens(process, x0)
    message = (
        "the absorbing process keeps some data at t = 1, where its prior has masks alone: the bound is infinite; take "
        "a schedule that ends at alpha(1) = 0, such as alphas.linear(), on which the belief is the same"
    )
    hidden = known(_ends_hidden, process)
    t0, clean = require(t0, hidden, message), known(_clean, process, t0)
    loss = categorical.bound(process) if steps is None else categorical.d3pm(process, steps)
    functions = partial(denoise), loss, partial(integral_law(times))
    found = _nelbo(key, process, *functions, x0, mask, t0, concrete(clean) and bool(clean), n_times, draws)
    return found if concrete(ok, hidden) else sealed(found, ok & hidden)


@eqx.filter_jit
def _nelbo(key, process, denoise, loss, times, x0, mask, t0, clean, n_times, draws):
    def draw(key):
        time_key, *keys = jax.random.split(key, 3)
        loss_keys, end_keys = (jax.random.split(key, n_times) for key in keys)
        t, weight = cast(times(time_key, process, n_times, low=t0), t0.dtype)
        costs = jax.vmap(lambda key, t: loss(key, denoise, x0, t, mask=mask))(loss_keys, t)
        last = categorical.cross_entropy(process)
        ends = 0.0 if clean else jax.vmap(lambda key: last(key, denoise, x0, t0, mask=mask))(end_keys)
        return {"diffusion": -jnp.mean(weight.astype(costs.dtype) * costs), "reconstruction": -jnp.mean(ends)}

    terms = jax.lax.map(draw, jax.random.split(key, draws))
    dtype = terms["diffusion"].dtype
    if clean:
        terms["reconstruction"] = jnp.zeros((), dtype)
    return bound({"prior": -_prior(process, x0, mask).astype(dtype), **terms})


def _prior(process, x0, mask):
    """KL(q(z_1 | x0) | p_1)."""
    t = jnp.ones(())
    log_q, log_p = process.log_marginal(one_hot_logs(x0, process.vocab, t.dtype), t), process.log_limit()
    log_q = jnp.where(log_q <= math.log(jnp.finfo(t.dtype).tiny) + 1, -jnp.inf, log_q)  # 0, as an end of the schedule
    each = jnp.sum(token_rates.divergence(log_q, jnp.broadcast_to(log_p, log_q.shape)), -1)
    return categorical.counted(each, mask)


def _ends_hidden(process):
    """Whether no data are left at t = 1, where the prior can hold none."""
    if isinstance(process, Mixing) and process.masked and not process.spread:
        return process.alpha(1.0) == 0
    return jnp.asarray(True)


def _clean(process, t):
    """Whether z_t is x0 for sure."""
    if isinstance(process, Mixing):
        return process.alpha(t) == 1
    every = jnp.arange(process.vocab)
    return jnp.all(token_rates.taken(log_likelihood(process, every, t), every) == 0)


class TokenBits(NamedTuple):
    """Bits per counted token and the perplexity 2^bits of a data set, each with its standard error over examples.

    `terms` are the means of what log_prob gave, in bits per token; they add up. `tokens` were counted; `each` are the
    nats of every example."""

    bits: float
    stderr: float
    perplexity: float
    perplexity_stderr: float
    terms: dict[str, float]
    tokens: int
    each: Float[np.ndarray, " n"]


def bits_per_token(
    key: PRNGKey,
    log_prob: Callable[..., Any],
    x: Any,
    *,
    mask: Any = None,
    cond: PyTree[Any] = None,
    **options: Any,
) -> TokenBits:
    """The bits per token of the sequences `x` (n, length), whole numbers, under log_prob(key, x, cond, mask), in nats,
    of one example: sum of nats / (sum of tokens ln 2).

    log_prob returns a number or a dict of terms, such as `nelbo(...).terms`. `mask` (n, length) is true where a token
    counts, all by default; log_prob gets its row. The error is that of a ratio of means: long sequences count more.
    `options` are those of `bits_per_dim` (draws, chunk, resume, progress). Raises InputError for a mask of another
    shape or without a counted token, tokens that are no whole numbers, and as `bits_per_dim` does."""
    x = np.asarray(x)
    mask = np.ones(x.shape, bool) if mask is None else np.asarray(mask)
    if not np.issubdtype(x.dtype, np.integer):
        raise InputError(f"bits_per_token got x of {x.dtype}, expected whole numbers: tokens are ids")
    if mask.shape != x.shape or mask.dtype != bool or not mask.any():
        raise InputError(
            f"bits_per_token got a mask of {mask.dtype} and shape {mask.shape} for tokens of shape {x.shape}; expected "
            "booleans of that shape, true where a token counts, for at least one"
        )
    found = bits_per_dim(key, partial(_unpacked, partial(log_prob)), x.astype(np.int32), cond=(cond, mask), **options)
    size, tokens = x[0].size, int(mask.sum())
    nats, counts, n = found.each.mean(1) * size * math.log(2), mask.reshape(len(x), -1).sum(1), len(x)
    rate = float(nats.sum() / tokens)
    spread = math.sqrt(((nats - rate * counts) ** 2).sum() * n / (n - 1)) / tokens if n > 1 else math.nan
    terms = {name: value * x.size / tokens for name, value in found.terms.items()}
    perplexity = math.exp(rate)
    return TokenBits(rate / math.log(2), spread / math.log(2), perplexity, perplexity * spread, terms, tokens, nats)


def _unpacked(log_prob, key, x, packed):
    cond, mask = packed
    return log_prob(key, x, cond, mask)
