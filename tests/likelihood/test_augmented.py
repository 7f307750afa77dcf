"""The likelihood of a linear SDE's states by its probability flow, and of the data alone by the bound over the rest of
the state, against the exact laws of Gaussian data."""

import coupled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff import oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.likelihood.augmented import augmented
from jaxdiff.likelihood.flow import Solve, flow_log_prob

MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
X = np.array([0.3, -0.6])
LAW = coupled.LAWS["critical"]


def joint(t):
    """Mean and covariance of (x, v) at `t`, from the moment equations."""
    (m,), (S,) = LAW.moments(np.array([t]))
    return np.kron(m, MEAN), np.kron(np.outer(m, m), COV) + np.kron(S, np.eye(2)), m, S


@pytest.mark.usefixtures("x64")
def test_the_flow_likelihood_of_a_state_is_the_exact_one(key):
    process = processes.cld()
    oracle, t0 = oracles.linear(process, MEAN, COV), 1e-3
    u = jnp.array([X, [0.02, 0.1]])
    found = flow_log_prob(
        key,
        process,
        oracle.denoise,
        u,
        t0=t0,
        solve=Solve(rtol=1e-9, atol=1e-9),
        prior=lambda u: oracle.log_prob(u, 1.0),
    )
    mean, cov, _, _ = joint(t0)
    exact = stats.multivariate_normal(mean, cov).logpdf(np.asarray(u).reshape(-1))
    np.testing.assert_allclose(found.log_prob, exact, rtol=0, atol=1e-6)
    # The default prior is the kernel's own law at t = 1, from which these data differ by what the motion remembers.
    latent = found.latent
    assert 1e-7 < abs(process.log_prior(latent) - oracle.log_prob(latent, 1.0)) < 1e-2


def test_the_bound_is_the_data_log_density_less_the_divergence_of_the_velocity(key, x64):
    """On Gaussian data p(v | x) is Gaussian: the mean of the bound and its shortfall KL(q(v) | p(v | x)) are closed."""
    process, t0, n = processes.cld(), 0.1, 4000
    x = np.array([1.5, -1.8])
    oracle = oracles.linear(process, MEAN, COV)
    found = jax.jit(lambda x: augmented(key, process, lambda u: oracle.log_prob(u, t0), x, t0, draws=n))(jnp.asarray(x))
    mean, cov, m, S = joint(t0)
    log_p = stats.multivariate_normal(mean[:2], cov[:2, :2]).logpdf(x)
    gain = np.linalg.solve(cov[:2, :2], cov[:2, 2:]).T
    centre, given = mean[2:] + gain @ (x - mean[:2]), cov[2:, 2:] - gain @ cov[:2, 2:]
    off, wide = m[1] * x - centre, S[1, 1] * np.eye(2)
    ratio = np.linalg.solve(given, wide)
    divergence = 0.5 * (np.trace(ratio) - 2 + off @ np.linalg.solve(given, off) - np.linalg.slogdet(ratio)[1])
    assert abs(found.value - (log_p - divergence)) < 5 * found.stderr
    assert divergence > 20 * found.stderr  # so that the shortfall is seen, not lost in the noise
    assert found.value < log_p
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * wide)[1]
    assert abs(found.terms["rest"] - entropy) < 5 * found.stderrs["rest"]
    np.testing.assert_allclose(found.terms["state"] + found.terms["rest"], found.value, rtol=1e-12)


def test_mistakes(key):
    x = jnp.zeros(2)
    one = processes.linear([[-1.0]], [[1.0]])
    with pytest.raises(InputError, match="got 1 copies of the data and draws=16, expected a process of several"):
        augmented(key, one, jnp.sum, x, 0.1)
    with pytest.raises(InputError, match="draws=0"):
        augmented(key, processes.cld(), jnp.sum, x, 0.1, draws=0)
    with pytest.raises(InputError, match="known at t0, so it has no density; give a later t0"):
        augmented(key, processes.cld(velocity=0.0), jnp.sum, x, 0.0)
    assert jnp.isfinite(augmented(key, processes.cld(), jnp.sum, x, 0.0).value)
