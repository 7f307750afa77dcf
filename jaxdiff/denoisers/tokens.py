"""A network on tokens becomes a denoiser: its logits, and the belief that they are meant as (`jaxdiff.beliefs`)."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxdiff import beliefs
from jaxdiff.errors import InputError
from jaxdiff.numerics import as_array, partial
from jaxdiff.types import PRNGKey, Scalar, Time

MEANINGS = (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score)


def total_noise(process: Any, t: Time) -> Scalar:
    """-log alpha, the sigma that published token networks see, held at most at -log 1e-3: it is infinite at alpha =
    0."""
    return -jnp.log(jnp.maximum(process.alpha(t), 1e-3))


class TokenDenoiser(eqx.Module):
    """The denoiser of one example. `time_conditioned` says whether the network sees the time: where it does not, a
    sampler may keep a belief for as long as no token changes."""

    network: "TokenNetwork"
    params: PyTree[Any]
    cond: PyTree[Any]
    key: PRNGKey | None

    @property
    def time_conditioned(self) -> bool:
        """Whether the belief depends on t besides the tokens."""
        return self.network.level is not None

    def __call__(self, x, t):
        z, network = x, self.network
        cond = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], self.cond)
        options = {} if self.key is None else {"key": self.key}
        logits = network.apply(self.params, z[None], network.heard(self.params, t), cond, **options)
        if not eqx.is_inexact_array(logits) or logits.shape[:-1] != (1, *z.shape):
            got = f"{logits.dtype} of shape {logits.shape}" if eqx.is_array(logits) else f"a {type(logits).__name__}"
            raise InputError(
                f"the network returned {got} for tokens of shape {(1, *z.shape)}, expected logits for each token"
            )
        return network.meant(logits[0])


class TokenNetwork(eqx.Module):
    """A network with all that makes it a denoiser but its parameters: `network(params, cond)` is a Denoiser."""

    apply: Callable[..., Any]
    process: Any
    meaning: type = eqx.field(static=True)
    level: Callable[..., Any] | None

    def __call__(self, params: PyTree[Any], cond: PyTree[Any] = None, *, key: PRNGKey | None = None) -> TokenDenoiser:
        """The denoiser of one example, given parameters and that example's own conditioning; `key` turns dropout on."""
        return TokenDenoiser(self, params, cond, key)

    def heard(self, params: PyTree[Any], t: Time) -> Array:
        """What the network hears of the time, (1,), in the dtype of its parameters; 0 where it hears nothing."""
        level = jnp.zeros(()) if self.level is None else self.level(self.process, as_array(t))
        floats = [leaf.dtype for leaf in jax.tree.leaves(params) if eqx.is_inexact_array(leaf)]
        return (level.astype(jnp.result_type(*floats)) if floats else level)[None]

    def meant(self, logits: Array) -> beliefs.Belief:
        """One example's logits as the belief that they are, in float32 at least."""
        return self.meaning(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))

    def bind(self, params: PyTree[Any]) -> Callable[..., TokenDenoiser]:
        """cond -> Denoiser, the form that `samplers.draw` maps over examples."""
        return partial(_bind, self, params)


def from_token_network(
    apply: Callable[..., Any],
    process: Any,
    meaning: type = beliefs.LeaveOneOut,
    *,
    level: Callable[..., Any] | None = None,
) -> TokenNetwork:
    """Join `apply(params, tokens, level, cond, *, key=None) -> logits`, written for a batch, to the one-example world.

    `meaning` is the belief that the logits are: any loss trains either kind. `level(process, t)` is what the network
    sees of the time, such as `total_noise`; None where it does not see it (the absorbing belief does not depend on
    t). Logits that come in less than float32 are cast to it. Raises InputError for an unknown meaning."""
    if meaning not in MEANINGS:
        known = ", ".join(m.__name__ for m in MEANINGS)
        raise InputError(f"a token network got meaning={meaning!r}, expected one of jaxdiff.beliefs: {known}")
    return TokenNetwork(partial(apply), process, meaning, None if level is None else partial(level))


def _bind(network, params, cond):
    return network(params, cond)
