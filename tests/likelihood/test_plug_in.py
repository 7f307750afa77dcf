"""Every member of the plug-in family keeps its bound: the KL of the model is computed from the linear equations of its
mean and variance, J and the bounds by the library, both against the published table. The KL itself need not be least at
lam = 0, and is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.integrate import solve_ivp

from jaxdiff import grids, oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.likelihood.elbo import elbo
from jaxdiff.likelihood.plug_in import plug_in, plug_in_bound, plug_in_elbo, score_gap

pytestmark = pytest.mark.claim(
    "the plug-in family: KL under its bound for every l, the published tables (drawn in "
    "notebooks/02_two_ends_of_one_family.ipynb)"
)


MEAN, VARIANCE, T0 = 0.7, 0.25, 1e-3
LAMS = np.array([-1.0, 0.0, 0.5, 0.9, 1.0])
# (k, c) of the score -(x - m - c) / (k v): J, the KL and the bound of each lam. The second's bounds follow from J.
TABLE = {
    (1.2, 0.0): (0.15883, [0.01884, 0.03604, 0.08941, 0.36364, 0.52735], [0.17870, 0.15884, 0.17870, 0.48047, np.inf]),
    (0.8, 0.1): (0.47014, [0.06241, 0.09299, 0.16749, 0.94031, 8.51425], None),
}


def _vp(t):
    """(alpha, variance, f, g^2) and the mean and variance of x_t, typed from Song et al. (2021)."""
    b, beta = 0.1 * t + 9.95 * t**2, 0.1 + 19.9 * t
    alpha, noise = np.exp(-b / 2), -np.expm1(-b)
    return -beta / 2, beta, alpha * MEAN, alpha**2 * VARIANCE + noise


def divergence(mean, variance, other_mean, other):
    """KL(N(mean, variance) | N(other_mean, other))."""
    return 0.5 * ((variance + (mean - other_mean) ** 2) / other - 1 + np.log(other / variance))


def model_kl(k, c, lam):
    """KL(q_t0 | p_lam): backwards, dx = ((1 - lam / 2) g^2 s - f x) dt + sqrt(1 - lam) g dW from N(0, 1), s linear."""

    def slope(tau, state):
        f, g2, m, v = _vp(1 - tau)
        pull = (1 - lam / 2) * g2 / (k * v)
        mean, variance = state
        return [-pull * (mean - m - c) - f * mean, 2 * (-pull - f) * variance + (1 - lam) * g2]

    solution = solve_ivp(slope, (0, 1 - T0), [0.0, 1.0], method="DOP853", rtol=1e-11, atol=1e-13)
    return divergence(*_vp(T0)[2:], *solution.y[:, -1])


def _skewed(k, c, x, t):
    """The belief that makes the score -(x - m - c) / (k v)."""
    alpha, sigma = processes.vp().scales(t)
    v = alpha**2 * VARIANCE + sigma**2
    return (x - sigma**2 * (x - alpha * MEAN - c) / (k * v)) / alpha


def _at(value, *_):
    return value


def gap(denoise, process, oracle, **options):
    """J by quadrature: data and noise at three nodes of Hermite each (all is quadratic), times at Legendre's."""
    at, weight = np.polynomial.hermite_e.hermegauss(3)

    def one(u, eps):
        x0 = MEAN + jnp.sqrt(VARIANCE) * u
        return score_gap(
            jax.random.key(0), process, denoise, oracle.denoise, Partial(_at, x0),
            times=grids.quadrature_times, n_times=64, draws=1, noise=Partial(_at, eps), **options,
        ).value  # fmt: skip

    values = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(jnp.asarray(at), jnp.asarray(at))
    weight = weight / weight.sum()
    return weight @ np.asarray(values) @ weight


@pytest.mark.parametrize(("k", "c"), TABLE)
def test_the_published_table(k, c, x64):
    process = processes.vp()
    j = gap(Partial(_skewed, k, c), process, oracles.gaussian(process, jnp.asarray(MEAN), VARIANCE), t0=T0)
    known_j, known_kl, known_bound = TABLE[k, c]
    np.testing.assert_allclose(j, known_j, atol=6e-6)
    kl = np.array([model_kl(k, c, lam) for lam in LAMS])
    np.testing.assert_allclose(kl, known_kl, atol=6e-6)
    prior = divergence(*_vp(1.0)[2:], 0, 1)
    np.testing.assert_allclose(prior, 1.06e-5, atol=6e-8)
    bounds = np.asarray(plug_in_bound(prior, j, LAMS))
    if known_bound is not None:
        np.testing.assert_allclose(bounds, known_bound, atol=6e-6)
    print(f"k={k}, c={c}: J {j:.5f}")
    for lam, value, bound in zip(LAMS, kl, bounds, strict=True):
        print(f"  lam {lam:4}: KL {value:.5f} <= {bound:.5f}")
    assert np.all(kl <= bounds)
    # Least at lam = 0, over a fine range of members; and (1 - lam / 2)^2 / (1 - lam) J above the prior's part.
    fine = np.linspace(-3, 0.99, 400)
    bounds = np.asarray(plug_in_bound(prior, j, fine))
    assert abs(fine[bounds.argmin()]) < 0.006
    np.testing.assert_allclose(bounds, prior + (1 - fine / 2) ** 2 / (1 - fine) * j, rtol=1e-12)


def test_the_mean_bound_of_a_member_is_its_girsanov_integral(x64):
    """E[log p_1(x_1)] - integral of E_q[|a|^2 / 2 + div mu], a = ((1 - lam / 2) g s - (lam / 2) g grad log q) /
    sqrt(1 - lam), all Gaussian and typed here, for k = 1.2, c = .05; at lam = 0 it is the published mean bound."""
    k, c = 1.2, 0.05
    process = processes.vp()
    j = gap(Partial(_skewed, k, c), process, oracles.gaussian(process, jnp.asarray(MEAN), VARIANCE), t0=T0)
    u, w = np.polynomial.legendre.leggauss(200)
    # In log t, as everything moves near t0.
    t = np.exp(np.log(T0) * (1 - (u + 1) / 2))
    w = w / 2 * -np.log(T0) * t
    f, g2, _, v = _vp(t)
    _, _, m1, v1 = _vp(1.0)
    for lam in (-1.0, 0.0, 0.5, 0.9):
        # E over x - m ~ N(0, v): s = -(x - m - c) / (k v), grad log q = -(x - m) / v.
        linear, constant = -(1 - lam / 2) / (k * v) + (lam / 2) / v, (1 - lam / 2) * c / (k * v)
        square = g2 * (linear**2 * v + constant**2) / (1 - lam)
        inside = square / 2 - (1 - lam / 2) * g2 / (k * v) - f
        exact = -0.5 * (np.log(2 * np.pi) + v1 + m1**2) - np.sum(w * inside)
        np.testing.assert_allclose(plug_in_elbo(-0.8973276093642073, j, lam), exact, atol=1e-8)


def test_the_gap_by_monte_carlo_and_the_mean_bound_agree(key):
    """-E[elbo] = H + KL_T + J, so the bounds of a wrong and of the exact denoiser differ by J, on average over data."""
    process, mean, cov = processes.flow(), np.array([0.3, -0.5]), np.array([[0.5, 0.2], [0.2, 0.4]])
    oracle = oracles.gaussian(process, mean, cov)

    def wrong(x, t):
        return oracle.denoise(x, t) + 0.3 * jnp.stack([x[1], -jnp.tanh(x[0])])

    def sample(key):
        return oracle.sample(key, 1)[0]

    found = score_gap(key, process, wrong, oracle.denoise, sample, t0=0.1, draws=100)

    def excess(key):
        data_key, noise_key, key = jax.random.split(key, 3)
        x = process.perturb(noise_key, sample(data_key), 0.1)
        # The same key: their noise is one.
        one, two = (elbo(key, process, denoise, x, t0=0.1, draws=2) for denoise in (oracle.denoise, wrong))
        return one.value - two.value

    values = np.asarray(jax.jit(jax.vmap(excess))(jax.random.split(key, 2000)), float)
    error = np.hypot(values.std() / np.sqrt(2000), float(found.stderr))
    print(f"J {found.value:.4f} +- {found.stderr:.4f}, mean excess {values.mean():.4f}")
    assert abs(values.mean() - float(found.value)) < 5 * error
    assert error < 0.2 * found.value


def test_a_member_is_its_euler_maruyama_step(x64):
    """One step by hand, on the exact score of N(.7, .25): x + h mu + sqrt(h) sigma z."""
    process, x, t, s = processes.vp(), 0.4, 0.6, 0.55
    oracle = oracles.gaussian(process, jnp.asarray(MEAN), VARIANCE)
    f, g2, m, v = _vp(t)
    score = -(x - m) / v
    for lam in LAMS:
        stepper = plug_in(process, lam)
        found, _ = stepper.step(
            jax.random.key(0), oracle.denoise, (), jnp.asarray(x), jnp.asarray(t), jnp.asarray(s), noise=_ones
        )
        mu, sigma = (1 - lam / 2) * g2 * score - f * x, np.sqrt((1 - lam) * g2)
        np.testing.assert_allclose(found, x + (t - s) * mu + np.sqrt(t - s) * sigma, rtol=1e-9)


def _ones(key, shape, dtype):
    return jnp.ones(shape, dtype)


def test_members_of_an_exact_score_draw_the_data(key):
    process, n = processes.vp(), 4000
    oracle = oracles.gaussian(process, jnp.full(n, MEAN), VARIANCE)
    ts = grids.logsnr(process, 100)
    for lam in (-1.0, 0.5, 1.0):
        x = samplers.sample(key, plug_in(process, lam), oracle.denoise, process.prior(key, (n,)), ts)
        x = np.asarray(x, float)
        assert abs(x.mean() - MEAN) < 5 * np.sqrt(VARIANCE / n) + 0.01, lam
        assert abs(x.var() / VARIANCE - 1) < 5 * np.sqrt(2 / n) + 0.04, lam


def test_an_exact_score_costs_no_member_anything(key):
    assert plug_in_bound(0.5, 0.0, 1.0) == 0.5
    assert plug_in_elbo(-2.0, 0.0, 1.0) == -2.0
    assert plug_in_bound(0.5, 0.1, 1.0) == jnp.inf
    assert plug_in_elbo(-2.0, 0.1, 1.0) == -jnp.inf


def test_mistakes(key):
    process = processes.vp()
    oracle = oracles.gaussian(process, np.zeros(3), 1.0)
    for call in (
        lambda: plug_in(process, 1.5),
        lambda: plug_in_bound(0.0, 1.0, 1.5),
        lambda: plug_in_elbo(0.0, 1, 1.5),
    ):
        with pytest.raises(InputError, match=r"lam > 1, expected at most 1"):
            call()
    arguments = key, process, oracle.denoise, oracle.denoise, lambda key: oracle.sample(key, 1)[0]
    for options, words in [
        ({"draws": 0}, "draws=0, expected at least 1"),
        ({"n_times": 0}, "n_times=0, expected at least 1"),
        ({"t0": 1.5}, r"t0=1.5 is not in \[0, 1\)"),
        ({"times": grids.ve_times}, "a law of noise levels"),
    ]:
        with pytest.raises(InputError, match=words):
            score_gap(*arguments, **options)
    assert score_gap(*arguments).value == 0
