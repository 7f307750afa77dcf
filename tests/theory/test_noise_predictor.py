"""The optimal noise predictor against NumPy: conditioning of joint Gaussians, quadrature, and its identity with the
score; the excess loss against the losses that training uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from roster import PROCESSES
from scipy import stats
from scipy.special import logsumexp

from jaxdiff import denoisers, losses, oracles, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.losses import weights
from jaxdiff.theory import noise_predictor

pytestmark = pytest.mark.claim(
    "E[eps given x_t] = -sigma score on every process; excess loss is zero for the optimum, and else the "
    "distance from it"
)


STEPS = ((0.3, 0.2), (0.8, 0.1), (0.5, 0.499))  # (t, s)
X = np.array([0.3, -0.6])

MEAN, COV = np.array([0.4, -0.7]), np.array([[0.6, 0.35], [0.35, 0.5]])
COVS = np.array([[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.2]], [[0.1, 0.0], [0.0, 0.05]]])
MIXTURE = np.array([0.5, 0.3, 0.2]), np.array([[-1.0, 0.3], [1.2, 0.8], [0.1, -1.5]]), COVS
ATOMS, SHARES = np.array([[-1.0, 0.4], [0.8, 0.9], [0.3, -1.1], [1.5, 0.0]]), np.array([0.4, 0.3, 0.0, 0.3])
POINTS, POINT_SHARES = np.array([-1.0, 0.2, 1.1, 0.4]), np.array([0.2, 0.4, 0.4, 0.0])
LINE = np.array([0.3, 0.7]), np.array([[-1.0], [1.2]]), np.array([[0.05], [0.2]])

LAWS = {  # as mixtures of Gaussians: weights, means, covariances
    "gaussian": (np.ones(1), MEAN[None], COV[None]),
    "mixture": MIXTURE,
    "atoms": (SHARES, ATOMS, np.zeros((4, 2, 2))),
}


def plane(process):
    """One oracle of each kind, on the plane."""
    return {
        "gaussian": oracles.gaussian(process, MEAN, COV),
        "mixture": oracles.mixture(process, *MIXTURE),
        "atoms": oracles.empirical(process, ATOMS, weights=SHARES, chunk=3),
    }


def drawn(key, n):
    """`n` draws of the mixture, by NumPy."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    which = rng.choice(3, n, p=MIXTURE[0])
    roots = np.linalg.cholesky(COVS)[which]
    return (MIXTURE[1][which] + np.einsum("nij,nj->ni", roots, rng.normal(size=(n, 2)))).astype(np.float32)


def numbers(process, t):
    return [float(s) for s in process.scales(t)]


def conditioned(law, ends, x):
    """(E[eps | x_t = x], E[e | x_t = x]) of a mixture, where x_s = alpha_s x0 + sigma_s eps_s and x_t = a x_s + b e: of
    each component the joint normal of (x0, eps_s, e) is pushed to x_t and solved, in NumPy."""
    (alpha, sigma), (alpha_s, sigma_s) = ends
    a = alpha / alpha_s
    b = np.sqrt(sigma**2 - (a * sigma_s) ** 2)
    eye, dim = np.eye(len(x)), len(x)
    onto = np.hstack([a * alpha_s * eye, a * sigma_s * eye, b * eye])  # x_t of (x0, eps_s, e)
    total_noise, step_noise = np.hstack([0 * eye, a * sigma_s / sigma * eye, b / sigma * eye]), np.eye(3 * dim)[-dim:]
    logs, answers = [], []
    for weight, mean, cov in zip(*law, strict=True):
        joint = np.eye(3 * dim)
        joint[:dim, :dim] = cov
        marginal = onto @ joint @ onto.T
        if weight > 0:
            rest = np.linalg.solve(marginal, x - alpha * mean)
            answers.append([want @ joint @ onto.T @ rest for want in (total_noise, step_noise)])
            logs.append(np.log(weight) + stats.multivariate_normal(alpha * mean, marginal).logpdf(x))
    return np.tensordot(np.exp(np.array(logs) - logsumexp(logs)), np.array(answers), 1)


def integrated(ends, x):
    """The same of atoms on a line, without any theorem about normals: E[eps | x_t = x] by enumeration, E[e | x_t = x] =
    int e n(e) p(x_t = x | e) de / int n(e) p(x_t = x | e) de by the trapezoid rule."""
    (alpha, sigma), (alpha_s, sigma_s) = ends
    a = alpha / alpha_s
    b = np.sqrt(sigma**2 - (a * sigma_s) ** 2)
    e = np.linspace(-9, 9, 60_001)
    logs = np.full((len(POINTS), len(e)), -np.inf)
    for i in np.flatnonzero(POINT_SHARES):
        logs[i] = np.log(POINT_SHARES[i]) - e**2 / 2 - ((x - b * e) / a - alpha_s * POINTS[i]) ** 2 / (2 * sigma_s**2)
    joint = np.exp(logs - logs.max()).sum(0)
    eps = (x - alpha * POINTS) / sigma
    shares = POINT_SHARES * np.exp(-(eps**2 - np.min(eps**2)) / 2)
    return shares @ eps / shares.sum(), joint @ e / joint.sum()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_optimum_is_the_posterior_mean_and_minus_sigma_times_the_score(name, x64):
    """Cumulative and per-step noise by conditioning in NumPy; the score by autodiff of log q."""
    process, x = PROCESSES[name](), jnp.asarray(X)

    @jax.jit
    @jax.vmap
    def ask(t, s):
        sigma, found = process.scales(t)[1], {}
        for kind, oracle in plane(process).items():
            optimum = noise_predictor.cumulative(oracle)(x, t)
            found[kind] = {"optimum": optimum, "of log q": -sigma * jax.grad(oracle.log_prob)(x, t)}
        mixture = plane(process)["mixture"]
        found["mixture"]["of the score"] = -sigma * noise_predictor.score(mixture)(x, t)
        found["mixture"]["step"] = noise_predictor.per_step(mixture)(x, t, s)
        return found

    found = ask(*(jnp.array(times) for times in zip(*STEPS, strict=True)))
    for i, step in enumerate(STEPS):
        for kind, got in found.items():
            optimum, added = conditioned(LAWS[kind], [numbers(process, time) for time in step], X)
            for what, value in got.items():
                exact = added if what == "step" else optimum
                assert value.dtype == jnp.float64
                np.testing.assert_allclose(value[i], exact, rtol=1e-9, atol=1e-11, err_msg=f"{kind} {step} {what}")


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_atoms_on_a_line_by_quadrature(name, x64):
    process, x = PROCESSES[name](), 0.25
    oracle = oracles.empirical(process, POINTS, weights=POINT_SHARES)
    optimum, step = noise_predictor.cumulative(oracle), noise_predictor.per_step(oracle)
    ask = jax.jit(jax.vmap(lambda t, s: (optimum(jnp.asarray(x), t), step(jnp.asarray(x), t, s))))
    found = ask(*(jnp.array(times) for times in zip(*STEPS, strict=True)))
    for i, (t, s) in enumerate(STEPS):
        exact = integrated([numbers(process, t), numbers(process, s)], x)
        np.testing.assert_allclose([value[i] for value in found], exact, rtol=1e-9, err_msg=f"{t} from {s}")


def test_mmse_is_that_of_the_eigenvalues_or_the_integral(key):
    """alpha^2 l / (alpha^2 l + sigma^2) an axis; on a line 1 - E[eps*^2] by quadrature, within 5 standard errors."""
    process, ts = processes.vp(), [0.02, 0.3, 0.7]
    exact = noise_predictor.mmse(key, oracles.gaussian(process, MEAN, COV), ts)
    estimated = noise_predictor.mmse(key, oracles.mixture(process, *LINE), ts, draws=3000)
    values, grid = np.linalg.eigvalsh(COV), np.linspace(-8, 8, 16_001)
    for i, t in enumerate(ts):
        alpha, sigma = numbers(process, t)
        spread = alpha**2 * values
        np.testing.assert_allclose(exact.value[i], np.mean(spread / (spread + sigma**2)), rtol=1e-4)
        density, slope = np.zeros_like(grid), np.zeros_like(grid)
        for weight, mean, variance in zip(LINE[0], LINE[1][:, 0], LINE[2][:, 0], strict=True):
            own = stats.norm(alpha * mean, np.sqrt(alpha**2 * variance + sigma**2)).pdf(grid)
            density += weight * own
            slope -= weight * own * (grid - alpha * mean) / (alpha**2 * variance + sigma**2)
        least = 1 - sigma**2 * np.sum(slope**2 / np.maximum(density, 1e-300)) * (grid[1] - grid[0])
        assert abs(estimated.value[i] - least) < 5 * estimated.stderr[i], t
    assert np.all(exact.stderr == 0)
    np.testing.assert_allclose(exact.mean, exact.value.mean(), rtol=1e-6)


@pytest.fixture(scope="module")
def network():
    """Two layers of random weights that predict the noise: (params, x, c_noise, cond) -> y."""
    keys = jax.random.split(jax.random.key(5), 2)
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, ((3, 16), (16, 2)), strict=True)]
    return params, _apply


def _apply(params, x, c_noise, cond):
    hidden = jnp.concatenate([x, c_noise[:, None]], 1) @ params[0]
    return 0.3 * jnp.tanh(hidden) @ params[1] + (0 if cond is None else cond[:, None].astype(x.dtype))


TS = (0.02, 0.1, 0.4, 0.8)


def measure(key, network, law, x0, **options):
    params, apply = network
    process = law.process
    make = denoisers.from_network(apply, parameterizations.noise, process).bind(params)
    return noise_predictor.excess(key, process, make, noise_predictor.always(law.denoise), x0, TS, **options)


def test_the_exact_denoiser_has_no_excess(key):
    """Not to rounding: to the bit, at every time, class by class."""
    labels = np.arange(20) % 3
    data = jax.random.normal(key, (20, 2))
    classes = oracles.empirical(processes.vp(), data, labels=labels, chunk=16)
    make = classes.denoiser
    no_excess(noise_predictor.excess(key, classes.process, make, make, data, TS, cond=labels, chunk=9))


def no_excess(found):
    for curve in (found.excess, found.distance, found.gap):
        assert np.all(curve.value == 0)
        assert np.all(curve.stderr == 0)
    np.testing.assert_array_equal(found.loss.value, found.irreducible.value)
    assert np.all(found.loss.value > 0)


def test_the_excess_of_a_network_is_its_distance_from_the_optimum(key, network):
    """In the mean over the law, and so within 5 standard errors of the paired difference."""
    law = oracles.mixture(processes.vp(), *MIXTURE)
    found = measure(key, network, law, drawn(key, 4000), draws=2)
    assert np.all(abs(found.gap.value) < 5 * found.gap.stderr)
    assert abs(found.gap.mean) < 5 * found.gap.mean_stderr
    assert np.all(found.distance.value > 20 * found.gap.stderr)  # there is something to find
    np.testing.assert_allclose(found.gap.value, found.excess.value - found.distance.value, atol=1e-5)
    np.testing.assert_allclose(found.excess.value, found.loss.value - found.irreducible.value, atol=1e-5)


TRACES = []


def wrong(law, scale, shift):
    return noise_predictor.always(Partial(_wrong, law, jnp.float32(scale), jnp.float32(shift)))


def _wrong(law, scale, shift, x, t):
    TRACES.append(1)
    return scale * law.denoise(x, t) + shift


def test_a_shift_of_the_belief_is_its_own_square(key):
    """D* + c: distance alpha^2 / sigma^2 c^2 without error, and the standard error of the excess is that of 2 c alpha /
    sigma (eps* - eps), over the examples. Other numbers and another law compile nothing."""
    process, shift = processes.vp(), 0.25
    law, options = oracles.gaussian(process, MEAN, COV), {"chunk": 100}
    x0, best = law.sample(key, 3000), noise_predictor.always(law.denoise)
    found = noise_predictor.excess(key, process, wrong(law, 1.0, shift), best, x0, TS, **options)
    traced = len(TRACES)
    no_excess(noise_predictor.excess(key, process, wrong(law, 1.0, 0.0), best, x0[:100], TS, **options))
    other = oracles.gaussian(process, -MEAN, COV)
    noise_predictor.excess(key, process, wrong(other, 1.1, 0.0), best, x0[:150], np.array(TS) / 2, **options)
    assert len(TRACES) == traced
    ratio = np.array([np.divide(*numbers(process, t)) for t in TS])
    np.testing.assert_allclose(found.distance.value, (ratio * shift) ** 2, rtol=1e-3)
    least = noise_predictor.mmse(key, law, TS)
    assert np.all(abs(found.excess.value - (ratio * shift) ** 2) < 5 * found.excess.stderr)
    assert np.all(abs(found.irreducible.value - least.value) < 5 * found.irreducible.stderr)
    # Var of the mean over both axes of alpha / sigma (x0 - D*), whose covariance is that of x0 given x_t.
    for i, t in enumerate(TS):
        alpha, sigma = numbers(process, t)
        spread = COV - alpha**2 * COV @ np.linalg.solve(alpha**2 * COV + sigma**2 * np.eye(2), COV)
        exact = 2 * shift * ratio[i] ** 2 * np.sqrt(np.ones(2) @ spread @ np.ones(2) / 4 / 3000)
        np.testing.assert_allclose(found.gap.stderr[i], exact, rtol=0.1)  # 5 sqrt(1 / 6000)


def test_the_loss_is_that_of_training(key, network):
    """Of a row with both a and b, and with a weight: what `losses.matching` gives for the same noise, per dimension."""
    process, row, weight = processes.vp(), parameterizations.velocity, weights.edm(0.3)
    law = oracles.mixture(process, *MIXTURE)
    x0, cond = drawn(key, 6), jnp.linspace(-1, 1, 6)
    found = measure(key, network, law, x0, cond=cond, draws=2, row=row, weight=weight, noise=_fixed_noise, chunk=4)
    loss = losses.matching(process, row, weight)
    make = denoisers.from_network(_apply, parameterizations.noise, process).bind(network[0])

    @jax.jit
    def each(t):
        return jax.vmap(lambda x0, cond: loss(key, make(cond), x0, t, noise=_fixed_noise) / 2)(x0, cond)

    values = np.stack([each(t) for t in TS], 1)
    np.testing.assert_allclose(found.loss.value, values.mean(0), rtol=2e-4)
    np.testing.assert_allclose(found.loss.stderr, values.std(0, ddof=1) / np.sqrt(6), rtol=2e-3)
    np.testing.assert_allclose(found.loss.mean, values.mean(), rtol=2e-4)
    np.testing.assert_allclose(found.loss.mean_stderr, values.mean(1).std(ddof=1) / np.sqrt(6), rtol=2e-3)


def _fixed_noise(key, shape, dtype):
    return jnp.array([0.7, -1.2], dtype)


def test_the_training_set_favours_its_own_optimum_and_held_out_data_do_not(key):
    """The true law's denoiser pays for not knowing the examples, and gains on those that are new."""
    process = processes.vp()
    law = oracles.mixture(process, *MIXTURE)
    train, held_out = drawn(key, 60), drawn(jax.random.fold_in(key, 1), 600)
    memory = oracles.empirical(process, train)
    seen, new = (
        noise_predictor.excess(
            key, process, noise_predictor.always(law.denoise), memory.denoiser, x0, [0.01, 0.02], draws=8, chunk=60
        )
        for x0 in (train, held_out)
    )
    assert np.all(seen.excess.value > 5 * seen.excess.stderr)
    assert np.all(new.excess.value < -5 * new.excess.stderr)
    np.testing.assert_array_less(abs(seen.gap.value), 5 * seen.gap.stderr)  # on its own law


def test_chunks_change_nothing(key):
    law, told = oracles.gaussian(processes.vp(), MEAN, COV), []
    x0, best = law.sample(key, 7), noise_predictor.always(law.denoise)
    one, other = (
        noise_predictor.excess(
            key, law.process, wrong(law, 1.1, 0.2), best, x0, TS, chunk=c, progress=lambda *a: told.append(a)
        )
        for c in (3, 7)
    )
    for first, second in zip(one[1:], other[1:], strict=True):
        np.testing.assert_allclose(first.value, second.value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(first.stderr, second.stderr, rtol=1e-4, atol=1e-6)
    assert told == [(3, 7), (6, 7), (7, 7), (7, 7)]
    assert one.ts.tolist() == pytest.approx(TS)


def test_noise_is_known_where_there_is_no_signal(key):
    """alpha = 0: x_t = sigma eps, so that no belief, not even one that is infinite there, has an error."""
    process = processes.flow()
    law = oracles.gaussian(process, MEAN, COV)
    broken = noise_predictor.always(Partial(_over, process))
    best = noise_predictor.always(law.denoise)
    found = noise_predictor.excess(key, process, broken, best, law.sample(key, 4), [1.0])
    assert [float(curve.value[0]) for curve in found[1:]] == [0.0] * 5
    assert noise_predictor.mmse(key, law, [1.0]).value == 0
    np.testing.assert_allclose(noise_predictor.cumulative(law)(jnp.asarray(X), 1.0), X, rtol=1e-6)
    # The step from s adds all that is not known of eps_s: nothing of x_s is left at t = 1.
    np.testing.assert_allclose(noise_predictor.per_step(law)(jnp.asarray(X), 1.0, 0.5), X, rtol=1e-6)


def _over(process, x, t):
    return x / process.scales(t)[0]


def test_mistakes_in_questions(key):
    process = processes.vp()
    law = oracles.mixture(process, *MIXTURE)
    make, x0 = noise_predictor.always(law.denoise), np.zeros((4, 2), np.float32)

    def ask(x0=x0, ts=TS, make_denoise=make, make_optimal=make, process=process, **options):
        return noise_predictor.excess(key, process, make_denoise, make_optimal, x0, ts, **options)

    flat = noise_predictor.always(Partial(_flat))
    memory = oracles.empirical(process, np.zeros((3, 2)), labels=[0, 1, 1])
    for words, call in {
        r"x0 of shape \(1, 2\), expected \(n, \.\.\.\), n >= 2": lambda: ask(x0[:1]),
        r"x0 of shape \(\), expected": lambda: ask(0.0),
        "examples that are not all finite": lambda: ask(np.full((4, 2), np.nan, np.float32)),
        "the denoiser cannot take an example of shape": lambda: ask(np.zeros((4, 3), np.float32)),
        r"the denoiser returned shape \(\) for an example of shape \(2,\)": lambda: ask(make_denoise=flat),
        r"the optimal denoiser returned shape \(\)": lambda: ask(make_optimal=flat),
        r"the denoiser is not made by make\(cond\).*always\(denoise\)": lambda: ask(make_denoise=law.denoise),
        r"x of shape \(3,\) for examples of shape \(2,\)": lambda: ask(
            np.zeros((4, 3), np.float32),
            make_denoise=noise_predictor.always(Partial(_same)),
            make_optimal=memory.denoiser,
        ),
        r"each in \(0, 1\]: at sigma = 0": lambda: ask(ts=[0.0, 0.5]),
        r"each in \(0, 1\]": lambda: ask(ts=[0.5, 1.5]),
        r"are \[nan\], expected each": lambda: ask(ts=[np.nan]),
        r"the times have shape \(\)": lambda: ask(ts=0.5),
        r"the times have shape \(0,\)": lambda: ask(ts=[]),
        "draws=0 and chunk=None": lambda: ask(draws=0),
        "draws=1 and chunk=0": lambda: ask(chunk=0),
        r"cond has shape \(3,\), expected \(4, \.\.\.\)": lambda: ask(cond=np.zeros(3)),
        "mmse got draws=1": lambda: noise_predictor.mmse(key, law, TS, draws=1),
        r"each in \(0, 1\] ": lambda: noise_predictor.mmse(key, oracles.gaussian(process, MEAN, COV), [0.0]),
        "got a LinearOracle, expected an oracle that knows": lambda: noise_predictor.cumulative(
            oracles.linear(processes.cld(), MEAN, COV)
        ),
        "got a function, expected an oracle": lambda: noise_predictor.mmse(key, _flat, TS),
        "s that is not below t": lambda: noise_predictor.per_step(law)(X, 0.2, 0.3),
    }.items():
        with pytest.raises(InputError, match=words.strip()):
            call()


def _flat(x, t):
    return x.sum()


def _same(x, t):
    return x
