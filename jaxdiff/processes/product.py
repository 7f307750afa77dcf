"""A pytree of processes is a process: residue types x positions x orientations in one state.

Each leaf has its own key, folded from its *name*, so adding a leaf leaves the others' noise alone."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.numerics import keys_of
from jaxdiff.types import PRNGKey, State, Time


@runtime_checkable
class Process(Protocol):
    """The forward noising of one state space."""

    def prior(self, key: PRNGKey, shape_like: Any) -> State: ...
    def perturb(self, key: PRNGKey, x0: State, t: Time) -> State: ...


def is_process(node: Any) -> bool:
    return isinstance(node, Process)


class Product(eqx.Module):
    """Independent noising of the leaves of a state that is a tree: `Product({"pos": vp(), "feat": cosine()})`."""

    parts: PyTree[Any]

    def __check_init__(self):
        wrong = [leaf for leaf in jax.tree.leaves(self.parts, is_leaf=is_process) if not is_process(leaf)]
        if wrong or not jax.tree.leaves(self.parts, is_leaf=is_process):
            raise InputError(f"Product got {wrong or 'an empty tree'}, expected a tree whose leaves are processes")

    def prior(self, key: PRNGKey, shape_like: Any) -> State:
        """x at t = 1: each leaf from its own process; `shape_like` is a tree of the same form."""
        keys = keys_of(key, self.parts, is_process)
        return jax.tree.map(lambda p, k, like: p.prior(k, like), self.parts, keys, shape_like, is_leaf=is_process)

    def perturb(self, key: PRNGKey, x0: State, t: PyTree[Any]) -> State:
        """x_t leaf by leaf; `t` is one time or a tree prefix of times."""
        keys = keys_of(key, self.parts, is_process)
        return jax.tree.map(
            lambda p, k, x, u: p.perturb(k, x, u), self.parts, keys, x0, self.times(t), is_leaf=is_process
        )

    def times(self, t: PyTree[Any]) -> PyTree[Any]:
        """`t`, or a tree prefix of times, as one time a leaf."""
        form = jax.tree.structure(self.parts, is_leaf=is_process)
        return jax.tree.broadcast(t, jax.tree.unflatten(form, [0.0] * form.num_leaves))
