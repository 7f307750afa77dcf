"""The exact answers are exact: against quadrature, joint conditioning in NumPy, SciPy's densities, Tweedie's formula,
the probability flow's differential equation, and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import PROCESSES
from scipy import stats
from scipy.special import logsumexp

from jaxdiff import denoisers, oracles, processes
from jaxdiff.errors import InputError

every_process = pytest.mark.parametrize("name", PROCESSES)
TIMES = (0.05, 0.3, 0.8)

# Two dimensions, mean not zero, covariance not diagonal.
MEAN = np.array([0.4, -0.7])
COV = np.array([[0.6, 0.35], [0.35, 0.5]])
COVS = np.array([[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.2]], [[0.1, 0.0], [0.0, 0.05]]])
WEIGHTS, MEANS = np.array([0.5, 0.3, 0.2]), np.array([[-1.0, 0.3], [1.2, 0.8], [0.1, -1.5]])
ATOMS = np.array([[-1.0, 0.4], [0.8, 0.9], [0.3, -1.1], [1.5, 0.0]])

# The one-dimensional mixture of the bound's published constants.
LINE = {"weights": [0.3, 0.7], "means": [-1.0, 1.2], "covs": [0.05, 0.2]}


def plane(process):
    """One oracle of each kind, on the plane."""
    return {
        "gaussian": oracles.gaussian(process, MEAN, COV),
        "mixture": oracles.mixture(process, WEIGHTS, MEANS, COVS),
        "empirical": oracles.empirical(process, ATOMS),
    }


def scales(process, t):
    return [float(s) for s in process.scales(t)]


def over_times(quantities):
    return jax.jit(jax.vmap(quantities))(jnp.array(TIMES))


def condition(mean, cov, alpha, sigma, x):
    """E[x0 | x_t = x] and log p(x_t = x) from the joint normal of (x0, x_t), assembled and solved in NumPy."""
    dim = len(mean)
    mix = np.block([[np.eye(dim), np.zeros((dim, dim))], [alpha * np.eye(dim), sigma * np.eye(dim)]])
    joint = mix @ np.block([[cov, np.zeros((dim, dim))], [np.zeros((dim, dim)), np.eye(dim)]]) @ mix.T
    marginal, cross = joint[dim:, dim:], joint[:dim, dim:]
    belief = mean + cross @ np.linalg.solve(marginal, x - alpha * mean)
    return belief, stats.multivariate_normal(alpha * mean, marginal).logpdf(x)


@every_process
def test_beliefs_and_densities_are_those_of_joint_conditioning(name, x64):
    process, x = PROCESSES[name](), np.array([0.3, -0.6])
    parts = {
        "gaussian": [(1.0, MEAN, COV)],
        "mixture": list(zip(WEIGHTS, MEANS, COVS, strict=True)),
        "empirical": [(0.25, atom, np.zeros((2, 2))) for atom in ATOMS],
    }
    for kind, oracle in plane(process).items():
        got, log = over_times(lambda t, o=oracle: (o.denoise(jnp.asarray(x), t), o.log_prob(jnp.asarray(x), t)))
        for i, t in enumerate(TIMES):
            alpha, sigma = scales(process, t)
            weights = np.log([w for w, *_ in parts[kind]])
            beliefs, logs = zip(*(condition(m, c, alpha, sigma, x) for _, m, c in parts[kind]), strict=True)
            evidence = logsumexp(weights + logs)
            belief = np.exp(weights + logs - evidence) @ np.array(beliefs)
            np.testing.assert_allclose(got[i], belief, rtol=1e-9, atol=1e-11, err_msg=kind)
            np.testing.assert_allclose(log[i], evidence, rtol=1e-9, err_msg=kind)


@every_process
def test_noise_is_minus_sigma_times_the_gradient_of_the_log_density(name, x64):
    process, x = PROCESSES[name](), jnp.array([0.3, -0.6])
    for kind, oracle in plane(process).items():
        noise, exact = over_times(
            lambda t, o=oracle: (o.noise(x, t), -process.scales(t)[1] * jax.grad(o.log_prob)(x, t))
        )
        np.testing.assert_allclose(noise, exact, rtol=1e-9, atol=1e-11, err_msg=kind)


@pytest.mark.parametrize("name", ["vp", "ve", "flow", "subvp"])
def test_views_of_a_denoiser_are_score_noise_and_velocity(name, x64):
    """Score = grad log p, noise = the oracle's own, velocity = d/ds of where the flow goes."""
    process, x = PROCESSES[name](), jnp.array([0.3, -0.6])
    for kind, oracle in plane(process).items():
        views = denoisers.score(process, oracle.denoise), denoisers.noise(process, oracle.denoise)
        score, noise, exact_score, exact_noise = over_times(
            lambda t, o=oracle, v=views: (v[0](x, t), v[1](x, t), jax.grad(o.log_prob)(x, t), o.noise(x, t))
        )
        np.testing.assert_allclose(score, exact_score, rtol=1e-8, atol=1e-10, err_msg=kind)
        np.testing.assert_allclose(noise, exact_noise, rtol=1e-8, atol=1e-10, err_msg=kind)
    oracle = plane(process)["gaussian"]
    velocity = denoisers.velocity(process, oracle.denoise)
    got, path = over_times(lambda t: (velocity(x, t), jax.jacfwd(lambda s: oracle.flow(x, t, s))(t)))
    np.testing.assert_allclose(got, path, rtol=1e-8)


def test_denoise_is_the_posterior_mean_by_quadrature(x64):
    """On the line: integrals of x0 p(x | x0) p(x0) and p(x | x0) p(x0) by the trapezoid rule, which converges
    exponentially on smooth peaks."""
    grid = np.linspace(-6, 6, 6001)
    laws = {
        "gaussian": (lambda p: oracles.gaussian(p, [0.3], [0.25]), stats.norm(0.3, 0.5).pdf(grid)),
        "mixture": (
            lambda p: oracles.mixture(p, LINE["weights"], [[-1.0], [1.2]], [[0.05], [0.2]]),
            0.3 * stats.norm(-1, 0.05**0.5).pdf(grid) + 0.7 * stats.norm(1.2, 0.2**0.5).pdf(grid),
        ),
    }
    for make, prior in laws.values():
        for name in ("vp", "ve", "flow"):
            process = PROCESSES[name]()
            oracle, t, x = make(process), 0.4, 0.3
            alpha, sigma = scales(process, t)
            joint = prior * stats.norm(alpha * grid, sigma).pdf(x)
            belief, log = jax.jit(lambda x, t, o=oracle: (o.denoise(x, t), o.log_prob(x, t)))(jnp.array([x]), t)
            np.testing.assert_allclose(belief, [np.sum(grid * joint) / np.sum(joint)], rtol=1e-9)
            np.testing.assert_allclose(log, np.log(np.sum(joint) * (grid[1] - grid[0])), rtol=1e-9)


def test_densities_integrate_to_one(x64):
    """Also at t = 0, where the data's own density stands, and for a law of shape () or (1,)."""
    grid = jnp.linspace(-12, 12, 8001)[:, None]
    process = processes.vp()
    for oracle, times in (
        (oracles.gaussian(process, [0.3], [0.25]), (0.0, 0.4, 1.0)),
        (oracles.mixture(process, LINE["weights"], [[-1.0], [1.2]], [[0.05], [0.2]]), (0.0, 0.4, 1.0)),
        (oracles.empirical(process, [[-1.0], [0.5], [0.7]]), (0.1, 0.4, 1.0)),
    ):
        over_grid = jax.vmap(oracle.log_prob, (0, None))
        density = np.exp(jax.jit(jax.vmap(lambda t, f=over_grid: f(grid, t)))(jnp.array(times)))
        np.testing.assert_allclose(np.sum(density, 1) * 24 / 8000, 1, rtol=1e-9)


def test_mixture_log_density_has_its_published_constants(x64):
    """log q at eps = 1e-3 on VP, of .3 N(-1, .05) + .7 N(1.2, .2)."""
    oracle = oracles.mixture(processes.vp(), **LINE)
    points = [-1.0, -0.2, 0.5, 1.2, 2.5]
    exact = [-0.626082, -5.191753, -1.695345, -0.471114, -4.694686]
    np.testing.assert_allclose(jax.vmap(lambda x: oracle.log_prob(x, 1e-3))(jnp.array(points)), exact, atol=1e-5)


@every_process
def test_flow_carries_the_law_at_t_to_the_law_at_s(name, x64):
    """An affine map: exact on the mean, and on the covariance through its matrix. It composes, and is its own way
    back."""
    process = PROCESSES[name]()
    oracle, x = oracles.gaussian(process, MEAN, COV), jnp.array([0.3, -0.6])
    for t, s in ((1.0, 0.0), (0.9, 0.2), (0.0, 1.0)):
        (alpha, sigma), (alpha_s, sigma_s) = scales(process, t), scales(process, s)
        matrix = np.asarray(jax.jacfwd(lambda x, t=t, s=s: oracle.flow(x, t, s))(x))
        pushed = matrix @ (alpha**2 * COV + sigma**2 * np.eye(2)) @ matrix.T
        np.testing.assert_allclose(pushed, alpha_s**2 * COV + sigma_s**2 * np.eye(2), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(oracle.flow(jnp.asarray(alpha * MEAN), t, s), alpha_s * MEAN, rtol=1e-9, atol=1e-12)
    there = oracle.flow(oracle.flow(x, 0.9, 0.5), 0.5, 0.1)
    np.testing.assert_allclose(there, oracle.flow(x, 0.9, 0.1), rtol=1e-9)
    np.testing.assert_allclose(oracle.flow(oracle.flow(x, 0.9, 0.1), 0.1, 0.9), x, rtol=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "empirical"])
def test_samples_have_the_laws_moments(kind, key):
    n = 20_000
    x = np.asarray(plane(processes.vp())[kind].sample(key, n), np.float64)
    mean, second = {
        "gaussian": (MEAN, COV + np.outer(MEAN, MEAN)),
        "mixture": (WEIGHTS @ MEANS, np.einsum("k,kij->ij", WEIGHTS, COVS + MEANS[:, :, None] * MEANS[:, None])),
        "empirical": (ATOMS.mean(0), ATOMS.T @ ATOMS / 4),
    }[kind]
    products = x[:, :, None] * x[:, None]
    assert np.all(abs(x.mean(0) - mean) < 5 * x.std(0) / np.sqrt(n))
    assert np.all(abs(products.mean(0) - second) < 5 * products.std(0) / np.sqrt(n))


def test_mmse_is_the_mean_squared_error_of_the_belief(key):
    n, process = 20_000, processes.cosine()
    oracle = oracles.gaussian(process, MEAN, COV)
    x0 = oracle.sample(key, n)
    for i, t in enumerate((0.1, 0.5, 1.0)):
        x = process.perturb(jax.random.fold_in(key, i), x0, t)
        error = np.sum((np.asarray(x0) - jax.vmap(lambda x, t=t: oracle.denoise(x, t))(x)) ** 2, axis=1)
        assert abs(error.mean() - oracle.mmse(t)) < 5 * error.std() / np.sqrt(n), t
    np.testing.assert_allclose(oracle.mmse(1.0), np.trace(COV), rtol=1e-6)  # noise alone teaches nothing
    assert oracle.mmse(0.0) == 0


def test_atoms_without_noise_give_the_nearest_atom():
    for name in ("vp", "edm", "flow"):
        oracle = oracles.empirical(PROCESSES[name](), ATOMS)
        np.testing.assert_allclose(oracle.denoise(jnp.array([0.7, 1.3]), 0.0), ATOMS[1], rtol=1e-6)
        np.testing.assert_allclose(oracle.denoise(jnp.asarray(ATOMS[2], jnp.float32), 0.0), ATOMS[2], rtol=1e-6)
    two = oracles.empirical(processes.flow(), [[0.0], [1.0]])  # halfway between two, both
    np.testing.assert_allclose(two.denoise(jnp.array([0.5]), 0.0), [0.5])


def test_data_on_a_line_stay_on_it_without_noise():
    """A singular covariance at sigma = 0: finite, and the projection on the line."""
    along = np.array([0.6, 0.8])
    oracle = oracles.gaussian(processes.flow(), MEAN, np.outer(along, along))
    x = jnp.array([1.0, 1.0])
    for t in (0.0, 1e-6):
        belief = np.asarray(oracle.denoise(x, t), np.float64)
        np.testing.assert_allclose(belief, MEAN + along * (along @ (np.ones(2) - MEAN)), rtol=1e-4)
    fixed = oracles.gaussian(processes.flow(), MEAN, 0.0)  # a point, known before it is seen
    np.testing.assert_allclose(fixed.denoise(x, 0.0), MEAN, rtol=1e-6)
    assert fixed.mmse(0.5) == 0


@every_process
def test_beliefs_are_finite_at_both_ends_and_the_mean_where_nothing_is_seen(name):
    process = PROCESSES[name]()
    for kind, oracle in plane(process).items():
        for t in (0.0, 1.0):
            assert jnp.all(jnp.isfinite(oracle.denoise(jnp.array([0.3, -0.6]), t))), (kind, t)
        if process.scales(1.0)[0] == 0:
            mean = {"gaussian": MEAN, "mixture": WEIGHTS @ MEANS, "empirical": ATOMS.mean(0)}[kind]
            np.testing.assert_allclose(oracle.denoise(jnp.array([0.3, -0.6]), 1.0), mean, rtol=1e-5)


def test_states_of_any_shape_are_one_example(x64):
    """A (2, 3) image with a covariance (6, 6), variances (2, 3) or one number; atoms and components of that shape."""
    rng = np.random.default_rng(1)
    mean, variances, process = rng.normal(size=(2, 3)), rng.uniform(0.1, 1, (2, 3)), processes.vp()
    x = jnp.asarray(rng.normal(size=(2, 3)))
    full = oracles.gaussian(process, mean, np.diag(variances.ravel()))
    diagonal = oracles.gaussian(process, mean, variances)
    for one, two in zip(
        *(jax.jit(lambda o: (o.denoise(x, 0.4), o.log_prob(x, 0.4), o.flow(x, 0.4, 0.1)))(o) for o in (full, diagonal)),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    one = oracles.mixture(process, [1.0], mean[None], variances[None])
    np.testing.assert_allclose(one.denoise(x, 0.4), diagonal.denoise(x, 0.4), rtol=1e-12)
    assert full.sample(jax.random.key(0), 5).shape == (5, 2, 3)
    atoms = oracles.empirical(process, np.stack([mean, -mean]))
    assert atoms.denoise(x, 0.4).shape == (2, 3)
    assert oracles.gaussian(process, 0.3, 0.25).denoise(jnp.asarray(1.0), 0.4).shape == ()


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "empirical"])
def test_an_oracle_is_a_pytree_that_compiles_once_maps_and_keeps_the_dtype(kind, x64):
    traces = 0

    @jax.jit
    def believe(oracle, x, t):
        nonlocal traces
        traces += 1
        return jax.vmap(lambda x: oracle.denoise(x, t))(x)

    for dtype in (jnp.float64, jnp.bfloat16, jnp.float32):
        x, traces = jnp.asarray(ATOMS, dtype), 0
        for _ in range(2):
            oracle = plane(processes.vp())[kind]
            mapped = believe(jax.tree.unflatten(*reversed(jax.tree.flatten(oracle))), x, jnp.asarray(0.5, dtype))
        assert (traces, mapped.dtype) == (1, dtype)
        others = [jax.eval_shape(f, x[0], 0.5) for f in (oracle.denoise, oracle.noise, oracle.log_prob)]
        assert {other.dtype for other in others} == {jnp.dtype(dtype)}
    np.testing.assert_allclose(jax.jit(lambda x: oracle.denoise(x, 0.5))(x[0]), mapped[0], rtol=1e-5)


def test_gradients_pass_through_an_oracle_to_its_law(x64):
    def log_likelihood(law):
        mean, variance = law
        return oracles.gaussian(processes.vp(), mean, variance).log_prob(jnp.array([0.3, -0.6]), 0.2)

    law = jnp.asarray(MEAN), jnp.array([0.5, 0.7])
    slope = jax.grad(log_likelihood)(law)
    for i in range(2):
        for j, direction in enumerate(np.eye(2) * 1e-6):
            up, down = (tuple(v + k * direction if i == n else v for n, v in enumerate(law)) for k in (1, -1))
            np.testing.assert_allclose(
                slope[i][j], (log_likelihood(up) - log_likelihood(down)) / 2e-6, rtol=1e-6, atol=1e-9
            )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: oracles.gaussian(p, MEAN, np.eye(3)), r"covariance has shape \(3, 3\) for a mean of shape \(2,\)"),
        (lambda p: oracles.mixture(p, [0.5, 0.5], MEANS, COVS), "one of each for every component"),
        (lambda p: oracles.mixture(p, [0.5, 0.3, 0.3], MEANS, COVS), "sum to 1"),
        (lambda p: oracles.mixture(p, [1.5, -0.7, 0.2], MEANS, COVS), "non-negative"),
        (lambda p: oracles.empirical(p, np.zeros((0, 2))), "at least one example"),
    ],
)
def test_mistakes_in_a_law(make, words):
    with pytest.raises(InputError, match=words):
        make(processes.vp())
