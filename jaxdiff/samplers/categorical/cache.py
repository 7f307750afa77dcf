"""Ask the denoiser anew only when a token has changed: exact where the belief does not depend on the time.

Near t = 1 and with many steps, most steps of the absorbing process change nothing. The belief waits in the stepper's
carry. A batch asks as one: where examples are mapped over (`jax.vmap`, `samplers.draw`), a branch of each would be
computed for all of them whatever they do, so the branch is of the whole chunk, and is skipped when nothing in it has
changed. So a cache saves much for small chunks and many steps, and little for large ones."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.tree_util import Partial

from jaxdiff import beliefs
from jaxdiff.errors import InputError
from jaxdiff.processes.categorical import Categorical
from jaxdiff.samplers.stepper import Around, Stepper

__all__ = ["cached"]


def cached(process: Categorical, inner: Stepper, *, meaning: type = beliefs.LeaveOneOut, dtype: Any = None) -> Stepper:
    """`inner`, a stepper of one denoiser call, with the belief kept for as long as no token of the chunk changes: the
    same bits as without.

    `meaning` and `dtype` are those of the denoiser's belief (the dtype of the times by default). Raises InputError for
    a belief of another kind, a stepper that asks at other points than (z, t), and a denoiser that depends on the time,
    or does not say, by `time_conditioned = False`, that it does not."""
    if meaning not in (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score):
        raise InputError(f"cached got meaning={meaning!r}, expected beliefs.LeaveOneOut, Posterior or Score")
    width = process.states if meaning is beliefs.Score else process.vocab
    return _Cached(inner, width, meaning, None if dtype is None else jnp.dtype(dtype))


class _Cached(Around):
    width: int = eqx.field(static=True)
    meaning: type = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def init(self, x, t):
        nothing = self.meaning(jnp.zeros((*x.shape, self.width), self.dtype or t.dtype))
        return jnp.full_like(x, -1), nothing, self.inner.init(x, t)  # of no tokens yet

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        asked, belief, own = carry
        # Compared here, not after the step: a corrector around it may change tokens too.
        belief = _refreshed(_untimed(denoise), x, t, jnp.any(x != asked), belief)
        moved, own = self.inner.step(key, Partial(_the_one, x, t, belief), own, x, t, s, noise=noise)
        return moved, (x, belief, own)


def _untimed(denoise):
    says = getattr(denoise, "time_conditioned", None)
    if says is None:  # of a plain function, which the loop wraps
        says = getattr(getattr(denoise, "func", None), "time_conditioned", None)
    if says is not False:
        raise InputError(
            "a cache keeps a belief while the time goes on, and this denoiser "
            + ("depends on the time" if says else "does not say that it ignores the time")
            + ": sample without cached, or from a network without a level (time_conditioned = False)"
        )
    return denoise


def _refreshed(denoise, x, t, changed, belief):
    """denoise(x, t) where anything mapped over has changed, else the belief that was."""
    like = jax.eval_shape(denoise, x, t)
    if jax.tree.structure(like) != jax.tree.structure(belief) or _forms(like) != _forms(belief):
        raise InputError(
            f"cached was told of a {_told(belief)}, and the denoiser returns a {_told(like)}: give cached its meaning "
            "and dtype"
        )
    arrays, static = eqx.partition(eqx.filter_closure_convert(denoise, x, t), eqx.is_array)

    def ask(arrays, x, t):
        return eqx.combine(arrays, static)(x, t)

    @custom_vmap
    def refreshed(arrays, x, t, changed, belief):
        return jax.lax.cond(changed, lambda: ask(arrays, x, t), lambda: belief)

    @refreshed.def_vmap
    def _(size, mapped, arrays, x, t, changed, belief):
        *axes, of_belief = (jax.tree.map(lambda leads: 0 if leads else None, tree) for tree in mapped)
        old = jax.vmap(lambda b: b, (of_belief,), axis_size=size)(belief)
        fresh = jax.vmap(ask, tuple(axes[:3]), axis_size=size)
        new = jax.lax.cond(jnp.any(changed), lambda: fresh(arrays, x, t), lambda: old)
        return new, jax.tree.map(lambda _: True, new)

    return refreshed(arrays, x, t, changed, belief)


def _forms(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def _told(belief):
    leaves = jax.tree.leaves(belief)
    return f"{type(belief).__name__} of {', '.join(f'{leaf.dtype}{list(leaf.shape)}' for leaf in leaves)}"


def _the_one(asked, time, belief, x, t):
    if x is not asked or t is not time:
        raise InputError(
            "the stepper in cached asked for a belief away from (z, t), and one is kept: cache a stepper of one call, "
            "such as draw(ancestral(process)), and correct the cached one"
        )
    return belief
