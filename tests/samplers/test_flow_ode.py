"""`flow` arrives where the exact flow does, as near as its tolerance asks; it counts its denoiser calls, steps alone or
together as asked, and says when it gave up."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import PROCESSES

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.samplers import clocks

pytestmark = pytest.mark.claim(
    "`flow` by diffrax equals the closed form to 1e-6, and its error falls with the tolerance"
)


MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])


def controller(tolerance):
    """Tolerances as arrays: another one compiles nothing."""
    return diffrax.PIDController(rtol=jnp.asarray(tolerance), atol=jnp.asarray(tolerance))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", PROCESSES)
def test_the_flow_is_the_exact_one_both_ways(process):
    p = PROCESSES[process]()
    oracle = oracles.gaussian(p, MEAN, COV)
    x1 = jnp.array([0.8, -1.3]) * p.scales(1.0)[1]
    x0 = oracle.flow(x1, 1.0, 0.0)

    @jax.jit
    def solve(x, t, s, tolerance):
        return samplers.flow(p, oracle.denoise, x, t, s, controller=controller(tolerance))

    errors, calls = [], []
    for tolerance in (1e-5, 1e-7, 1e-9):
        found = solve(x1, 1.0, 0.0, tolerance)
        assert found.result == diffrax.RESULTS.successful
        errors.append(abs(found.x - x0).max())
        calls.append(int(found.calls))
    # The error is a fixed multiple of the tolerance: 4 decades of it buy at least 3.
    assert errors[2] < 1e-8
    assert errors[0] > 1e3 * errors[2]
    assert calls[0] < calls[1] < calls[2] < 500
    # There and back, relative to the size of the noise.
    assert abs(solve(x0, 0.0, 1.0, 1e-9).x - x1).max() < 1e-6 * p.scales(1.0)[1]
    part = solve(x1, 1.0, 0.4, 1e-9)
    np.testing.assert_allclose(part.x, oracle.flow(x1, 1.0, 0.4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("process", ["vp", "edm", "cosine", "flow"])
def test_the_flow_keeps_its_accuracy_in_float32(process):
    p = PROCESSES[process]()
    oracle = oracles.gaussian(p, MEAN, COV)
    x1 = jnp.array([0.8, -1.3]) * p.scales(1.0)[1]
    found = samplers.flow(p, oracle.denoise, x1)
    assert found.x.dtype == jnp.float32
    np.testing.assert_allclose(found.x, oracle.flow(x1, 1.0, 0.0), atol=5e-4)


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Bosh3(),
        diffrax.Dopri8(),
        diffrax.Midpoint(),
        diffrax.ReversibleHeun(),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_calls_is_the_number_of_times_that_the_denoiser_ran(solver):
    p = processes.flow()
    oracle = oracles.mixture(p, [0.3, 0.7], [[-1.0], [1.2]], [0.05, 0.02])
    ran = []

    def denoise(x, t):
        jax.debug.callback(lambda: ran.append(1))
        return oracle.denoise(x, t)

    # A tolerance at which steps are rejected too, the first among them. (tests/likelihood counts fixed steps.)
    found = samplers.flow(p, denoise, jnp.array([0.3]), solver=solver, rtol=1e-5, atol=1e-5)
    jax.effects_barrier()
    assert found.result == diffrax.RESULTS.successful
    assert int(found.calls) == len(ran) > 5


def test_a_solver_whose_calls_cannot_be_counted_is_refused():
    with pytest.raises(InputError, match=r"implicit solver Kvaerno5.*use an explicit one"):
        samplers.flow(processes.vp(), lambda x, t: x, jnp.zeros(2), solver=diffrax.Kvaerno5())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": diffrax.HalfSolver(diffrax.Heun())}, r"HalfSolver.*whose denoiser calls are known"),
        ({"solver": diffrax.Euler()}, r"flow got Euler, which estimates no error"),
        (
            {"rtol": 1e-9, "atol": 0.0},
            r"flow got rtol=1e-09 and atol=0.0.*at least 1.2e-06: in float32.*jax_enable_x64",
        ),
        ({"clock": clocks.log_snr()}, r"infinite where alpha or sigma is 0.*clocks.angle"),
        ({"clock": clocks.time()}, r"sigma is 0 at an end.*clocks.angle"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        samplers.flow(processes.vp(), lambda x, t: x, jnp.zeros(2), **options)


@pytest.mark.usefixtures("x64")
def test_the_flow_of_position_and_velocity_returns():
    """On the process's own time, which is chosen by itself; and its law goes over into that of the prior."""
    p = processes.cld()
    oracle = oracles.linear(p, MEAN, COV)
    x1 = jnp.array([[0.8, -1.3], [0.2, 0.4]])
    down = samplers.flow(p, oracle.denoise, x1, 1.0, 0.1, rtol=1e-9, atol=1e-9)
    back = samplers.flow(p, oracle.denoise, down.x, 0.1, 1.0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back.x, x1, atol=1e-6)
    assert abs(down.x - x1).max() > 0.3


def two_speeds():
    """A process and a denoiser that is smooth for one start and stiff for another."""
    p = processes.flow()
    return p, oracles.mixture(p, [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [1e-4, 1e-4]).denoise


def test_examples_step_alone_under_vmap_and_together_in_a_batch(x64):
    p, denoise = two_speeds()
    x = jnp.array([[2.0, 0.0], [0.01, 0.0], [-1.5, 0.3]])
    alone = jax.vmap(lambda x: samplers.flow(p, denoise, x))(x)
    assert len(set(alone.calls.tolist())) > 1
    single = samplers.flow(p, denoise, x[1])
    assert single.calls == alone.calls[1]
    np.testing.assert_allclose(single.x, alone.x[1], atol=1e-9)
    together = samplers.flow(p, jax.vmap(denoise, (0, None)), x)
    assert together.calls.shape == ()
    np.testing.assert_allclose(together.x, alone.x, atol=2e-3)


def test_a_solver_that_gave_up_says_so():
    p, denoise = two_speeds()
    found = samplers.flow(p, denoise, jnp.array([0.01, 0.0]), max_steps=3)
    assert found.result == diffrax.RESULTS.max_steps_reached


def test_gradients_pass_through_the_flow(x64):
    p = processes.vp()

    def end(mean, x):
        oracle = oracles.gaussian(p, mean, 0.25)
        return samplers.flow(p, oracle.denoise, x, controller=controller(1e-8)).x

    def exact(mean, x):
        return oracles.gaussian(p, mean, 0.25).flow(x, 1.0, 0.0)

    at = jnp.asarray(0.3), jnp.asarray(0.4)
    np.testing.assert_allclose(jax.grad(end, (0, 1))(*at), jax.grad(exact, (0, 1))(*at), rtol=1e-5)


def test_a_belief_of_the_wrong_shape_is_refused():
    with pytest.raises(InputError, match=r"denoiser returned float32 of shape \(1,\).*shape \(2,\).*like x"):
        samplers.flow(processes.vp(), lambda x, t: x[:1], jnp.zeros(2))
