"""The trace of a Jacobian: exact by pushing every axis forward, unbiased by probes, with the variance that theory says.

The Jacobians are neither symmetric nor diagonal, except where that is the point: on a diagonal one signs are exact, so
it would prove nothing of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.errors import InputError
from jaxdiff.numerics import divergence

pytestmark = pytest.mark.claim("Hutchinson's mean, and both variance formulas, on a Jacobian without symmetry")


J = np.random.default_rng(7).normal(size=(6, 6)) + np.triu(np.full((6, 6), 1.5)) - np.tril(np.full((6, 6), 1.5), -1)
SYMMETRIC = (J + J.T) / 2
VARIANCE = {
    "rademacher": 2 * (np.sum(SYMMETRIC**2) - np.sum(np.diag(J) ** 2)),
    "normal": 2 * np.sum(SYMMETRIC**2),
}


def linear(x):
    return jnp.asarray(J, x.dtype) @ x


def curved(x):
    """A field of a (2, 3) image, each part of which depends on every other."""
    mixed = (jnp.asarray(J, x.dtype) @ x.reshape(-1)).reshape(x.shape)
    return jnp.sin(mixed) * x[::-1] + jnp.cumsum(x, 1) ** 2


def trace(f, x):
    return jnp.trace(jax.jacobian(f)(x).reshape(x.size, x.size))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk", [1, 4, 6, 64])
def test_the_exact_trace_in_chunks_of_any_size(key, chunk):
    x = jax.random.normal(key, (2, 3), jnp.float64)
    y, found = jax.jit(lambda x: divergence.exact(curved, x, chunk=chunk))(x)
    np.testing.assert_array_equal(y, curved(x))
    np.testing.assert_allclose(found, trace(curved, x), rtol=1e-12)


@pytest.mark.parametrize("law", ["rademacher", "normal"])
def test_probes_have_the_mean_and_the_variance_of_theory(key, law):
    n = 200_000
    y, found = divergence.hutchinson(linear, jnp.ones(6), getattr(divergence, law)(key, (6,), jnp.float32, n))
    np.testing.assert_allclose(y, J.sum(1), rtol=1e-5, atol=1e-5)
    found = np.asarray(found, float)
    variance = found.var(ddof=1)
    assert abs(found.mean() - np.trace(J)) < 5 * np.sqrt(variance / n)
    error = np.sqrt((np.mean((found - found.mean()) ** 4) - variance**2) / n)
    assert abs(variance - VARIANCE[law]) < 5 * error
    # The formulas of the whole Jacobian in its symmetric part's place, and of the other law, are told apart.
    other = VARIANCE["normal" if law == "rademacher" else "rademacher"]
    whole = VARIANCE[law] + 2 * (np.sum(J**2) - np.sum(SYMMETRIC**2))
    assert min(abs(variance - other), abs(variance - whole)) > 20 * error


def test_signs_are_exact_for_a_diagonal_jacobian_and_normal_probes_are_not(key):
    def scaled(x):
        return jnp.arange(1.0, 7.0) * x

    _, signs = divergence.hutchinson(scaled, jnp.ones(6), divergence.rademacher(key, (6,), jnp.float32, 8))
    np.testing.assert_array_equal(signs, np.full(8, 21, np.float32))
    _, normal = divergence.hutchinson(scaled, jnp.ones(6), divergence.normal(key, (6,), jnp.float32, 8))
    assert np.std(normal) > 1


@pytest.mark.usefixtures("x64")
def test_pushing_a_probe_forward_is_pulling_it_back(key):
    x = jax.random.normal(key, (2, 3), jnp.float64)
    probes = divergence.normal(jax.random.fold_in(key, 1), x.shape, x.dtype, 4)
    _, forward = divergence.hutchinson(curved, x, probes)
    pull = jax.vjp(curved, x)[1]
    backward = [jnp.vdot(pull(v)[0], v) for v in probes]
    np.testing.assert_allclose(forward, backward, rtol=1e-12)
    assert np.ptp(forward) > 1  # four different numbers


@pytest.mark.parametrize(
    "estimate",
    [lambda f, x, key: divergence.exact(f, x), lambda f, x, key: divergence.exact(f, x, chunk=4),
     lambda f, x, key: divergence.hutchinson(f, x, divergence.rademacher(key, x.shape, x.dtype, 3))],
    ids=["exact", "in chunks", "hutchinson"],
)  # fmt: skip
def test_the_field_is_evaluated_once(key, estimate):
    ran = []

    def counted(x):
        jax.debug.callback(lambda: ran.append(1))
        return curved(x)

    _, found = jax.jit(lambda x: estimate(counted, x, key))(jnp.ones((2, 3)))
    jax.effects_barrier()
    assert len(ran) == 1
    assert found.dtype == jnp.float32


def test_mistakes(key):
    with pytest.raises(InputError, match=r"probes have shape \(3, 5\), expected \(number of probes, \*\(6,\)\)"):
        divergence.hutchinson(linear, jnp.ones(6), jnp.ones((3, 5)))
    for law in (divergence.rademacher, divergence.normal):
        with pytest.raises(InputError, match="probes=0, expected at least 1"):
            law(key, (6,), jnp.float32, 0)
    with pytest.raises(InputError, match="chunk=0, expected at least 1"):
        divergence.exact(linear, jnp.ones(6), chunk=0)
