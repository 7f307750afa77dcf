"""The bound of Gaussian data is known to the last digit: a squared error is quadratic and even in x and eps, so the
mean over x = +-s and eps = +-1 is that over both Gaussians, and over t there is a quadrature."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from roster import PROCESSES
from scipy import stats

from jaxdiff import data, grids, likelihood, losses, oracles, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.losses import weights
from jaxdiff.schedules import LinearGamma

pytestmark = pytest.mark.claim("VDM: the table of L_T and its limit, O(1 / T), schedule invariance")


S = 0.5
FROM_6_TO_5 = (-6.0, 5.0)


def legendre(key, process, n, *, low=0.0, high=1.0):
    nodes, weight = np.polynomial.legendre.leggauss(n)
    return grids.Times(
        low + (high - low) * jnp.asarray(0.5 * (nodes + 1)), (high - low) * jnp.asarray(0.5 * n * weight)
    )


def every_step(key, process, n, *, low=0.0, high=1.0):
    return grids.Times(low + (high - low) * (jnp.arange(0.5, n) / n), jnp.full((n,), 1.0) * (high - low))


def constant(value):
    return Partial(full, value)


def full(value, key, shape, dtype):
    return jnp.full(shape, value, dtype)


def shrink(x, t):
    return 0.9 * x


def expected(key, process, *, denoise=None, decoder=None, **options):
    """The terms, averaged over x ~ N(0, S^2) and all noise."""
    denoise = oracles.gaussian(process, 0.0, S**2).denoise if denoise is None else denoise
    decoder = likelihood.decoders.gaussian() if decoder is None else decoder
    each = [
        likelihood.vdm(key, process, denoise, jnp.asarray(S), decoder=decoder, noise=constant(eps), draws=1, **options)
        for eps in (1.0, -1.0)
    ]
    return {name: float(sum(bound.terms[name] for bound in each)) / 2 for name in each[0].terms}


def least(snr):
    """E|eps - eps_hat|^2 of the exact denoiser."""
    return S**2 * snr / (1 + S**2 * snr)


def test_the_table_of_steps_and_its_limit(key, x64):
    """L_T = T/2 E[expm1(gamma_t - gamma_s)|eps - eps_hat|^2] falls to L_inf = ln[(1 + s^2 e^-g0) / (1 + s^2 e^-g1)] /
    2. With m(gamma) = E|eps - eps_hat|^2 and h = (g1 - g0) / T, L_T = expm1(h)/2 sum_i m(gamma_i) is a Riemann sum, and
    its gap is (h / 4) (integral of m + m(g1) - m(g0)) + O(h^2)."""
    g0, g1 = FROM_6_TO_5
    process = processes.logsnr(LinearGamma(g0, g1))
    limit = -expected(key, process, times=legendre, n_times=64)["diffusion"]
    np.testing.assert_allclose(limit, 0.5 * np.log((1 + S**2 * np.exp(-g0)) / (1 + S**2 * np.exp(-g1))), rtol=1e-10)
    np.testing.assert_allclose(limit, 2.310944, atol=1e-6)
    counts, gaps = [1, 16, 64, 256, 1024], []
    print(f"\n     T       L_T       gap x T\n   inf  {limit:8.5f}")
    for steps in counts:
        # Every step as often as every other: 1024 times are a multiple of each count.
        loss = -expected(key, process, steps=steps, n_times=counts[-1], times=every_step)["diffusion"]
        gamma = np.linspace(g0, g1, steps + 1)
        formula = 0.5 * np.sum(np.expm1(np.diff(gamma)) * least(np.exp(-gamma[1:])))
        np.testing.assert_allclose(loss, formula, rtol=1e-9)
        gaps.append(loss - limit)
        print(f"{steps:6d}  {loss:8.5f}  {gaps[-1] * steps:9.4f}")
    known = dict(zip(counts, np.array(gaps) + limit, strict=True))
    np.testing.assert_allclose([known[64], known[1024]], [2.47509, 2.32073], atol=1e-5)
    slope = np.log(gaps[-1] / gaps[-2]) / np.log(counts[-1] / counts[-2])
    leading = (4 * counts[-1] * gaps[-1] - counts[-2] * gaps[-2]) / 3  # without the O(h^2)
    exact = (g1 - g0) / 4 * (2 * limit + least(np.exp(-g1)) - least(np.exp(-g0)))
    print(f"slope {slope:.4f}; gap x T at T = inf {leading:.4f}, by formula {exact:.4f}")
    np.testing.assert_allclose(slope, -1, atol=0.01)
    np.testing.assert_allclose(leading, exact, rtol=1e-4)


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_every_process_has_the_bound_of_its_ends(name, key, x64):
    """The whole account: -H(data), less the KL at t = 1, less the decoder's excess variance at t0."""
    process = PROCESSES[name]()
    t0 = float(process.time_of(0.05))
    snr0, snr1 = (np.exp(float(process.log_snr(t))) for t in (t0, 1.0))
    terms = expected(key, process, t0=t0, times=legendre, n_times=400)
    np.testing.assert_allclose(terms["prior"], -0.5 * snr1 * S**2, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(terms["diffusion"], -0.5 * np.log((1 + S**2 * snr0) / (1 + S**2 * snr1)), rtol=1e-7)
    share, stretch = least(snr0), 1 + S**2 * snr1
    entropy = 0.5 * np.log(2 * np.pi * np.e * S**2)
    prices = 0.5 * (share - 1 - np.log(share)) + 0.5 * (stretch - 1 - np.log(stretch))
    np.testing.assert_allclose(sum(terms.values()), -entropy - prices, rtol=1e-7)
    # In steps the bound is looser, and finite from end to end.
    stepped = sum(expected(key, process, t0=t0, steps=32, n_times=32).values())
    assert -50 < stepped < -entropy - prices


def test_data_of_few_grey_levels_cost_the_logarithm_of_their_number(key, x64):
    """17 levels, each as likely: with the exact denoiser and noise far below a level's width, all of ln 17 is in L_inf,
    but for KL(q(z_1) | p_1). The data are their own quadrature; over eps a trapezium is one."""
    process, levels, cells, nodes = processes.logsnr(), 17, 160, 65
    x = jnp.asarray(data.to_model(np.arange(levels, dtype=np.uint8), levels), float)
    oracle = oracles.mixture(process, np.full(levels, 1 / levels), x, np.zeros(levels))
    eps, step = np.linspace(-8, 8, nodes, retstep=True)

    def tensor(key, process, n, *, low, high=1.0):
        t, weight = legendre(key, process, cells, low=low, high=high)
        density = jnp.asarray(nodes * step * stats.norm.pdf(eps))
        return grids.Times(jnp.repeat(t, nodes), jnp.outer(weight, density).ravel())

    def grid(key, shape, dtype):
        return jnp.resize(jnp.asarray(eps), shape) if shape else jnp.ones(shape, dtype)

    def one(x):
        return likelihood.vdm(
            key, process, oracle.denoise, x,
            decoder=likelihood.decoders.discrete(levels), times=tensor, n_times=cells * nodes, draws=1, noise=grid,
        )  # fmt: skip

    terms = jax.tree.map(lambda leaf: float(leaf.mean()), jax.vmap(one)(x).terms)
    print(f"\nbits of one of {levels} levels, log2({levels}) = {np.log2(levels):.7f}:", end=" ")
    print(" + ".join(f"{-value / np.log(2):.7f} ({name})" for name, value in terms.items()))
    assert abs(terms["reconstruction"]) < 1e-12
    snr, power = np.exp(-5.0), np.mean(np.asarray(x) ** 2)
    # q(z_1) is all but Gaussian, of variance sigma^2 (1 + snr power).
    excess = 0.5 * (snr * power - np.log1p(snr * power))
    np.testing.assert_allclose(-sum(terms.values()), np.log(levels) + excess, atol=1e-6)


def test_draws_have_the_exact_mean_and_an_honest_error(key):
    process = processes.logsnr(LinearGamma(*FROM_6_TO_5))
    oracle, n = oracles.gaussian(process, 0.0, S**2), 2000
    x = oracle.sample(key, n)
    one = Partial(likelihood.vdm, decoder=likelihood.decoders.gaussian(), n_times=4, draws=5)
    make = jax.jit(jax.vmap(lambda key, x: one(key, process, oracle.denoise, x)))
    found = make(jax.random.split(jax.random.fold_in(key, 1), n), x)
    exact = expected(key, process, n_times=64, times=legendre)
    for name, value in exact.items():
        draws = np.asarray(found.terms[name], np.float64)
        assert abs(draws.mean() - value) < 5 * draws.std() / np.sqrt(n), name
    np.testing.assert_allclose(found.value, sum(found.terms.values()), rtol=1e-5, atol=1e-5)
    assert np.all(np.asarray(found.stderrs["prior"]) == 0)
    # The claimed squared errors are right on average: that of one x against another seed's value.
    again = make(jax.random.split(jax.random.fold_in(key, 2), n), x)
    square = np.asarray((found.value - again.value) ** 2 - found.stderr**2 - again.stderr**2, np.float64)
    assert abs(square.mean()) < 5 * square.std() / np.sqrt(n)


def test_even_times_have_the_same_mean_and_less_variance(key):
    """For one image and its noise: uniform times, a lattice of them, and antithetic pairs (a lattice of two)."""
    process, size, n = processes.logsnr(LinearGamma(*FROM_6_TO_5)), 64, 4000
    oracle = oracles.gaussian(process, jnp.zeros(size), S**2)
    x = oracle.sample(jax.random.fold_in(key, 1), 1)[0]

    def losses_of(law, times):
        loss = likelihood.vdm_loss(process)

        @jax.jit
        @jax.vmap
        def one(key):
            time_key, noise_key = jax.random.split(key)
            t, weight = law(time_key, process, times, low=0.0)
            keys = jax.random.split(noise_key, times)
            return jnp.mean(weight * jax.vmap(lambda key, t: loss(key, oracle.denoise, x, t))(keys, t))

        return np.asarray(one(jax.random.split(key, n)), np.float64)

    alone = losses_of(grids.uniform_times, 8)
    for name, law, times in (
        ("lattice of 8", grids.lattice_times, 8),
        ("antithetic pairs", grids.lattice_times, 2),
    ):
        even, plain = losses_of(law, times), alone if times == 8 else losses_of(grids.uniform_times, times)
        z = (even.mean() - plain.mean()) / np.hypot(even.std(), plain.std()) * np.sqrt(n)
        ratio = plain.var() / even.var()
        p = stats.levene(even, plain).pvalue
        print(f"\n{name}: variance falls by {ratio:.2f}, means differ by {z:+.2f} standard errors, p = {p:.1e}")
        assert abs(z) < 5
        assert ratio > 1.5
        assert p < 1e-3


@pytest.mark.parametrize("name", ["logsnr", "vp", "flow"])
def test_the_loss_at_one_time_is_half_the_likelihood_weighted_score_loss(name, key, x64):
    """Draw by draw: g^2 |score error|^2 / 2 (Song et al. 2021; Huang et al. 2021)."""
    process, x0 = PROCESSES[name](), jnp.array([0.3, -1.0, 0.8])
    score = losses.matching(process, parameterizations.score, weights.likelihood)
    for t in (0.05, 0.4, 0.9):
        ours = likelihood.vdm_loss(process)(key, shrink, x0, t)
        np.testing.assert_allclose(ours, 0.5 * score(key, shrink, x0, t), rtol=1e-9)


def test_it_is_the_evidence_lower_bound_of_the_reverse_process(key, x64):
    """`likelihood.elbo`, of one x: KL and L are its prior, entropy and integral grouped anew."""
    process, decoder, x = processes.logsnr(LinearGamma(*FROM_6_TO_5)), likelihood.decoders.gaussian(), jnp.asarray(0.3)
    denoise = oracles.gaussian(process, 0.2, S**2).denoise
    options: dict[str, Any] = {"decoder": decoder, "times": legendre, "n_times": 64, "draws": 1, "t0": 0.0}
    # Its dsm form asks at eps and at -eps, so that one of them gives the mean of a quadratic.
    song = likelihood.elbo(key, process, denoise, x, noise=constant(1.0), **options).terms
    kingma = [likelihood.vdm(key, process, denoise, x, noise=constant(e), **options).terms for e in (1.0, -1.0)]
    np.testing.assert_allclose(kingma[0]["reconstruction"], song["reconstruction"], rtol=1e-12)
    paths = [terms["prior"] + terms["diffusion"] for terms in kingma]
    np.testing.assert_allclose(sum(paths) / 2, song["prior"] + song["entropy"] + song["diffusion"], rtol=1e-9)


@pytest.mark.parametrize("steps", [None, 16])
def test_the_training_loss_is_the_bound(steps, key, x64):
    """Over a quadrature of times, with the same noise."""
    process, x, decoder = processes.logsnr(), jnp.array([0.25, -1.0, 0.5]), likelihood.decoders.discrete(17)
    times, n = (legendre, 40) if steps is None else (every_step, 16)
    options: dict[str, Any] = {"decoder": decoder, "steps": steps, "noise": constant(0.7)}
    bound = likelihood.vdm(key, process, shrink, x, n_times=n, times=times, draws=1, **options)
    loss = likelihood.vdm_loss(process, decoder, steps=steps)
    t, weight = times(key, process, n)
    alone = likelihood.vdm_loss(process, steps=steps)
    each = jax.jit(jax.vmap(lambda t: [f(key, shrink, x, t, noise=constant(0.7)) for f in (loss, alone)]))(t)
    whole, diffusion = (jnp.mean(weight * values) for values in each)
    np.testing.assert_allclose([whole, diffusion], [-bound.value, -bound.terms["diffusion"]], rtol=1e-9)


def test_it_starts_where_the_process_has_noise(key):
    """At t = 0 on a log-SNR schedule, below the common start where sigma / alpha = .002; there on others."""
    x, decoder = jnp.array([0.5, -1.0]), likelihood.decoders.discrete(17)

    def value(process, t0):
        return likelihood.vdm(key, process, shrink, x, t0=t0, decoder=decoder).value

    for process, t0 in ((processes.logsnr(), 0.0), (processes.vp(), float(processes.vp().time_of(0.002)))):
        assert value(process, None) == value(process, t0)
        assert value(process, None) != value(process, 0.01)
    with pytest.raises(InputError, match="sigma is 0 at t0=0"):
        value(processes.vp(), 0.0)
    with pytest.raises(InputError, match="sigma is 0 at t0=0"):
        likelihood.vdm_loss(processes.vp(), decoder)(key, shrink, x, 0.3)


def test_it_compiles_once_and_maps(key):
    process, traces = processes.logsnr(), []

    def denoise(scale, x, t):
        traces.append(1)
        return scale.astype(x.dtype) * x

    x = jnp.array([[0.5, -1.0], [0.25, 1.0]])
    options: dict[str, Any] = {"decoder": likelihood.decoders.discrete(17), "n_times": 4, "draws": 3}
    loop = [
        likelihood.vdm(key, process, Partial(denoise, jnp.float32(s)), x[i], **options)
        for i, s in enumerate((0.5, 0.6))
    ]
    assert len(traces) == 1  # of an unjitted call, made twice with other numbers
    mapped = jax.vmap(lambda x, s: likelihood.vdm(key, process, lambda x, t: s * x, x, **options))(
        x, jnp.array([0.5, 0.6])
    )
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], mapped)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, loop[i])


def test_mistakes(key):
    process, decoder = processes.logsnr(), likelihood.decoders.discrete(17)

    def call(x=(0.5, -1.0), denoise=lambda x, t: x, **options):
        return likelihood.vdm(key, process, denoise, jnp.asarray(x), decoder=decoder, **options)

    for words, options in {
        r"steps=0, expected at least 1": {"steps": 0},
        r"n_times=0, expected at least 1": {"n_times": 0},
        r"draws=-1, expected at least 1": {"draws": -1},
        r"x of int32, expected float32": {"x": (0, 1)},
        r"law of noise levels": {"times": grids.lognormal_times},
        r"not finite": {"x": (0.5, jnp.nan)},
        r"off its 17 grey levels": {"x": (0.5, 0.51)},
        r"t0=1 is not in \[0, 1\)": {"t0": 1.0},
        r"shape \(1, 2\).*one example": {"denoise": lambda x, t: x[None]},
    }.items():
        with pytest.raises(InputError, match=words):
            call(**options)
    with pytest.raises(InputError, match="steps=0"):
        likelihood.vdm_loss(process, steps=0)
