"""Linear SDEs with matrix coefficients are what they say: kernels against the moment equations and the published closed
form, one copy against the Gaussian processes, score, posterior, prior and perturbation against joint conditioning."""

import coupled
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff import processes, schedules
from jaxdiff.errors import InputError
from jaxdiff.processes.motion import REACH

pytestmark = pytest.mark.claim("critically damped Langevin and any linear SDE: kernels, scores, flow and likelihood")


PROCESSES = {
    "critical": processes.cld,
    "critical, heavy": lambda: processes.cld(beta=6.0, mass=4.0, velocity=1.0),
    "underdamped": lambda: processes.cld(friction=0.3),
    "overdamped, from rest": lambda: processes.cld(friction=3.0, velocity=0.0),
    "three": lambda: of_law("three", schedules.LinearVP(0.1, 4.0).integral),
    "chain": lambda: of_law("chain", 3.0),
}
every_process = pytest.mark.parametrize("name", PROCESSES)
two_kinds = pytest.mark.parametrize("name", ["critical", "three"])
TIMES = np.array([1e-3, 0.03, 0.2, 0.6, 1.0])
SMALL = np.geomspace(1e-6, 1e-2, 9)


def of_law(name, beta):
    law = coupled.LAWS[name]
    return processes.linear(law.A, law.G, beta=beta, start=law.start)


def test_the_rows_are_the_laws():
    assert PROCESSES.keys() == coupled.LAWS.keys()


@every_process
def test_kernels_solve_the_moment_equations(name, x64):
    mean, cov = PROCESSES[name]().kernel(TIMES)
    exact_mean, exact_cov = coupled.LAWS[name].moments(TIMES)
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(cov, exact_cov, rtol=1e-9, atol=1e-12)


def test_critical_damping_is_the_published_closed_form(x64):
    for options in ({}, {"beta": 6.0, "mass": 4.0, "velocity": 1.0}, {"velocity": 0.0}, {"mass": 0.01, "beta": 1.0}):
        for t in (0.01, 0.1, 0.5, 1.0):
            mean, cov = processes.cld(**options).kernel(t)
            exact_mean, exact_cov = coupled.published(t, **options)
            np.testing.assert_allclose(mean, exact_mean, rtol=0, atol=1e-12)
            np.testing.assert_allclose(cov, exact_cov, rtol=0, atol=1e-12)


def test_the_closed_form_is_the_series_of_its_matrices(x64):
    """Relative to each entry near t = 0, where the entries are of order t, t^2 and t^3."""
    for mass, velocity in ((0.25, 0.04), (4.0, 0.0)):
        closed = processes.cld(mass=mass, velocity=velocity)
        series = processes.cld(mass=mass, velocity=velocity, friction=2 * mass**0.5)
        assert type(closed.motion) is not type(series.motion)
        for times, tolerances in ((SMALL, {"rtol": 1e-12}), (TIMES, {"rtol": 1e-12, "atol": 1e-14})):
            for one, two in zip(closed.kernel(times), series.kernel(times), strict=True):
                np.testing.assert_allclose(one, two, **tolerances)
        np.testing.assert_allclose(closed.motion.A, series.motion.A, rtol=1e-15)
        np.testing.assert_allclose(closed.motion.G, series.motion.G, rtol=1e-15)


@every_process
def test_float32_keeps_every_entry_near_the_data_and_the_scale_everywhere(name, x64):
    process, eps = PROCESSES[name](), np.finfo(np.float32).eps
    for times, near in ((SMALL, True), (TIMES, False)):
        times = times.astype(np.float32)
        low, high = process.kernel(times), process.kernel(times.astype(float))
        assert {part.dtype for part in low} == {jnp.dtype("float32")}
        # An exponential shows the rounding of its argument.
        reach = abs(coupled.LAWS[name].A).sum(0).max() * np.asarray(process.integral(times.astype(float)))
        for a, b in zip(low, high, strict=True):
            a, b = np.asarray(a, float), np.asarray(b)
            axes = tuple(range(1, b.ndim))
            scale = np.where(b == 0, 1, abs(b)) if near else abs(b).max(axes, keepdims=True)
            assert np.all((abs(a - b) / scale).max(axes) < 4 * eps * (1 + reach)), (name, near)


def test_the_score_in_float32_loses_no_more_than_the_state_has_lost(x64):
    """The covariance's inverse costs little; x - m x0, of the size of S^(1/2), is what cancels."""
    process = processes.cld()
    t = np.float32(1e-3)
    x0, z = np.array([0.7], np.float32), np.array([[0.3], [-1.2]], np.float32)
    x = np.asarray(process.perturb(jax.random.key(0), x0, t, noise=lambda *_: jnp.asarray(z)))
    low = process.score(x, x0, t)
    high = process.score(x.astype(float), x0.astype(float), t.astype(float))
    mean, cov = process.kernel(t.astype(float))
    rounding = np.finfo(np.float32).eps * abs(np.linalg.inv(cov)) @ abs(mean)  # of m x0, as the inverse shows it
    assert low.dtype == jnp.float32
    assert np.all(abs(np.asarray(low, float) - high)[:, 0] < 2 * rounding)


@every_process
def test_drift_and_diffusion_are_the_matrices(name, x64):
    process, law = PROCESSES[name](), coupled.LAWS[name]
    x = np.random.default_rng(1).normal(size=(len(law.A), 2, 3))
    for t in (0.0, 0.3, 1.0):
        drift, noise = process.drift(jnp.asarray(x), t), process.diffuse(jnp.asarray(x), t)
        np.testing.assert_allclose(drift, law.beta(t) * np.einsum("ij,jab->iab", law.A, x), rtol=1e-12)
        np.testing.assert_allclose(noise, np.sqrt(law.beta(t)) * np.einsum("ij,jab->iab", law.G, x), rtol=1e-12)


def conditional(law, x, x0, t, s):
    """p(X_s | X_t = x, x0) from the joint normal of the two, Cov(X_s, X_t) = S_s F', F the transition from s to t."""
    (m_s, m_t), (S_s, S_t) = law.moments(np.array([s, t]))
    cross = S_s @ law.transition(s, t).T
    gain = np.linalg.solve(S_t, cross.T).T
    return m_s * x0 + gain @ (x - m_t * x0), S_s - gain @ cross.T


@pytest.mark.parametrize("name", ["critical", "three", "overdamped, from rest"])
def test_the_posterior_is_joint_conditioning(name, x64):
    process, law = PROCESSES[name](), coupled.LAWS[name]
    x, x0 = np.random.default_rng(2).normal(size=len(law.A)), 0.7
    posterior = jax.jit(lambda p, t, s: p.posterior(x, x0, t, s))
    for t, s in ((1.0, 0.6), (0.6, 0.5), (0.3, 0.02), (0.3, 0.0)):
        mean, spread = posterior(process, t, s)
        exact_mean, exact_cov = conditional(law, x, x0, t, s)
        np.testing.assert_allclose(mean, exact_mean, rtol=1e-8, atol=1e-9, err_msg=f"{t} {s}")
        np.testing.assert_allclose(spread @ spread.T, exact_cov, rtol=1e-8, atol=1e-9, err_msg=f"{t} {s}")
        if s == 0:  # the data are known there
            assert mean[0] == x0
            np.testing.assert_array_equal(spread[0], 0)


@two_kinds
def test_the_score_is_the_gradient_of_the_perturbations_log_density(name, x64):
    process = PROCESSES[name]()
    k = process.copies
    x, x0 = np.random.default_rng(3).normal(size=(k, 2, 3)), np.random.default_rng(4).normal(size=(2, 3))
    found = jax.jit(lambda p, x, x0, t: (p.kernel(t), p.score(x, x0, t), p.log_prior(x, t), p.log_snr(t)))
    for t in (0.03, 0.4, 1.0):
        (mean, cov), score, log_prior, log_snr = jax.tree.map(np.asarray, found(process, x, x0, t))
        miss = x - np.einsum("i,ab->iab", mean, x0)
        np.testing.assert_allclose(score, -np.linalg.solve(cov, miss.reshape(k, -1)).reshape(x.shape), rtol=1e-8)
        density = stats.multivariate_normal(np.zeros(k), cov).logpdf(x.reshape(k, -1).T).sum()
        np.testing.assert_allclose(log_prior, density, rtol=1e-10)
        np.testing.assert_allclose(log_snr, np.log(mean @ np.linalg.solve(cov, mean)), rtol=1e-9)


def test_one_copy_is_a_gaussian_process(key):
    """VP and Brownian motion: the same numbers and the same draws, in float32."""
    vp, brownian = schedules.LinearVP(), lambda t: 100.0**2 * t
    pairs = {
        "vp": (processes.linear([[-0.5]], [[1.0]], beta=vp.integral), processes.vp()),
        "brownian": (processes.linear([[0.0]], [[1.0]], beta=brownian), processes.brownian(100.0)),
    }
    x, x0 = jnp.array([0.3, -1.2]), jnp.array([0.5, 0.1])

    @jax.jit
    def words(one, two, t):
        alpha, sigma = two.scales(t)
        mean, cov = one.kernel(t)
        back, spread = one.posterior(x[None], x0, t, t / 2)
        gaussian_back, gaussian_spread = two.posterior(x, x0, t, t / 2)
        return {
            "mean": (mean[0], alpha),
            "variance": (cov[0, 0], sigma**2),
            "log_snr": (one.log_snr(t), two.log_snr(t)),
            "drift": (one.drift(x[None], t)[0], two.drift(x, t)),
            "diffuse": (one.diffuse(x[None], t)[0], two.diffuse(x, t)),
            "score": (one.score(x[None], x0, t)[0], two.score(x, x0, t)),
            "prior": (one.prior(key, (2,), t)[0], two.prior(key, (2,), t)),
            "log_prior": (one.log_prior(x[None], t), two.log_prior(x, t)),
            "perturb": (one.perturb(key, x0, t)[0], two.perturb(key, x0, t)),
            "back": (back[0], gaussian_back),
            "spread": (spread[0, 0], gaussian_spread),
        }

    for name, (one, two) in pairs.items():
        for t in (1e-4, 0.2, 0.7, 1.0):
            for word, (a, b) in words(one, two, jnp.asarray(t)).items():
                np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6, err_msg=f"{name} {word} {t}")


def moments_are(x, mean, cov):
    """Five standard errors: `x` is (n, k)."""
    n, var = len(x), np.diag(cov)
    assert np.all(abs(x.mean(0) - mean) <= 5 * np.sqrt(var / n))
    assert np.all(abs(np.cov(x.T) - cov) <= 5 * np.sqrt((np.outer(var, var) + cov**2) / n))


@two_kinds
def test_draws_have_the_moments(name, key):
    process, law, n = PROCESSES[name](), coupled.LAWS[name], 40_000
    x, x1 = jax.jit(lambda p: (p.perturb(key, jnp.full(n, 3.0), 0.2), p.prior(key, (n,))))(process)
    means, covs = law.moments(np.array([0.2, 1.0]))
    moments_are(np.asarray(x, np.float64).T, 3 * means[0], covs[0])
    moments_are(np.asarray(x1, np.float64).T, 0 * means[1], covs[1])


@pytest.mark.parametrize("name", ["critical", "three", "overdamped, from rest"])
def test_a_bridge_draws_joint_conditioning(name, key):
    process, law, n = PROCESSES[name](), coupled.LAWS[name], 40_000
    x, x0 = np.random.default_rng(2).normal(size=len(law.A)), 0.7
    state = jnp.broadcast_to(jnp.asarray(x, jnp.float32)[:, None], (len(x), n))
    draw = jax.jit(lambda k, t, s: process.bridge(k, state, jnp.full(n, x0), t, s))
    for t, s in ((1.0, 0.6), (0.6, 0.5)):
        moments_are(
            np.asarray(draw(jax.random.fold_in(key, int(10 * t)), t, s), np.float64).T, *conditional(law, x, x0, t, s)
        )


def test_the_langevin_prior_is_the_stationary_law():
    """N(0, 1) x N(0, M), which the kernel at t = 1 has reached to 2e-5."""
    np.testing.assert_allclose(processes.cld().kernel(1.0)[1], np.diag([1, 0.25]), atol=2e-5)


def test_at_the_data_the_first_copy_is_the_data(key):
    process = processes.cld()
    x0 = jnp.array([[0.3, -1.0, 0.8]])
    x = process.perturb(key, x0, 0.0)
    assert x.shape == (2, 1, 3)
    np.testing.assert_array_equal(process.data(x), x0)
    assert jnp.all(x[1] != 0)
    mean, cov = process.kernel(0.0)
    np.testing.assert_array_equal(mean, [1, 0])
    np.testing.assert_allclose(cov, np.diag([0, 0.01]), rtol=1e-6)
    rest = processes.cld(velocity=0.0).perturb(key, x0, 0.0)
    np.testing.assert_array_equal(rest, jnp.stack([x0, 0 * x0]))


def test_shapes_are_the_datas_and_states_have_one_axis_more(key):
    process = PROCESSES["chain"]()
    like = jax.ShapeDtypeStruct((2, 5), jnp.bfloat16)
    assert (process.prior(key, like).shape, process.prior(key, like).dtype) == ((3, 2, 5), jnp.bfloat16)
    assert process.prior(key, (4,)).shape == process.perturb(key, jnp.zeros(4), 0.3).shape == (3, 4)
    assert process.perturb(key, jnp.asarray(0.3), 0.3).shape == (3,)


def test_it_keeps_the_protocols():
    process = processes.cld()
    assert isinstance(process, processes.Process)
    assert isinstance(process, processes.Diffusing)
    assert isinstance(process, processes.Augmented)
    assert not isinstance(processes.vp(), processes.Augmented)
    product = processes.Product({"a": process, "b": processes.vp()})
    x = product.prior(jax.random.key(0), {"a": jnp.zeros(3), "b": jnp.zeros(2)})
    assert jax.tree.map(jnp.shape, x) == {"a": (2, 3), "b": (2,)}


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: processes.linear(-np.ones((2, 3)), EYE), r"A of shape \(2, 3\) and G of shape \(2, 2\), expected two"),
        (lambda: processes.linear(-EYE, np.eye(3)), r"A of shape \(2, 2\) and G of shape \(3, 3\), expected two"),
        (lambda: processes.linear(-1.0, 1.0), r"A of shape \(\) and G"),
        (lambda: processes.linear(-EYE, [[1.0, 0.5], [0.0, 1.0]]), "not symmetric; give the symmetric square root"),
        (lambda: processes.linear(200 * EYE, EYE), "not finite: A is unstable"),
        (lambda: processes.linear(-EYE, EYE, beta=1e5), "A.*B.1. is larger than 32768"),
        (lambda: processes.linear(-EYE, np.diag([1.0, 0.0])), "noise does not reach every copy"),
        (lambda: processes.linear(-EYE, EYE, start=np.eye(3)), r"start has shape \(3, 3\), expected \(2, 2\)"),
        (lambda: processes.linear(-EYE, EYE, start=-EYE), "expected a covariance: symmetric, without negative"),
        (lambda: processes.linear(-EYE, EYE, start=[[1.0, 0.2], [0.0, 1.0]]), "expected a covariance: symmetric"),
        (lambda: processes.linear(-EYE, EYE, beta=-1.0), "beta is -1.0, expected a positive number, or its integral"),
        (lambda: processes.linear(-EYE, EYE, beta=lambda t: 1 + t), "expected an integral of beta, which rises from 0"),
        (lambda: processes.linear(-EYE, EYE, beta=lambda t: -t), "expected an integral of beta"),
        (lambda: processes.cld(mass=-0.25), "mass is -0.25, expected a positive number"),
        (lambda: processes.cld(mass=0.0), "mass is 0.0"),
        (lambda: processes.cld(friction=0.0), "friction is 0.0, expected a positive number"),
        (lambda: processes.cld(velocity=-1.0), "velocity is -1.0, expected a variance of at least 0"),
        (lambda: processes.cld(beta=0.0), "beta is 0.0"),
        (lambda: processes.cld().drift(jnp.zeros((3, 4)), 0.5), r"state has shape \(3, 4\), expected \(2, ...\)"),
        (lambda: processes.cld().score(jnp.zeros((2, 4)), jnp.zeros((2, 4)), 0.5), r"expected \(4,\): the first axis"),
    ],
)
def test_mistakes_in_a_process_or_state(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_a_kernel_beyond_reach_is_no_number_where_it_cannot_be_refused():
    traced = jax.jit(lambda beta: processes.linear(-EYE, EYE, beta=beta).kernel(1.0))
    assert all(jnp.all(jnp.isfinite(part)) for part in traced(jnp.float32(REACH)))
    assert all(jnp.all(jnp.isnan(part)) for part in traced(jnp.float32(1.01 * REACH)))


# Laws that every pytree of functions obeys ----------------------------------------------------------------------------


def quantities(process, t):
    x = jnp.linspace(-1, 1, process.copies).astype(t.dtype)[:, None] * jnp.ones(2, t.dtype)
    x0, key = jnp.full(2, 0.3, t.dtype), jax.random.key(0)
    return (
        *process.kernel(t),
        process.log_snr(t),
        process.drift(x, t),
        process.diffuse(x, t),
        process.score(x, x0, t),
        *process.posterior(x, x0, t, 0.5 * t),
        process.prior(key, x0),
        process.log_prior(x, t),
        process.perturb(key, x0, t),
    )


@pytest.mark.parametrize("name", ["critical"])
def test_a_process_is_a_pytree_that_compiles_once_and_maps(name):
    traces = 0

    @jax.jit
    def alone(process, t):
        nonlocal traces
        traces += 1
        return quantities(process, t)

    mapped = jax.jit(jax.vmap(quantities, (None, 0)))
    process = PROCESSES[name]()
    leaves, form = jax.tree.flatten(process)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    t = jnp.array([0.2, 0.9])
    looped = alone(jax.tree.unflatten(form, leaves), t[0]), alone(PROCESSES[name](), t[1])
    assert traces == 1
    for together, *each in zip(mapped(process, t), *looped, strict=True):
        np.testing.assert_allclose(together, jnp.stack(each), rtol=2e-5, atol=2e-5)
    for together, *each in zip(process.kernel(t), *map(process.kernel, t), strict=True):
        np.testing.assert_allclose(together, jnp.stack(each), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["three"])
def test_dtype_in_is_dtype_out(name, x64):
    process = PROCESSES[name]()
    for dtype in (jnp.float32, jnp.float64, jnp.bfloat16):
        outs = jax.eval_shape(lambda t: quantities(process, t), jnp.asarray(0.5, dtype))
        assert {out.dtype for out in outs} == {jnp.dtype(dtype)}
    x0 = jnp.full(3, 0.3, jnp.bfloat16)
    half = process.score(process.perturb(jax.random.key(0), x0, 0.5), x0, 0.5)
    assert jnp.all(jnp.isfinite(half))


class Rate(eqx.Module):
    """A learned B(t), nothing that jaxdiff knows."""

    rates: jax.Array

    def __call__(self, t):
        a, b = jax.nn.softplus(self.rates).astype(jnp.result_type(t))
        return a * t + b * t**3


@pytest.mark.parametrize(
    "make",
    [
        lambda p: processes.cld(Rate(p[:2]), p[1], velocity=p[2]),
        lambda p: processes.linear(
            jnp.stack([-p, p[::-1] - 4, -3 - p]), jnp.diag(p + 1), beta=p[0], start=jnp.diag(p).at[0, 0].set(0)
        ),
    ],
    ids=["critical, a learned rate", "matrices"],
)
def test_gradients_are_finite_and_match_differences(make, x64):
    @jax.jit
    def probe(p, t):
        process = make(p)
        x = jnp.linspace(-1, 1, process.copies)[:, None]
        parts = (*process.kernel(t), process.score(x, jnp.ones(1), t), process.log_prior(x, t))
        return jnp.concatenate([jnp.ravel(part) for part in parts])

    p, shifts = jnp.array([1.3, 0.7, 0.9]), 1e-6 * np.eye(3)
    slopes = jax.jit(jax.jacrev(probe))
    for t in (0.1, 0.7):
        differences = np.stack([probe(p + e, t) - probe(p - e, t) for e in shifts], 1) / 2e-6
        np.testing.assert_allclose(slopes(p, t), differences, rtol=1e-5, atol=1e-6)
    kernel = jax.jit(jax.jacrev(lambda p: jnp.concatenate([jnp.ravel(part) for part in make(p).kernel(0.0)])))
    assert jnp.all(jnp.isfinite(kernel(p)))
