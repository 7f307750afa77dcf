"""How the flow's likelihood is solved: its probes and their spread, its denoiser calls, its steps, and what it says
where it cannot be."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import words

from jaxdiff import denoisers, likelihood, oracles, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.likelihood.ends import start
from jaxdiff.numerics import divergence, partial
from jaxdiff.samplers import clocks

pytestmark = pytest.mark.claim(
    "denoiser calls of every solver are the table's; the code of a solve that gave up, and NaN"
)


MEAN = np.array([0.7, -0.4])
COV = np.array([[0.5, 0.2], [0.2, 0.3]])
X = jnp.array([0.3, 0.1])
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def law_at_one(oracle, x):
    return oracle.log_prob(x, 1.0)


def given(probes, key, shape, dtype, n):
    return probes[:n].astype(dtype)


def stiff(p):
    """Two narrow modes: a start between them takes many steps, one beside them few."""
    return oracles.mixture(p, [0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [1e-3, 1e-3])


# Probes --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_one_probe_stays_the_same_through_the_solve(key):
    """Of Gaussian data the flow is the linear map M in z, so a fixed probe v finds v' log(M) v, and the mean of n
    probes is a sum divided by n."""
    p = processes.vp()
    oracle = oracles.gaussian(p, MEAN, COV)
    probes = jnp.array([[1.0, 1.0], [1.0, -1.0], [0.3, 2.0]])
    (a0, s0), (a1, s1) = (p.scales(t) for t in (start(p), 1.0))
    values, vectors = np.linalg.eigh(COV)
    c0, c1 = jnp.hypot(a0, s0), jnp.hypot(a1, s1)
    stretch = jnp.sqrt((a1**2 * values + s1**2) / (a0**2 * values + s0**2)) * c0 / c1
    log_map = vectors @ np.diag(np.log(stretch)) @ vectors.T
    each = jnp.einsum("ni,ij,nj->n", probes, log_map, probes)
    base = p.log_prior(oracle.flow(X.astype(float), start(p), 1.0)) + 2 * jnp.log(c1 / c0)
    x = X.astype(float)
    found = likelihood.flow_log_prob(
        key, p, oracle.denoise, x, **words(divergence="hutchinson", probes=3, law=partial(given, probes), **TIGHT)
    )
    np.testing.assert_allclose(found.log_prob, base + each.mean(), atol=1e-6)
    np.testing.assert_allclose(found.stderr, np.std(each, ddof=1) / np.sqrt(3), atol=1e-6)


def test_probes_are_unbiased_and_know_their_error(key):
    """Normal ones; signs are exact in the mean of few, as the Jacobian here has small entries off its diagonal."""
    p = processes.vp()
    oracle = oracles.gaussian(p, MEAN, COV)
    options = {"divergence": "hutchinson", "probes": 4, "law": divergence.normal, "t0": 0.01}

    @jax.vmap
    def one(key):
        return likelihood.flow_log_prob(key, p, oracle.denoise, X, **words(**options))

    n = 400
    found = one(jax.random.split(key, n))
    values = np.asarray(found.log_prob, float)
    # The default prior is not quite the law at t = 1.
    latent = oracle.flow(X, 0.01, 1.0)
    exact = oracle.log_prob(X, 0.01) + p.log_prior(latent) - oracle.log_prob(latent, 1.0)
    assert abs(values.mean() - exact) < 5 * values.std(ddof=1) / np.sqrt(n)
    # The squares of the errors that it names have the mean of the squares of the errors that it makes.
    named, made = np.asarray(found.stderr, float) ** 2, (values - values.mean()) ** 2
    assert abs(named.mean() - made.mean()) < 5 * np.sqrt((named.var() + made.var()) / n)
    np.testing.assert_array_equal(one(jax.random.split(key, n)).log_prob, found.log_prob)


# Denoiser calls ------------------------------------------------------------------------------------------------------

N = 6
CALLS = {
    diffrax.Euler: N,
    diffrax.Heun: 2 * N,
    diffrax.Midpoint: 2 * N,
    diffrax.Ralston: 2 * N,
    diffrax.Bosh3: 3 * N + 1,
    diffrax.Tsit5: 6 * N + 1,
    diffrax.Dopri5: 6 * N + 1,
    diffrax.Dopri8: 13 * N + 1,
    diffrax.ReversibleHeun: N + 1,
    diffrax.LeapfrogMidpoint: N,
}


def counting(believe):
    ran = []

    def denoise(x, t):
        jax.debug.callback(lambda: ran.append(1))
        return believe(x, t)

    return denoise, ran


@pytest.mark.parametrize("solver", CALLS, ids=lambda solver: solver.__name__)
def test_fixed_steps_take_the_calls_of_the_table(key, solver):
    denoise, ran = counting(lambda x, t: 0.5 * x)
    found = likelihood.flow_log_prob(key, processes.flow(), denoise, X[:1], **words(solver=solver(), steps=N))
    jax.effects_barrier()
    assert int(found.calls) == len(ran) == CALLS[solver]
    assert found.result == diffrax.RESULTS.successful


def test_adaptive_steps_count_the_rejected_ones_too(key):
    p = processes.flow()
    denoise, ran = counting(stiff(p).denoise)
    options = {"rtol": 1e-3, "atol": 1e-3, "divergence": "hutchinson"}
    found = likelihood.flow_log_prob(key, p, denoise, jnp.array([0.05, 0.0]), **words(**options))
    jax.effects_barrier()
    assert int(found.calls) == len(ran) > 20
    assert (len(ran) - 1) % 6 > 0  # the first steps were rejected, each of which asks once more
    assert np.isnan(found.stderr)  # of one probe


# Steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_fixed_steps_have_the_order_of_their_solver_both_ways(key):
    """Equal on the clock, or at times of one's own, which are then the clock's too."""
    p = processes.edm()
    oracle = oracles.gaussian(p, MEAN, COV)
    options = {"solver": diffrax.Heun(), "prior": partial(law_at_one, oracle)}
    errors, x = [], X.astype(float)
    for n in (40, 80):
        up = likelihood.flow_log_prob(key, p, oracle.denoise, x, **words(steps=n, t0=0.01, **options))
        assert up.calls == 2 * n
        errors.append(abs(up.log_prob - oracle.log_prob(x, 0.01)))
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.2, errors
    angles = jnp.linspace(*(jnp.arctan2(*p.scales(t)[::-1]) for t in (0.01, 1.0)), n + 1)
    ts = p.time_of(jnp.tan(angles)).at[-1].set(1.0)
    down = likelihood.flow_sample(key, p, oracle.denoise, up.latent, **words(steps=ts[::-1], **options))
    assert down.calls == 2 * n
    np.testing.assert_allclose(down.x, x, atol=2 * errors[1])
    np.testing.assert_allclose(down.log_prob, up.log_prob, atol=2 * errors[1])


def test_under_vmap_each_example_has_its_own_steps_and_code(key):
    p = processes.flow()
    x = jnp.array([[2.0, 0.0], [0.02, 0.0], [jnp.nan, 0.3], [-1.2, 0.3]])
    denoise = stiff(p).denoise

    @jax.jit
    def find(x):
        options = words(max_steps=12, rtol=1e-4, atol=1e-4)
        return jax.vmap(lambda x: likelihood.flow_log_prob(key, p, denoise, x, **options))(x)

    found = find(x)
    codes, good = diffrax.RESULTS, np.array([True, False, False, True])
    np.testing.assert_array_equal(found.result == codes.successful, good)
    np.testing.assert_array_equal(found.result == codes.max_steps_reached, [False, True, False, False])
    np.testing.assert_array_equal(found.result == codes.nonfinite, [False, False, True, False])
    for values in (found.log_prob, found.stderr, found.latent[:, 0], found.latent[:, 1]):
        np.testing.assert_array_equal(np.isfinite(values), good)
    assert found.calls[0] != found.calls[1]


def test_a_sample_that_ran_out_of_steps_is_nan(key):
    p = processes.flow()
    made = likelihood.flow_sample(key, p, stiff(p).denoise, jnp.array([0.02, 0.0]), **words(max_steps=3))
    assert made.result == diffrax.RESULTS.max_steps_reached
    assert np.isnan([*made.x, made.log_prob, made.stderr]).all()


def test_a_belief_that_is_not_finite_is_no_number(key):
    found = likelihood.flow_log_prob(
        key, processes.vp(), lambda x, t: x / 0, X, **words(solver=diffrax.Heun(), steps=3)
    )
    assert found.result == diffrax.RESULTS.nonfinite
    assert np.isnan(found.log_prob)


def test_nothing_retraces(key):
    traces = []

    def network(params, x, c_noise, cond):
        traces.append(1)
        return jnp.tanh(x * params["w"] + c_noise[:, None])

    def run(v):
        p = processes.vp(0.1 * (1 + v), 20.0)
        denoise = denoisers.from_network(network, parameterizations.edm(0.5 + v), p)({"w": jnp.full(2, 1 + v)})
        options = {"rtol": 1e-3 * (1 + v), "atol": 1e-3, "divergence": "hutchinson", "t0": 0.01 * (1 + v)}
        return likelihood.flow_log_prob(jax.random.key(int(10 * v)), p, denoise, X + v, **words(**options))

    run(0.1)
    once = len(traces)
    run(0.2)
    run(0.3)
    assert len(traces) == once


# Mistakes ------------------------------------------------------------------------------------------------------------

MISTAKES = {
    "an x that is not finite": ({"x": jnp.array([jnp.nan, 0.0])}, r"got an x that is not finite; drop or repair"),
    "counts": ({"x": jnp.array([3, 4])}, r"got x of int32, expected floats.*dequantise"),
    "t0 beyond the noise": ({"t0": 1.0}, r"t0=1 is not in \[0, 1\)"),
    "t0 before the data": ({"t0": -0.1}, r"t0=-0.1 is not in \[0, 1\)"),
    "t0 without noise": ({"t0": 0.0}, r"sigma is 0 at t0=0.*leave t0 out"),
    "limits out of order": ({"t0": 0.5, "t1": 0.5}, r"t0=0.5 and t1=0.5, expected 0 <= t0 < t1 <= 1"),
    "t1 beyond the noise": ({"t1": 1.5}, r"t1=1.5, expected 0 <= t0 < t1 <= 1"),
    "t0 below what the angle tells": ({"t0": 1e-14}, r"t0=1e-14 sigma / alpha is 1e-05.*held below.*clocks.log_snr"),
    "another shape": ({"denoise": lambda x, t: x[:1]}, r"denoiser returned float32 of shape \(1,\).*like x"),
    "a prior of each pixel": ({"prior": lambda x: x}, r"prior returned shape \(2,\).*summed over x's axes"),
    "a tolerance below float32's": (
        {"rtol": 1e-8, "atol": 1e-8}, r"rtol=1e-08 and atol=1e-08.*at least 1.2e-06: in float32.*jax_enable_x64"
    ),
    "a negative tolerance": ({"rtol": -1.0}, r"rtol=-1.0 .*expected numbers of at least 0"),
    "no probe": ({"divergence": "hutchinson", "probes": 0}, r"probes=0, expected at least 1"),
    "an unknown divergence": ({"divergence": "skilling"}, r"divergence='skilling', expected 'exact' or 'hutchinson'"),
    "an implicit solver": ({"solver": diffrax.Kvaerno5()}, r"implicit solver Kvaerno5.*use an explicit one"),
    "an SDE's solver": ({"solver": diffrax.ShARK()}, r"got the solver ShARK.*samplers for SDEs"),
    "a wrapped solver": ({"solver": diffrax.HalfSolver(diffrax.Euler())}, r"calls are known.*Tsit5"),
    "no error to choose steps by": ({"solver": diffrax.Euler()}, r"Euler, which estimates no error"),
    "no steps": ({"steps": 0}, r"steps=0, expected a whole number of at least 1"),
    "a number of steps that is none": ({"steps": 2.5}, r"steps=2.5, expected a whole number"),
    "a sampling grid": ({"steps": jnp.array([1.0, 0.5, 0.1])}, r"times in steps that do not rise.*ts\[::-1\]"),
    "times twice": ({"steps": jnp.array([0.1, 0.5]), "t0": 0.1}, r"times in steps, and t0 or t1 beside them"),
    "steps and a controller": (
        {"steps": 3, "controller": diffrax.ConstantStepSize()}, r"both steps and a controller"
    ),
    "a clock that never arrives": (
        {"process": processes.flow, "clock": clocks.log_snr()}, r"is infinite where alpha or sigma is 0.*clocks.angle"
    ),
    "a clock of another process": (
        {"process": processes.cld, "clock": clocks.angle(), "t0": 0.1}, r"Linear has no sigma / alpha for its clock"
    ),
    "a process without a default t0": ({"process": processes.cld}, r"not on a Linear; give t0"),
    "no flow": ({"process": lambda: processes.Product({"a": processes.vp()})}, r"a Product has no probability flow"),
    "one number for a batch": ({"x": jnp.asarray(0.3), "lockstep": True}, r"one number for x with lockstep"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(key, mistake):
    options, message = MISTAKES[mistake]
    arguments = {"process": processes.brownian, "denoise": lambda x, t: 0.5 * x, "x": X, **options}
    process, denoise, x = arguments.pop("process")(), arguments.pop("denoise"), arguments.pop("x")
    with pytest.raises(InputError, match=message):
        likelihood.flow_log_prob(key, process, denoise, x, **words(**arguments))


def test_a_sample_has_the_mistakes_of_a_likelihood(key):
    with pytest.raises(InputError, match=r"flow_sample got times in steps that do not fall"):
        likelihood.flow_sample(key, processes.vp(), lambda x, t: x, X, **words(steps=jnp.array([0.1, 1.0])))
    with pytest.raises(InputError, match=r"flow_sample got divergence='none'"):
        likelihood.flow_sample(key, processes.vp(), lambda x, t: x, X, **words(divergence="none"))
