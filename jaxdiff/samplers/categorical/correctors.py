"""Steps at one noise level that leave its marginal as it is, and mend what the steps between levels got wrong.

The leave-one-out belief is the Gibbs conditional: given the others, a token of z_t has the law alpha p(x0^l | others)
+ the noise, exactly. So to draw a token anew from it leaves p_t as it is, where a step of all positions at once is
wrong in what they have to do with one another."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxdiff.beliefs import believe
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array
from jaxdiff.processes.categorical import Categorical, LogProbs, Mixing, one_hot_logs
from jaxdiff.samplers.categorical.draws import pick
from jaxdiff.samplers.categorical.kernels import Kernel, alone
from jaxdiff.samplers.stepper import Around, Stepper

__all__ = ["conditional", "gibbs"]


def gibbs(process: Categorical, inner: Stepper, *, moves: int = 1, block: int = 1) -> Stepper:
    """After the inner step, `moves` times at its end: draw `block` tokens, chosen anew at random, from what the others
    say of them (`conditional`).

    Each move asks the denoiser once. It leaves p_s exactly as it is for block = 1; tokens of one block don't see each
    other. The last step, to s = 0, is not corrected: no noise is left to move by. Raises InputError for moves or block
    below 1."""
    if moves < 1 or block < 1:
        raise InputError(f"gibbs got moves={moves} and block={block}, expected at least 1 of each")
    return _Gibbs(inner, process, moves, block)


class _Gibbs(Around):
    process: Categorical
    moves: int = eqx.field(static=True)
    block: int = eqx.field(static=True)

    @property
    def calls(self):
        return self.inner.calls + self.moves

    @property
    def stochastic(self):
        return True

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        step_key, key = jax.random.split(key)
        process = self.process
        x, carry = self.inner.step(step_key, denoise, carry, x, t, s, noise=noise)
        if self.block > x.size:
            raise InputError(f"gibbs got block={self.block} for {x.size} tokens, expected at most as many")

        def correct(z, key):
            where, which = jax.random.split(key)
            places = jax.random.choice(where, z.size, (self.block,), replace=False)
            logs = conditional(process)(denoise, z, s, s).reshape(z.size, process.states)[places]
            return z.reshape(-1).at[places].set(pick(which, logs).astype(z.dtype)).reshape(z.shape), None

        keys = jax.random.split(key, self.moves)
        return jax.lax.cond(as_array(s) > 0, lambda: jax.lax.scan(correct, x, keys)[0], lambda: x), carry


def conditional(process: Categorical) -> Kernel:
    """log p_t(z^l | the other tokens of z_t), (..., states), as a kernel, which does not look at s.

    Of what the absorbing process shows a belief says nothing that was ever learned; there it is the token itself,
    masked with probability 1 - alpha, which leaves p_t as it is as well."""
    return Partial(_conditional, process)


def _conditional(process: Any, denoise: Any, z: Any, t: Any, s: Any) -> LogProbs:
    log_p = alone(process, believe(process, denoise, z, t), z, t)
    if isinstance(process, Mixing) and not process.spread:
        shown = one_hot_logs(z, process.vocab, log_p.dtype)
        log_p = jnp.where((z == process.vocab)[..., None], log_p, shown)
    return process.log_marginal(log_p, t)
