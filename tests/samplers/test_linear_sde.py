"""Samplers on linear SDEs with matrix coefficients: each step is the affine map that the papers write, in NumPy; that
map's recursion converges to the data law; drawn samples have its moments; and the probability flow is the exact one."""

from itertools import pairwise

import coupled
import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.samplers.stepper import believe

pytestmark = pytest.mark.claim("critically damped Langevin and any linear SDE: kernels, scores, flow and likelihood")


MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
EYE = np.eye(2)

PROCESSES = {
    "critical": processes.cld,
    "three": lambda: processes.linear(
        coupled.LAWS["three"].A,
        coupled.LAWS["three"].G,
        beta=lambda t: 0.1 * t + 1.95 * t**2,
        start=coupled.LAWS["three"].start,
    ),
}


class Exact:
    """Gaussian data under a law of `coupled`, flattened copy by copy: x of length 2k."""

    def __init__(self, law, times):
        self.law, self.k = law, len(law.A)
        self.A, self.G = np.kron(law.A, EYE), np.kron(law.G, EYE)
        self.kernels = {t: (m, S) for t, m, S in zip(times, *law.moments(np.array(times)), strict=True)}

    def marginal(self, t):
        m, S = self.kernels[t]
        return np.kron(m, MEAN), np.kron(np.outer(m, m), COV) + np.kron(S, EYE)

    def score(self, t):
        """(matrix, vector) of grad log p_t(x) = matrix x + vector."""
        mean, cov = self.marginal(t)
        precision = np.linalg.inv(cov)
        return -precision, precision @ mean

    def belief(self, t):
        m, _ = self.kernels[t]
        mean, cov = self.marginal(t)
        gain = np.kron(m[None], COV) @ np.linalg.inv(cov)
        return gain, MEAN - gain @ mean

    def reverse_sde(self, eta):
        """Euler-Maruyama on dx = beta (A x - (1 + eta^2) / 2 G G' score) dt + eta sqrt(beta) G dW."""

        def step(t, s):
            h, pull = self.law.beta(t) * (t - s), (1 + eta**2) / 2 * self.G @ self.G
            matrix, vector = self.score(t)
            return (np.eye(2 * self.k) - h * (self.A - pull @ matrix), h * pull @ vector, h * eta**2 * self.G @ self.G)

        return step

    def ancestral(self, t, s):
        """x_s ~ p(x_s | x_t, x0 = D), by joint conditioning: (matrix, vector, covariance of the noise)."""
        (m, S), (m_s, S_s) = self.kernels[t], self.kernels[s]
        cross = S_s @ self.law.transition(s, t).T
        gain = np.linalg.solve(S.T, cross.T).T
        matrix, vector = self.belief(t)
        pull = np.kron((m_s - gain @ m)[:, None], EYE)
        return np.kron(gain, EYE) + pull @ matrix, pull @ vector, np.kron(S_s - gain @ cross.T, EYE)

    def walk(self, step, times, mean, cov):
        for t, s in pairwise(times):
            A, b, noise = step(t, s)
            mean, cov = A @ mean + b, A @ cov @ A.T + noise
        return mean, cov

    def flow(self, x, t, s):
        """dx/dt = beta (A - G G' score / 2), by quadrature of the moments beside it."""
        k, start = self.k, self.kernels[t]

        def slope(u, y):
            m, S, x = y[:k], y[k : k + k * k].reshape(k, k), y[k + k * k :]
            cov = np.kron(np.outer(m, m), COV) + np.kron(S, EYE)
            score = -np.linalg.solve(cov, x - np.kron(m, MEAN))
            dS = self.law.A @ S + S @ self.law.A.T + self.law.G @ self.law.G.T
            dx = self.A @ x - 0.5 * self.G @ self.G @ score
            return self.law.beta(u) * np.concatenate([self.law.A @ m, dS.reshape(-1), dx])

        y0 = np.concatenate([start[0], start[1].reshape(-1), x])
        return solve_ivp(slope, (t, s), y0, method="DOP853", rtol=1e-11, atol=1e-13).y[-2 * k :, -1]


STEPPERS = {
    "reverse_sde": (samplers.reverse_sde, lambda exact: exact.reverse_sde(1.0)),
    "reverse_sde_half": (lambda p: samplers.reverse_sde(p, 0.5), lambda exact: exact.reverse_sde(0.5)),
    "reverse_sde_0": (lambda p: samplers.reverse_sde(p, 0.0), lambda exact: exact.reverse_sde(0.0)),
    "ancestral": (samplers.ancestral, lambda exact: exact.ancestral),
}
PAIRS = np.array([[1.0, 0.8], [0.8, 0.71], [0.6, 0.2], [0.1, 0.03], [0.02, 0.0]])


@jax.jit
def own_maps(oracle, stepper, pairs):
    """(A, b, C) of each step: its value at 0, its slopes in x and in the noise it is given."""
    shape = (oracle.process.copies, 2)

    def one(pair):
        t, s = pair

        def move(x, z):
            return stepper.step(jax.random.key(0), oracle.denoise, (), x, t, s, noise=lambda *_: z)[0]

        zero = jnp.zeros(shape)
        A, C = jax.jacfwd(move, (0, 1))(zero, zero)
        n = zero.size
        return A.reshape(n, n), move(zero, zero).reshape(n), C.reshape(n, n)

    return jax.vmap(one)(pairs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", PROCESSES)
def test_each_step_is_the_published_affine_map(process):
    p = PROCESSES[process]()
    exact = Exact(coupled.LAWS[process], sorted(set(PAIRS.reshape(-1))))
    oracle = oracles.linear(p, MEAN, COV)
    for name, (make, published) in STEPPERS.items():
        own = own_maps(oracle, make(p), jnp.asarray(PAIRS))
        for A, b, C, (t, s) in zip(*map(np.asarray, own), PAIRS, strict=True):
            for got, expected in zip((A, b, C @ C.T), published(exact)(t, s), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8, err_msg=f"{name} {t} {s}")


@pytest.mark.parametrize("name", STEPPERS)
def test_the_recursion_converges_to_the_data_law_at_first_order(name):
    """From the exact law at t = 1 to t = .02 on a uniform grid, halved."""
    errors = []
    for n in (160, 320):
        times = np.linspace(1.0, 0.02, n + 1)
        exact = Exact(coupled.LAWS["critical"], times[::-1])
        found = exact.walk(STEPPERS[name][1](exact), times, *exact.marginal(1.0))
        errors.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(found, exact.marginal(0.02), strict=True))))
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.25, errors


def make_denoise(oracle):
    return lambda cond: oracle.denoise


@pytest.mark.parametrize(("name", "process"), [("reverse_sde_half", "three"), ("ancestral", "critical")])
def test_samples_have_the_moments_of_the_recursion(name, process, key):
    """Drawn by `samplers.draw` from the process's own prior, down to the data, where velocities are states too."""
    p, n = PROCESSES[process](), 50_000
    make, published = STEPPERS[name]
    ts = np.array([1.0, 0.8, 0.62, 0.46, 0.32, 0.2, 0.11, 0.05, 0.0], np.float32)
    times = ts.astype(float)
    oracle = oracles.linear(p, MEAN, COV)
    x = samplers.draw(key, n, make_denoise(oracle), samplers.Sampler(p, make(p), jnp.asarray(ts)), (2,), chunk=n)
    assert x.shape == (n, p.copies, 2)
    exact = Exact(coupled.LAWS[process], sorted(times))
    start = np.zeros(2 * p.copies), np.kron(exact.kernels[1.0][1], EYE)
    mean, cov = exact.walk(published(exact), times, *start)
    x, var = x.reshape(n, -1).astype(float), np.diag(cov)
    assert np.all(abs(x.mean(0) - mean) < 5 * np.sqrt(var / n))
    assert np.all(abs(np.cov(x.T) - cov) < 5 * np.sqrt((np.outer(var, var) + cov**2) / n))


def test_ancestral_steps_keep_the_mean_on_any_grid_down_to_the_data():
    """p(x_s | x_t, x0 = D) is affine in D, whose mean over x_t is the data's."""
    times = np.array([1.0, 0.4, 0.1, 0.0])
    exact = Exact(coupled.LAWS["critical"], times[::-1])
    mean, _ = exact.walk(exact.ancestral, times, *exact.marginal(1.0))
    np.testing.assert_allclose(mean, [*MEAN, 0, 0], atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", PROCESSES)
def test_the_probability_flow_is_exact_both_ways(process):
    p = PROCESSES[process]()
    oracle = oracles.linear(p, MEAN, COV)
    exact = Exact(coupled.LAWS[process], [1e-3, 1.0])
    x1 = np.random.default_rng(5).normal(size=(p.copies, 2)) * 0.7

    @jax.jit
    def solve(x, t, s):
        found = samplers.flow(p, oracle.denoise, x, t, s, rtol=1e-9, atol=1e-9)
        return found.x, found.result == diffrax.RESULTS.successful

    down, ok = solve(x1, 1.0, 1e-3)
    assert ok
    np.testing.assert_allclose(down.reshape(-1), exact.flow(x1.reshape(-1), 1.0, 1e-3), rtol=0, atol=1e-6)
    up, ok = solve(down, 1e-3, 1.0)
    assert ok
    np.testing.assert_allclose(up, x1, rtol=0, atol=1e-6)


def test_the_flow_stops_short_of_where_a_copy_is_known():
    p = processes.cld()
    with pytest.raises(InputError, match=r"the score is infinite there; stop short of t = 0, at 1e-3 say"):
        samplers.flow(p, oracles.linear(p, MEAN, COV).denoise, jnp.ones((2, 2)))


def test_a_sampler_starts_renoises_and_ends_in_the_datas_shape(key):
    p = processes.cld()
    oracle = oracles.linear(p, MEAN, COV)
    sampler = samplers.Sampler(p, samplers.ancestral(p), jnp.array([0.6, 0.3, 0.1]), denoise_last=True)
    np.testing.assert_array_equal(sampler.start(key, (2,)), p.prior(key, (2,), 0.6))
    np.testing.assert_array_equal(sampler.renoise(key, jnp.ones(2)), p.perturb(key, jnp.ones(2), jnp.float32(0.6)))
    from_data = samplers.draw(key, 3, make_denoise(oracle), sampler, (2,), x0=np.ones((3, 2), np.float32))
    assert from_data.shape == (3, 2)
    assert np.isfinite(from_data).all()


def test_a_belief_must_be_like_the_data_in_the_state(key):
    p = processes.cld()
    x, ts = jnp.zeros((2, 3)), jnp.array([0.9, 0.5])
    for stepper in (samplers.reverse_sde(p), samplers.ancestral(p)):
        for wrong in (lambda x, t: x, lambda x, t: x[0, :1], lambda x, t: x[0].astype(jnp.bfloat16)):
            with pytest.raises(InputError, match="an array like the data in x"):
                samplers.sample(key, stepper, wrong, x, ts)
    assert believe(lambda x, t: x[0], x, 0.5, p).shape == (3,)


def test_steppers_of_a_linear_sde_are_pytrees_that_compile_once_and_map(key):
    traces = 0

    @jax.jit
    def walk(stepper, oracle, keys, x):
        nonlocal traces
        traces += 1
        ts = jnp.array([0.9, 0.5, 0.1])
        return jax.vmap(lambda k, x: samplers.sample(k, stepper, oracle.denoise, x, ts))(keys, x)

    keys, x = jax.random.split(key, 3), jax.random.normal(key, (3, 2, 2))
    for mass in (0.25, 0.3):
        p = processes.cld(mass=mass)
        out = walk(samplers.reverse_sde(p), oracles.linear(p, MEAN, COV), keys, x)
    assert traces == 1
    one = samplers.sample(keys[1], samplers.reverse_sde(p), oracles.linear(p, MEAN, COV).denoise, x[1], [0.9, 0.5, 0.1])
    np.testing.assert_allclose(out[1], one, atol=1e-5)
