"""A pytree of processes is a process: residue types x positions x orientations in one state.

Each leaf has its own key, folded from its *name*, so adding a leaf leaves the others' noise alone."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from jaxdiff.errors import InputError
from jaxdiff.numerics import keys_of
from jaxdiff.processes.process import is_process
from jaxdiff.types import Belief, Noise, PRNGKey, State


class Product(eqx.Module):
    """Independent noising of the leaves of a state that is a tree: `Product({"pos": vp(), "feat": cosine()})`.

    A time is one for all leaves, or a tree prefix of times. Raises InputError for trees of another form."""

    parts: PyTree[Any]

    def __check_init__(self):
        wrong = [leaf for leaf in jax.tree.leaves(self.parts, is_leaf=is_process) if not is_process(leaf)]
        if wrong or not jax.tree.leaves(self.parts, is_leaf=is_process):
            raise InputError(f"Product got {wrong or 'an empty tree'}, expected a tree whose leaves are processes")

    def like(self, shape_like: Any) -> PyTree[Any]:
        """Each leaf's shape and dtype, of a tree of the same form."""
        return self._each(lambda p, like: p.like(like), shape_like)

    def prior(self, key: PRNGKey, like: Any, t: PyTree[Any] = 1.0, *, noise: Noise = jax.random.normal) -> State:
        """Where sampling starts at `t`: each leaf from its own process, all with the injected `noise`."""
        return self._each(lambda p, k, x, u: p.prior(k, x, u, noise=noise), self._keys(key), like, self.times(t))

    def perturb(self, key: PRNGKey, x0: State, t: PyTree[Any], *, noise: Noise = jax.random.normal) -> State:
        """x_t leaf by leaf, all with the injected `noise`."""
        return self._each(lambda p, k, x, u: p.perturb(k, x, u, noise=noise), self._keys(key), x0, self.times(t))

    def bridge(
        self, key: PRNGKey, x: State, x0: State, t: PyTree[Any], s: PyTree[Any], *, noise: Noise = jax.random.normal
    ) -> State:
        """x_s ~ p(x_s | x_t = x, x0) leaf by leaf, all with the injected `noise`."""
        return self._each(
            lambda p, k, x, x0, t, s: p.bridge(k, x, x0, t, s, noise=noise),
            self._keys(key), x, x0, self.times(t), self.times(s),
        )  # fmt: skip

    def believed(self, belief: Any, x: State) -> Belief:
        """`belief`, a tree of the product's form with each leaf about its own part of the state; refused when one is
        not."""
        return self._each(lambda p, belief, x: p.believed(belief, x), belief, x)

    def times(self, t: PyTree[Any]) -> PyTree[Any]:
        """`t`, or a tree prefix of times, as one time a leaf."""
        form = self._form()
        return jax.tree.broadcast(t, jax.tree.unflatten(form, [0.0] * form.num_leaves))

    def _form(self):
        return jax.tree.structure(self.parts, is_leaf=is_process)

    def _keys(self, key):
        return keys_of(key, self.parts, is_process)

    def _each(self, act: Callable[..., Any], *trees: Any) -> Any:
        """act(process, leaf, ...) at every leaf of the product."""
        form = self._form()
        try:
            columns = [form.flatten_up_to(tree) for tree in (self.parts, *trees)]
        except ValueError as error:
            named = jax.tree_util.tree_leaves_with_path(self.parts, is_leaf=is_process)
            names = ", ".join(jax.tree_util.keystr(path) for path, _ in named)
            raise InputError(f"a product got a tree of another form, expected one leaf for each of {names}") from error
        return form.unflatten([act(*row) for row in zip(*columns, strict=True)])
