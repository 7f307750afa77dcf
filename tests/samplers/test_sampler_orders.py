"""The global error of every deterministic stepper falls as its order says, on steps that alternate 1 : 2 in log-SNR (a
multistep method with a wrong step ratio is first order there), against flows known without any solver."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import PROCESSES, STEPPERS
from scipy.optimize import brentq
from scipy.stats import norm

from jaxdiff import oracles, samplers

pytestmark = pytest.mark.claim("every deterministic stepper has its order, on uneven grids")


# Two targets of one form, so that both run in one program: a Gaussian, and a mixture.
WEIGHTS = np.array([[0.5, 0.5], [0.3, 0.7]])
MEANS = np.array([[0.3, 0.3], [-1.0, 1.2]])
VARIANCES = np.array([[0.25, 0.25], [0.05, 0.2]])

HIGH, LOW = 6.0, 0.1  # sigma / alpha at both ends; the last Euler step to 0 would hide the order
# On these the Gaussian's std is the root of a quadratic in t, so its flow is y' = y u / (1 + u^2) in another unit, and
# there the midpoint rule's h^3 term is 0: a'' / 24 + a a' / 4 + a^3 / 6 = 0 for a = u / (1 + u^2).
SUPERCONVERGENT = {("midpoint_in_t", "edm"): 3, ("midpoint_in_t", "flow"): 3}

START = np.array([-1.7, -0.4, 0.3, 1.1])  # in standard deviations of the noise


def uneven(process, n):
    steps = np.tile([1.0, 2.0], n // 2)
    u = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    return process.time_of(jnp.exp(np.log(HIGH) + u * (np.log(LOW) - np.log(HIGH))))


def transported(target, x, begin, end):
    """The flow in one dimension keeps every quantile, x -> F_s^-1(F_t(x)), from (alpha, sigma) to (alpha, sigma)."""

    def cdf(x, alpha, sigma):
        spread = np.sqrt(alpha**2 * VARIANCES[target] + sigma**2)
        return np.sum(WEIGHTS[target] * norm.cdf((x - alpha * MEANS[target]) / spread))

    return np.array([brentq(lambda y, v=v: cdf(y, *end) - cdf(v, *begin), -50, 50, xtol=1e-13, rtol=1e-14) for v in x])


@jax.jit
def solve(process, stepper, ts, x):
    def run(weights, means, variances):
        oracle = oracles.mixture(process, weights, means, variances)
        return jax.vmap(lambda x: samplers.sample(jax.random.key(0), stepper, oracle.denoise, x, ts))(x)

    return jax.vmap(run)(jnp.asarray(WEIGHTS), jnp.asarray(MEANS), jnp.asarray(VARIANCES))


@functools.cache
def setting(process):
    """The process, where its walkers start, and where the two exact flows carry them."""
    p = PROCESSES[process]()
    t, s = uneven(p, 2)[jnp.array([0, -1])]
    begin, end = (tuple(map(float, p.scales(time))) for time in (t, s))
    x = START * begin[1]
    exact = np.stack([transported(target, x, begin, end) for target in (0, 1)])
    gaussian = oracles.gaussian(p, 0.3, 0.25)
    np.testing.assert_allclose(jax.vmap(lambda x: gaussian.flow(x, t, s))(jnp.asarray(x)), exact[0], atol=1e-10)
    return p, jnp.asarray(x), exact


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name, row in STEPPERS.items() if not row.stochastic])
def test_the_error_falls_at_the_order_of_the_stepper(name):
    row = STEPPERS[name]
    for process in ("vp", "edm", "flow"):
        p, x, exact = setting(process)
        grids = (uneven(p, n) for n in (row.steps, 2 * row.steps))
        errors = [np.linalg.norm(solve(p, row.make(p), ts, x) - exact, axis=1) for ts in grids]
        orders = np.log2(errors[0] / errors[1])
        expected = np.array([SUPERCONVERGENT.get((name, process), row.order), row.order])  # on the two targets
        assert np.all(abs(orders - expected) < 0.25), (process, orders, errors)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_second_order_does_not_need_a_signal_at_the_start(name):
    """On cosine from t = 1, where alpha = 0."""
    p, _, _ = setting("cosine")
    start = jnp.asarray(START)
    exact = np.stack([transported(target, START, (0.0, 1.0), tuple(map(float, p.scales(0.1)))) for target in (0, 1)])
    errors = [
        np.linalg.norm(solve(p, STEPPERS[name].make(p), jnp.linspace(1.0, 0.1, n + 1), start) - exact, axis=1)
        for n in (64, 128)
    ]
    orders = np.log2(errors[0] / errors[1])
    assert np.all(abs(orders - 2) < 0.25), (orders, errors)
