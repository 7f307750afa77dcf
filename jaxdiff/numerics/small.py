"""Small matrices (k, k) that act on the first axis of a state, in every float dtype and at full precision on every
device; those of a batch lead with its axes."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def act(matrix: Float[Array, "j k"], x: Float[Array, "k ..."]) -> Float[Array, "j ..."]:
    """matrix x, in x's dtype."""
    return jnp.tensordot(matrix.astype(x.dtype), x, 1, precision="highest")


def outer(vector: Float[Array, " k"], x: Float[Array, "..."]) -> Float[Array, "k ..."]:
    """The copies vector_i x, in x's dtype."""
    return vector.astype(x.dtype).reshape(-1, *(1 for _ in x.shape)) * x


def times(a: Float[Array, "... i j"], b: Float[Array, "... j k"]) -> Float[Array, "... i k"]:
    """The product of two matrices."""
    return jnp.matmul(a, b, precision="highest")


def carry(matrix: Float[Array, "... j k"], cov: Float[Array, "... k k"]) -> Float[Array, "... j j"]:
    """The covariance of matrix x, for x of covariance `cov`."""
    return times(times(matrix, cov), jnp.swapaxes(matrix, -1, -2))


def root(cov: Float[Array, "... k k"]) -> Float[Array, "... k k"]:
    """Lower triangular L with L L' = cov (Cholesky), whose column is 0 where a component is known from those before."""
    columns, rows = [], jnp.arange(cov.shape[-1])
    for j in range(cov.shape[-1]):
        pivot = cov[..., j, j, None]
        there = pivot > 0
        column = jnp.where(there & (rows >= j), cov[..., j] / jnp.sqrt(jnp.where(there, pivot, 1)), 0)
        columns.append(column)
        cov = cov - column[..., :, None] * column[..., None, :]
    return jnp.stack(columns, -1)


def whiten(root: Float[Array, "... k k"], x: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    """root^-1 x."""
    done = []
    for j in range(len(x)):
        rest = x[j] - sum(root[..., j, i] * done[i] for i in range(j))
        done.append(rest / root[..., j, j])
    return jnp.stack(done)


def solve(root: Float[Array, "... k k"], x: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    """cov^-1 x of cov = root root'."""
    white, done = whiten(root, x), {}
    for j in reversed(range(len(x))):
        rest = white[j] - sum(root[..., i, j] * done[i] for i in done)
        done[j] = rest / root[..., j, j]
    return jnp.stack([done[j] for j in range(len(x))])
