"""Noise on tokens that keeps each one with probability alpha(t), and else hides it or replaces it:

q(z_t | x0) = alpha x0 + mask [MASK] + spread uniform, with alpha + mask + spread = 1.

`absorbing` has mask = 1 - alpha (Austin et al. 2021; Sahoo et al. 2024), `uniform` spread = 1 - alpha (Schiff et al.
2024), `hybrid` a fixed share of both, `gidd` a changing one (von Ruette et al. 2025). Between s < t a token is kept
with alpha_t / alpha_s, and what else the marginals hold has come anew, so one class has the exact transitions,
posteriors and rates of all of them.

Tokens are whole numbers 0 .. vocab - 1, and the mask, where there is one, is `vocab` itself: `states` is one more. A
belief is over the `vocab` data tokens, so nothing can believe in a mask. All of it is elementwise over the shape of z,
with one axis of tokens behind, in log space; probabilities that are impossible by structure are -inf."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff import alphas
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, cast, concrete, known, require
from jaxdiff.numerics.picks import pick
from jaxdiff.processes.meanings import Vocabulary, about_tokens
from jaxdiff.processes.process import Believed, Bridged, Process, as_struct
from jaxdiff.types import Belief, Noise, PRNGKey, Scalar, State, Time

Tokens = Int[Array, "..."]
LogProbs = Float[Array, "... _"]


@runtime_checkable
class Transitions(Protocol):
    """How tokens move. `log_ahead(z, t, s)`: log q(z_t = z | z_s = y) for every state y; of x0 = y where s is None.
    `log_inflow(z, t)`: the log-rate from every state y into z, -inf at y = z."""

    def log_ahead(self, z: Tokens, t: Time, s: Time | None) -> LogProbs: ...
    def log_inflow(self, z: Tokens, t: Time) -> LogProbs: ...


@runtime_checkable
class Marginals(Protocol):
    """What tokens become. `log_marginal(log_p, t)`: log q(z_t) when x0 ~ p. `unmixed(log_q, t)`: the log p of which
    log q is that. `log_limit()`: the noise that is left at t = 1."""

    def log_marginal(self, log_p: LogProbs, t: Time) -> LogProbs: ...
    def unmixed(self, log_q: LogProbs, t: Time) -> LogProbs: ...
    def log_limit(self) -> LogProbs: ...


@runtime_checkable
class Categorical(Process, Bridged, Believed, Vocabulary, Transitions, Marginals, Protocol):
    """A Markov process on tokens: all of these, and nothing of its own."""


def log_likelihood(process: Categorical, z: Tokens, t: Time) -> LogProbs:
    """log q(z_t = z | x0 = y) for every data token y, (..., vocab)."""
    return process.log_ahead(z, t, None)[..., : process.vocab]


def log_posterior(process: Categorical, log_p: LogProbs, z: Tokens, t: Time, s: Time) -> LogProbs:
    """log p(z_s | z_t = z) when x0 ~ p before z is seen: q(z | z_s) q(z_s), normalised over the states.

    With one-hot p it is q(z_s | z_t, x0) (Austin et al. 2021, eq. 3). With p the leave-one-out belief p(x0^l | z_t
    without l) it is the exact p(z_s^l | z_t). Where z is impossible under p, z stays."""
    ahead, marginal = process.log_ahead(z, t, s), process.log_marginal(log_p, s)
    joint = ahead.astype(marginal.dtype) + marginal
    return normalized(joint, one_hot_logs(z, process.states, joint.dtype))


def one_hot_logs(z: Tokens, n: int, dtype: Any) -> LogProbs:
    """0 at z and -inf elsewhere."""
    return jnp.where(jnp.arange(n, dtype=z.dtype) == z[..., None], jnp.zeros((), dtype), jnp.full((), -jnp.inf, dtype))


def normalized(logs: LogProbs, otherwise: LogProbs) -> LogProbs:
    """log-softmax over the last axis, and `otherwise` where every entry is -inf."""
    nothing = jnp.all(jnp.isneginf(logs), -1, keepdims=True)
    return jnp.where(nothing, otherwise, jax.nn.log_softmax(jnp.where(nothing, jnp.zeros_like(logs), logs), -1))


def check_tokens(process: Vocabulary, x0: Any, name: str = "x0") -> Tokens:
    """`x0` as whole numbers in 0 .. vocab - 1. Raises InputError for other dtypes and tokens outside the vocabulary."""
    if not jnp.issubdtype(jnp.result_type(x0), jnp.integer):
        raise InputError(
            f"{name} holds {jnp.result_type(x0)}, expected whole numbers from 0 to {process.vocab - 1}: tokens are ids"
        )
    x0 = jnp.asarray(x0, jnp.int32)
    inside = known(lambda x: ((x >= 0) & (x < process.vocab)).all(), x0)
    ids = np.asarray(x0) if concrete(x0) else np.zeros(0, int)
    got = next(iter(ids[(ids < 0) | (ids >= process.vocab)]), "one")
    message = (
        f"{name} has a token outside the vocabulary of {process.vocab}: {got}, expected ids from 0 to "
        f"{process.vocab - 1} (the mask is no data)"
    )
    return require(x0, inside, message)


LEFT = 1e-5
"""The most of a token that rounding of a first time near 1 may leave."""


def ids_like(shape_like: Any) -> jax.ShapeDtypeStruct:
    """int32 of the shape of `shape_like`, whatever it says of the dtype."""
    return jax.ShapeDtypeStruct(as_struct(shape_like).shape, jnp.int32)


def nothing_left(left_at: Callable[..., Any], t: Time) -> None:
    """Raises InputError for a known `t` at which more is left of the data than at t = 1, where `prior` is the law;
    `left_at(t)` is a share of a token."""
    if not concrete(t) or np.all(np.asarray(t) >= 1):
        return
    left = known(lambda at, t: at(as_array(t)) - at(as_array(1.0)), left_at, t)
    if concrete(left) and np.max(np.asarray(left)) > LEFT:
        raise InputError(
            f"tokens got the first time t = {t}, where {np.max(np.asarray(left)):.3g} of the data are left, expected "
            "t = 1: noise alone has no law there; start from data noised to it (perturb, or draw(..., x0=data))"
        )


class Share(eqx.Module):
    """alpha of a schedule; of the rest, a fixed `share` is spread over the data tokens and the other masked."""

    alpha: alphas.Alpha
    share: Array = eqx.field(converter=as_array)

    def masses(self, t):
        alpha, rest = self.alpha(t), self.alpha.rest(t)
        return alpha, (1 - self.share) * rest, self.share * rest

    def kept(self, t, s):
        (a, b), (a_s, b_s) = ((self.alpha(u), self.alpha.rest(u)) for u in (t, s))
        lost = jnp.where(a > 0.5, b - b_s, a_s - a) / a_s  # the difference of the smaller two
        return a / a_s, (1 - self.share) * lost, self.share * lost

    def rates(self, t):
        rate = alphas.fall(self.alpha, t) / _above_0(self.alpha(t))
        return (1 - self.share) * rate, self.share * rate


class Bump(eqx.Module):
    """GIDD: alpha = (1 - t) / C, mask = t / C, spread = c / C, with c = B (t (1 - t))^(power / 2), C = 1 + c and B such
    that spread(1/2) = `peak`."""

    peak: Array = eqx.field(converter=as_array)
    power: Array = eqx.field(converter=as_array)

    def _c(self, t):
        return self.peak / (1 - self.peak) * (4 * t * (1 - t)) ** (self.power / 2)

    def masses(self, t):
        c = self._c(t)
        return (1 - t) / (1 + c), t / (1 + c), c / (1 + c)

    def kept(self, t, s):
        (a, m, u), (a_s, m_s, u_s) = self.masses(t), self.masses(s)
        keep = a / a_s
        return keep, jnp.clip(m - keep * m_s, min=0), jnp.clip(u - keep * u_s, min=0)

    def rates(self, t):
        # b' + b (-alpha' / alpha) of the mask is 1 / ((1 - t) C), of the spread (c' + c / (1 - t)) / C.
        c, slope = jax.jvp(self._c, (t,), (jnp.ones_like(t),))
        left = _above_0(1 - t)
        return 1 / (left * (1 + c)), (slope + c / left) / (1 + c)


class Mixing(eqx.Module):
    """q(z_t | x0) = alpha x0 + mask [MASK] + spread uniform over the data tokens."""

    vocab: int = eqx.field(static=True)
    masked: bool = eqx.field(static=True)
    spread: bool = eqx.field(static=True)
    noise: Share | Bump

    def __check_init__(self):
        if self.vocab < 2:
            raise InputError(f"a process on tokens got vocab={self.vocab}, expected at least 2 data tokens")

    @property
    def states(self) -> int:
        """The number of states: the data tokens, and the mask where there is one."""
        return self.vocab + self.masked

    @property
    def mask(self) -> int | None:
        """The id of the mask, or None."""
        return self.vocab if self.masked else None

    def _at(self, *times):
        times = tuple(as_array(t) for t in times)
        return cast(self.noise, times[0].dtype), *times

    def alpha(self, t: Time) -> Scalar:
        """The probability that a token is still kept."""
        noise, t = self._at(t)
        return noise.masses(t)[0]

    def masses(self, t: Time) -> tuple[Scalar, Scalar, Scalar]:
        """(alpha, mask, spread) of q(z_t | x0)."""
        noise, t = self._at(t)
        return noise.masses(t)

    def kept(self, t: Time, s: Time) -> tuple[Scalar, Scalar, Scalar]:
        """(alpha, mask, spread) of q(z_t | z_s), s < t."""
        noise, t, s = self._at(t, s)
        return noise.kept(t, s.astype(t.dtype))

    def believed(self, belief: Any, x: State) -> Belief:
        """`belief`, refused when it is no Posterior, LeaveOneOut or Score of the tokens x."""
        return about_tokens(self, belief, x)

    def like(self, shape_like: Any) -> jax.ShapeDtypeStruct:
        """int32 of the shape of `shape_like`."""
        return ids_like(shape_like)

    def prior(self, key: PRNGKey, like: Any, t: Time = 1.0, *, noise: Noise = jax.random.normal) -> State:
        """Tokens that are all noise, of the law `log_limit`, in the shape of `like`; from the key alone, whatever
        `noise` is.

        Raises InputError for a known t < 1 at which data are left."""
        nothing_left(self.alpha, t)
        return self._noise(key, self.like(like).shape, self._masked_share())

    def perturb(self, key: PRNGKey, x0: State, t: Time, *, noise: Noise = jax.random.normal) -> State:
        """z_t: each token kept with probability alpha, else masked or drawn anew from the data tokens; from the key
        alone, whatever `noise` is."""
        _, mask, spread = self.masses(t)
        which, key = jax.random.split(key)
        # mode="high": float32's uniform numbers are whole multiples of 2^-23, too coarse for a rare event.
        lost = jax.random.bernoulli(which, mask + spread, x0.shape, mode="high")
        return jnp.where(lost, self._noise(key, x0.shape, mask / _above_0(mask + spread)), x0)

    def bridge(self, key: PRNGKey, x: State, x0: State, t: Time, s: Time, *, noise: Noise = jax.random.normal) -> State:
        """z_s ~ q(z_s | z_t = x, x0), s < t; from the key alone, whatever `noise` is.

        The law is proportional to (keep [z_s = z] + came(z)) (alpha_s [z_s = x0] + noise_s(z_s)). Each product of terms
        is one kind of draw (stay, x0, mask, uniform), so that three numbers a token decide, whatever the vocabulary."""
        t = as_array(t)
        s = as_array(s).astype(t.dtype)
        (keep, mask, spread), (alpha_s, mask_s, spread_s) = self.kept(t, s), self.masses(s)
        hidden = (x == self.vocab) & self.masked
        came = jnp.where(hidden, mask, spread / self.vocab)  # x as noise that came between s and t
        old = jnp.where(hidden, mask_s, spread_s / self.vocab)  # x as noise that was there at s
        stay = keep * (old + alpha_s * (x == x0).astype(t.dtype))
        kinds = stay, came * alpha_s * jnp.ones_like(stay), came * mask_s, came * spread_s
        kind = pick(key, jnp.log(jnp.stack(kinds, -1)))
        anew = jax.random.randint(jax.random.fold_in(key, 1), x.shape, 0, self.vocab, x.dtype)
        return jnp.select([kind == 0, kind == 1, kind == 2], [x, x0, jnp.full_like(x, self.vocab)], anew)

    def _masked_share(self):
        _, mask, spread = self.masses(1.0)
        return mask / (mask + spread)

    def _noise(self, key, shape, masked_share):
        if not self.spread:
            return jnp.full(shape, self.vocab, jnp.int32)
        which, key = jax.random.split(key)
        drawn = jax.random.randint(key, shape, 0, self.vocab, jnp.int32)
        if not self.masked:
            return drawn
        hidden = jax.random.bernoulli(which, masked_share, shape, mode="high")
        return jnp.where(hidden, jnp.int32(self.vocab), drawn)

    def log_limit(self) -> LogProbs:
        """log of the noise that is left of a token at t = 1, (states,)."""
        masked = self._masked_share()
        each = jnp.broadcast_to(self._log_each(1 - masked), (self.vocab,))
        return jnp.append(each, _log(masked)) if self.masked else each

    def log_marginal(self, log_p: LogProbs, t: Time) -> LogProbs:
        """log q(z_t), (..., states), when x0 ~ p, (..., vocab): alpha p + the noise."""
        alpha, mask, spread = cast(self.masses(t), log_p.dtype)
        data = _log(alpha) + log_p
        if self.spread:
            data = jnp.logaddexp(data, self._log_each(spread))
        if not self.masked:
            return data
        return jnp.concatenate([data, jnp.broadcast_to(_log(mask), (*data.shape[:-1], 1))], -1)

    def unmixed(self, log_q: LogProbs, t: Time) -> LogProbs:
        """The log p of which log q is the `log_marginal`, (..., vocab): (q - noise) / alpha, what is negative cut; the
        uniform law where all is noise (alpha = 0)."""
        data = log_q[..., : self.vocab]
        if self.spread:
            spread = self.masses(t)[2].astype(data.dtype)
            left = jnp.exp(data) - spread / self.vocab
            data = jnp.where(left > 0, _log(left), -jnp.inf)
        return normalized(data, jnp.full_like(data, -math.log(self.vocab)))

    def log_ahead(self, z: Tokens, t: Time, s: Time | None) -> LogProbs:
        """log q(z_t = z | z_s = y) for every state y, (..., states); of x0 = y, which is before any noise, where s is
        None."""
        keep, mask, spread = self.masses(t) if s is None else self.kept(t, s)
        changed = self._of_kind(z, _log(mask), self._log_each(spread))
        same = self._of_kind(z, _log(keep + mask), _log(keep + spread / self.vocab))
        return jnp.where(jnp.arange(self.states, dtype=z.dtype) == z[..., None], same[..., None], changed[..., None])

    def log_inflow(self, z: Tokens, t: Time) -> LogProbs:
        """The log-rate at which every state y != z turns into z, (..., states), and -inf at y = z."""
        noise, t = self._at(t)
        mask, spread = noise.rates(t)
        rate = self._of_kind(z, _log(mask), self._log_each(spread))
        return jnp.where(jnp.arange(self.states, dtype=z.dtype) == z[..., None], -jnp.inf, rate[..., None])

    def _log_each(self, spread):
        """log of what each data token gets of `spread`; nothing, by structure, where noise is not spread."""
        return _log(spread / self.vocab) if self.spread else jnp.full_like(spread, -jnp.inf)

    def _of_kind(self, z, mask, data):
        """`mask` where z is masked, and `data` elsewhere."""
        return jnp.where(z == self.vocab, mask, data) if self.masked else jnp.broadcast_to(data, z.shape)


def _above_0(x):
    """x, or the smallest number above 0: for a divisor that is 0 at an end alone."""
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


def _log(x):
    """log x, finite at 0 (about -87 in float32), where an end of the schedule is meant and not a structural zero."""
    return jnp.log(_above_0(x))


def absorbing(vocab: int, alpha: alphas.Alpha | None = None) -> Mixing:
    """Each token is masked at some time (Austin et al. 2021; Sahoo et al. 2024; Shi et al. 2024); alpha = 1 - t."""
    return Mixing(vocab, True, False, Share(alpha or alphas.linear(), 0.0))


def uniform(vocab: int, alpha: alphas.Alpha | None = None) -> Mixing:
    """Each token is replaced, now and then, by one drawn uniformly from all (Austin et al. 2021; Schiff et al. 2024);
    alpha = 1 - t."""
    return Mixing(vocab, False, True, Share(alpha or alphas.linear(), 1.0))


def hybrid(vocab: int, share: float = 0.1, alpha: alphas.Alpha | None = None) -> Mixing:
    """Of the noise, a fixed `share` replaces tokens and the rest masks them; alpha = 1 - t.

    Raises InputError unless 0 < share < 1, the ends being `absorbing` and `uniform`."""
    _inside("hybrid noise", "share", share)
    return Mixing(vocab, True, True, Share(alpha or alphas.linear(), share))


def gidd(vocab: int, uniform: float = 0.2, power: float = 1.0) -> Mixing:
    """Masking with uniform noise on the way, a share `uniform` of the sequence at t = 1/2 and none at the ends (von
    Ruette et al. 2025), over the data tokens: spread = c / (1 + c), c proportional to (t (1 - t))^(power / 2).

    Raises InputError unless 0 < uniform < 1 and 0 < power <= 2, beyond which a rate of the process is negative."""
    _inside("gidd", "uniform", uniform)
    if concrete(power) and not 0 < power <= 2:
        raise InputError(f"gidd got power={power}, expected 0 < power <= 2: beyond 2 a rate of the process is negative")
    return Mixing(vocab, True, True, Bump(uniform, power))


def _inside(what, name, share):
    if concrete(share) and not 0 < share < 1:
        raise InputError(f"{what} got {name}={share}, expected a share between 0 and 1")
