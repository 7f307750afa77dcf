"""Exact answers under a linear SDE are exact: against the joint covariance of the data and all the copies, assembled
and solved in NumPy, and against Tweedie's formula; with one copy they are the Gaussian oracles'."""

import coupled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from jaxdiff import oracles, processes, schedules
from jaxdiff.errors import InputError

MEAN = np.array([0.4, -0.7])
COV = np.array([[0.6, 0.35], [0.35, 0.5]])
COVS = np.array([[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.2]], [[0.1, 0.0], [0.0, 0.05]]])
WEIGHTS, MEANS = np.array([0.5, 0.3, 0.2]), np.array([[-1.0, 0.3], [1.2, 0.8], [0.1, -1.5]])
TIMES = np.array([0.02, 0.3, 1.0])

PROCESSES = {
    "critical": processes.cld,
    "chain": lambda: processes.linear(coupled.LAWS["chain"].A, coupled.LAWS["chain"].G, beta=3.0),
}


def condition(mean, cov, m, S, x):
    """E[x0 | X_t = x] and log p(X_t = x), x0 and the copies of it side by side in one Gaussian vector."""
    total, cross = np.kron(np.outer(m, m), cov) + np.kron(S, np.eye(2)), np.kron(m[None], cov)
    centre = np.kron(m, mean)
    flat = x.reshape(-1)
    belief = mean + cross @ np.linalg.solve(total, flat - centre)
    return belief, stats.multivariate_normal(centre, total).logpdf(flat)


@pytest.mark.parametrize("name", PROCESSES)
def test_beliefs_and_densities_are_those_of_joint_conditioning(name, x64):
    process, law = PROCESSES[name](), coupled.LAWS[name]
    parts = {
        "gaussian": (oracles.linear(process, MEAN, COV), [(1.0, MEAN, COV)]),
        "mixture": (
            oracles.linear_mixture(process, WEIGHTS, MEANS, COVS),
            list(zip(WEIGHTS, MEANS, COVS, strict=True)),
        ),
    }
    means, covs = law.moments(TIMES)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(process.copies, 2)))
    for kind, (oracle, components) in parts.items():
        both = jax.jit(lambda o, t: (o.denoise(x, t), o.log_prob(x, t), o.process.score(x, o.denoise(x, t), t)))
        slope = jax.jit(jax.grad(lambda x, o, t: o.log_prob(x, t)))
        for t, m, S in zip(TIMES, means, covs, strict=True):
            found, log, score = both(oracle, t)
            beliefs, logs = zip(
                *(condition(mean, cov, m, S, np.asarray(x)) for _, mean, cov in components), strict=True
            )
            joint = np.log([w for w, *_ in components]) + logs
            np.testing.assert_allclose(log, logsumexp(joint), rtol=1e-7, err_msg=kind)
            belief = np.exp(joint - logsumexp(joint)) @ np.array(beliefs)
            np.testing.assert_allclose(found, belief, rtol=1e-7, atol=1e-9, err_msg=kind)
            exact = slope(x, oracle, t)  # Tweedie: the score is the gradient of the log-density
            np.testing.assert_allclose(score, exact, rtol=1e-6, atol=1e-8 * abs(exact).max(), err_msg=kind)


def test_with_one_copy_they_are_the_gaussian_oracles(x64):
    """Their own two formulas for the belief and the density, VP's in each."""
    one, two = processes.linear([[-0.5]], [[1.0]], beta=schedules.LinearVP().integral), processes.vp()
    x, times = jnp.array([0.3, -0.6]), jnp.array([0.0, 0.01, 0.5, 1.0])

    @jax.jit
    def answers(linear, gaussian):
        return jax.vmap(
            lambda t: (
                (linear.denoise(x[None], t), gaussian.denoise(x, t)),
                (linear.log_prob(x[None], t), gaussian.log_prob(x, t)),
            )
        )(times)

    for pair in (
        (oracles.linear(one, MEAN, COV), oracles.gaussian(two, MEAN, COV)),
        (oracles.linear_mixture(one, WEIGHTS, MEANS, COVS), oracles.mixture(two, WEIGHTS, MEANS, COVS)),
    ):
        for found, expected in answers(*pair):
            np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_at_the_data_the_belief_is_the_data_and_a_known_velocity_tells_nothing(x64):
    x = jnp.array([[0.3, -0.6], [0.05, 0.1]])
    velocity = stats.multivariate_normal(np.zeros(2), 0.01 * np.eye(2)).logpdf(x[1])
    for kind in (lambda p: oracles.linear(p, MEAN, COV), lambda p: oracles.linear_mixture(p, WEIGHTS, MEANS, COVS)):
        data = kind(processes.cld()), kind(processes.cld(velocity=0.0))
        for oracle in data:
            np.testing.assert_allclose(oracle.denoise(x, 0.0), x[0], rtol=1e-5)
        np.testing.assert_allclose(data[0].log_prob(x), data[1].log_prob(x) + velocity, rtol=1e-5)
    points = oracles.linear(processes.cld(), MEAN, 0.0)  # an axis without variance stays at its mean
    np.testing.assert_allclose(points.denoise(x, 0.0), MEAN, rtol=1e-6)


def test_data_have_the_shape_of_the_mean_and_samples_are_the_mixtures(key):
    process = processes.cld()
    image = oracles.linear(process, np.ones((2, 3)), np.full((2, 3), 0.25))
    x = process.perturb(key, jnp.ones((2, 3)), 0.4)
    believe = jax.jit(lambda oracle, x: oracle.denoise(x, 0.4))
    assert believe(image, x).shape == (2, 3)
    full = oracles.linear(process, np.ones(6), 0.25 * np.eye(6))
    np.testing.assert_allclose(believe(full, x.reshape(2, 6)), believe(image, x).reshape(-1), rtol=1e-5)
    one, two = (f(p, WEIGHTS, MEANS, COVS) for f, p in
                ((oracles.linear_mixture, process), (oracles.mixture, processes.vp())))  # fmt: skip
    sample = jax.jit(lambda oracle: oracle.sample(key, 5))
    np.testing.assert_array_equal(sample(one), sample(two))


def test_an_oracle_is_a_pytree_that_compiles_once_and_keeps_the_dtype(x64):
    traces = 0

    @jax.jit
    def believe(oracle, x, t):
        nonlocal traces
        traces += 1
        return jax.vmap(lambda x: oracle.denoise(x, t))(x)

    for dtype in (jnp.float64, jnp.float32, jnp.bfloat16):
        x, traces = jnp.ones((3, 2, 2), dtype), 0
        for mass in (0.25, 0.5):
            oracle = oracles.linear_mixture(processes.cld(mass=mass), WEIGHTS, MEANS, COVS)
            mapped = believe(oracle, x, jnp.asarray(0.5, dtype))
        assert (traces, mapped.dtype) == (1, dtype)
        assert jnp.all(jnp.isfinite(mapped))


def test_mistakes_in_a_law():
    with pytest.raises(InputError, match=r"covariance has shape \(3, 3\) for a mean of shape \(2,\)"):
        oracles.linear(processes.cld(), MEAN, np.eye(3))
    with pytest.raises(InputError, match="sum to 1"):
        oracles.linear_mixture(processes.cld(), [0.5, 0.3, 0.3], MEANS, COVS)
