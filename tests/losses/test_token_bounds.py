"""The bounds of tokens are tight, for each sequence and not on average alone: the sum over all noisy sequences and the
integral over time, against -log p(x), an any-order autoregression, and one schedule against another."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxdiff import alphas, beliefs, oracles, processes
from jaxdiff.losses import token_rates

pytestmark = pytest.mark.claim(
    "the bound of every process is -log p(x) for every x with the leave-one-out belief, and .927 nats off "
    "with the posterior in its place",
    "-s",
)


JOINT = np.random.default_rng(0).dirichlet(0.7 * np.ones(18)).reshape(9, 2).sum(1).reshape(3, 3)
SEQUENCES = list(itertools.product(range(3), repeat=2))
SURPRISES = -np.log(JOINT.reshape(-1))
ENTROPY = float(JOINT.reshape(-1) @ SURPRISES)


def gauss(n=400, dense=3):
    """Nodes and weights over (0, 1), which are dense at both ends."""
    u, w = np.polynomial.legendre.leggauss(n)
    u, w = 0.5 * (u + 1), 0.5 * w
    a, b = u**dense, (1 - u) ** dense
    return jnp.asarray(a / (a + b)), jnp.asarray(w * dense * (u * (1 - u)) ** (dense - 1) / (a + b) ** 2)


def law_of(process, x, t):
    """All noisy sequences and q(z_t | x) of each."""
    zs = np.array(list(itertools.product(range(process.states), repeat=len(x))), np.int32)
    q = jnp.exp(process.log_marginal(jnp.log(jax.nn.one_hot(x, process.vocab, dtype=t.dtype)), t))
    return jnp.asarray(zs), jnp.prod(jnp.stack([q[i][zs[:, i]] for i in range(len(x))]), 0)


def mean_cost(process, form, denoise, x, t, *more):
    """E[sum of form over tokens | x] at t."""
    zs, weights = law_of(process, x, t)
    costs = jax.vmap(lambda z: jnp.sum(form(process, denoise(z, t), x, z, t, *more)))(zs)
    return jnp.sum(jnp.where(weights > 0, weights * costs, 0))


def integrals(process, form, denoise, xs=SEQUENCES, n=400):
    """The bound's integral for each sequence."""
    ts, ws = gauss(n)

    @jax.jit
    def one(x):
        return jnp.sum(ws * jax.vmap(lambda t: mean_cost(process, form, denoise, x, t))(ts))

    return np.asarray(jax.vmap(one)(jnp.asarray(xs, jnp.int32)))


def declared(meaning, denoise, z, t):
    """The same logits, called something else."""
    return meaning(denoise(z, t).logits)


def oracle():
    return oracles.table(np.log(JOINT))


NOISES = {
    "absorbing": (lambda: processes.absorbing(3), 2e-13),
    "absorbing, cosine squared": (lambda: processes.absorbing(3, alphas.cosine_squared()), 2e-13),
    "uniform": (lambda: processes.uniform(3), 2e-13),
    "uniform, polynomial": (lambda: processes.uniform(3, alphas.polynomial(3.0)), 2e-13),
    "hybrid": (lambda: processes.hybrid(3, 0.3), 1e-12),
    "gidd": (lambda: processes.gidd(3, 0.2, 2.0), 1e-11),
    "uniform that keeps a fifth": (lambda: processes.uniform(3, alphas.log_linear(0.2)), 1e-12),
    "a gaussian chain": (lambda: processes.ctmc(processes.rates.gaussian(3, 1.0), alphas.constant_rate(2.0)), 1e-12),
    "a walk": (lambda: processes.ctmc(processes.rates.nearest(3), alphas.constant_rate(2.0)), 1e-12),
}


def prior_gap(process):
    """KL(q(z_1 | x) | p_1) for each sequence: what the bound counts apart where some data are left at t = 1."""
    zs = list(itertools.product(range(process.states), repeat=2))
    q = np.stack([law_of(process, jnp.asarray(x), jnp.ones(()))[1] for x in SEQUENCES])
    p = JOINT.reshape(-1) @ q
    seen = p > 1e-200
    assert len(zs) == len(p)
    return np.sum(q[:, seen] * (np.log(q[:, seen] + 1e-300) - np.log(p[seen])), 1)


@pytest.mark.parametrize("name", NOISES)
def test_with_the_exact_belief_the_bound_is_the_surprise_of_every_sequence(name, x64):
    make, tolerance = NOISES[name]
    process = make()
    exact = SURPRISES - prior_gap(process)
    error = np.abs(integrals(process, token_rates.bound, oracle().denoiser(process)) - exact).max()
    print(f"{name}: largest |bound - (-log p)| {error:.1e}")
    assert error < tolerance


@pytest.mark.parametrize("make", [processes.absorbing, processes.uniform])
def test_a_belief_counts_as_what_it_is_declared(make, x64):
    """The exact posterior, said to be one, is translated; said to be leave-one-out, it costs .927 nats under uniform
    noise, and nothing where noise masks."""
    process = make(3)
    believed = oracle().denoiser(process, beliefs.Posterior)
    for meaning in (beliefs.Posterior, beliefs.Score):
        found = integrals(process, token_rates.bound, oracle().denoiser(process, meaning), SEQUENCES[:3])
        np.testing.assert_allclose(found, SURPRISES[:3], atol=1e-12)
    wrong = integrals(process, token_rates.bound, Partial(declared, Partial(beliefs.LeaveOneOut), believed))
    excess = JOINT.reshape(-1) @ wrong - ENTROPY
    print(f"{make.__name__}: the posterior declared leave-one-out costs {excess:.4f} nats")
    assert excess == pytest.approx(0.927 if make is processes.uniform else 0.0, abs=5e-4)


def test_in_steps_the_bound_is_the_table_and_halves(x64):
    """NELBO_T - H of uniform noise: at T = 1 the total correlation, then as measured elsewhere; and of masks."""

    def table(process, steps):
        denoise, i = oracle().denoiser(process), jnp.arange(1.0, 129)

        @jax.jit
        def costs(steps):
            def one(x):
                at = jax.vmap(lambda i: mean_cost(process, token_rates.step, denoise, x, i / steps, (i - 1) / steps))
                return jnp.sum(jnp.where(i <= steps, at(jnp.minimum(i, steps)), 0))

            return jax.vmap(one)(jnp.asarray(SEQUENCES, jnp.int32))

        return [float(JOINT.reshape(-1) @ costs(float(n))) - ENTROPY for n in steps]

    found = table(processes.uniform(3), [2**k for k in range(8)])
    print("NELBO_T - H:", ", ".join(f"{value:.5f}" for value in found))
    np.testing.assert_allclose(found, [0.0737, 0.0466, 0.0246, 0.0125, 0.00626, 0.00313, 0.00157, 0.00078], atol=6e-5)
    margins = (JOINT.sum(0), JOINT.sum(1))
    correlation = -sum(float(m @ np.log(m)) for m in margins) - ENTROPY
    assert found[0] == pytest.approx(correlation, abs=1e-12)
    assert table(processes.absorbing(3), [1])[0] == pytest.approx(correlation, abs=1e-12)


def test_many_steps_are_continuous_time(x64):
    """|T KL - rate| falls as 1 / T, on logits that fit nothing."""
    rng = np.random.default_rng(1)
    belief = beliefs.LeaveOneOut(jnp.asarray(rng.normal(size=(7, 7, 7))))
    x, z = np.meshgrid(np.arange(7), np.arange(7), indexing="ij")
    x, z = jnp.asarray(x, jnp.int32), jnp.asarray(z, jnp.int32)
    for process in (processes.uniform(7), processes.hybrid(7, 0.4)):
        rate = token_rates.bound(process, belief, x, z, jnp.asarray(0.5))
        gaps = []
        for steps in (10, 100, 1000, 10_000):
            in_steps = steps * token_rates.step(process, belief, x, z, jnp.asarray(0.5), jnp.asarray(0.5 - 1 / steps))
            gaps.append(float(jnp.abs(in_steps - rate).max()))
        print("largest |T KL - rate| at T = 10 .. 1e4:", ", ".join(f"{gap:.2e}" for gap in gaps))
        np.testing.assert_allclose(gaps[2] / gaps[3], 10, rtol=0.02)
        assert gaps[3] < 2e-3 * float(rate.max())


# What any denoiser's bound must be -----------------------------------------------------------------------------------

LOGITS = np.random.default_rng(2).normal(size=(4, 4, 4, 3, 3))
"""Of a denoiser that fits nothing, by z."""
SCHEDULES = {
    "linear": alphas.linear,
    "cosine": alphas.cosine,
    "cosine squared": alphas.cosine_squared,
    "polynomial": lambda: alphas.polynomial(2.0),
    "constant rate": lambda: alphas.constant_rate(60.0),
}


def any_denoiser(process, z, t):
    alpha = process.alpha(t)
    logits = jnp.asarray(LOGITS)[tuple(z)]
    return beliefs.LeaveOneOut(logits if process.masked else logits * (1 + alpha) + alpha**2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_absorbing_bound_is_an_any_order_autoregression(name, x64):
    """Of any denoiser that is not told the time, on any schedule: the mean over orders of the sum of surprises."""
    process = processes.absorbing(3, SCHEDULES[name]())
    xs = [(0, 1, 2), (2, 2, 0)]
    found = integrals(process, token_rates.bound, Partial(any_denoiser, process), xs, 400)
    for x, value in zip(xs, found, strict=True):
        total = 0.0
        for order in itertools.permutations(range(3)):
            z = [3, 3, 3]
            for place in order:
                logits = LOGITS[tuple(z)][place]
                total += math.log(np.exp(logits).sum()) - logits[x[place]]
                z[place] = x[place]
        assert value == pytest.approx(total / 6, abs=1e-9 if name == "constant rate" else 1e-12)


def test_the_uniform_bound_does_not_depend_on_the_schedule(x64):
    """Of a denoiser that is told alpha alone."""
    found = {}
    for name in ("linear", "cosine squared", "polynomial", "constant rate"):
        process = processes.uniform(3, SCHEDULES[name]())
        found[name] = integrals(process, token_rates.bound, Partial(any_denoiser, process), [(0, 1, 2)], 400)
    print({name: float(value[0]) for name, value in found.items()})
    for name, value in found.items():
        np.testing.assert_allclose(value, found["linear"], rtol=1e-9 if name == "constant rate" else 1e-12)


# Other forms of the same, and one that is not ------------------------------------------------------------------------


def published(x_theta, x, z, alpha):
    """Schiff et al. (2024), eq. 18, for alpha' = -1, one token; x is a one-hot."""
    n = len(x)
    bar, bar_theta = n * alpha * x + 1 - alpha, n * alpha * x_theta + 1 - alpha
    logs = np.sum(bar / bar[z] * np.log(bar_theta[z] * bar / (bar_theta * bar[z])))
    return -1 / (n * alpha) * (n / bar[z] - n / bar_theta[z] - logs)


def rao_blackwellised(x_theta, m, z, alpha):
    """Sahoo et al. (2025), without a sum over x's own vector."""
    n = len(x_theta)
    kappa = (1 - alpha) / (n * alpha + 1 - alpha)
    bar_theta = n * alpha * x_theta + 1 - alpha
    bar_z = n * alpha * (z == m) + 1 - alpha
    same = float(z == m)
    logs = (kappa * same + 1 - same) * np.sum(np.log(bar_theta[z] / bar_theta))
    logs += (1 - same) * n * alpha / (1 - alpha) * np.log(bar_theta[z] / bar_theta[m])
    logs += ((n - 1) * kappa * same - (1 - same) / kappa) * np.log(kappa)
    return -1 / (n * alpha) * (n / bar_z - n / bar_theta[z] - logs)


def test_the_uniform_rate_is_the_published_ones(x64):
    process, x_theta = processes.uniform(5), np.random.default_rng(3).dirichlet(np.ones(5))
    belief = beliefs.LeaveOneOut(jnp.log(x_theta)[None])
    bound, general = (jax.jit(Partial(form, process)) for form in (token_rates.bound, token_rates.score_entropy))
    for alpha, m, z in itertools.product((0.9, 0.5, 0.1), range(5), range(5)):
        at = (jnp.array([m], jnp.int32), jnp.array([z], jnp.int32), jnp.asarray(1 - alpha))
        ours = float(bound(belief, *at)[0])
        assert ours > 0
        for theirs in (published(x_theta, np.eye(5)[m], z, alpha), rao_blackwellised(x_theta, m, z, alpha)):
            assert ours == pytest.approx(theirs, rel=1e-12)
        assert float(general(belief, *at)[0]) == pytest.approx(ours, rel=1e-11)
        sure = beliefs.LeaveOneOut(jnp.where(jnp.arange(5) == m, 0.0, -800.0)[None])
        assert float(bound(sure, *at)[0]) == pytest.approx(0, abs=1e-14)


def test_sedd_and_flow_matching_from_masks_are_the_absorbing_bound(x64):
    """s = x_theta / expm1(-log alpha), as published scores are made; the rate of one is that of all."""
    process, rng = processes.absorbing(5, alphas.cosine()), np.random.default_rng(4)
    x_theta = rng.dirichlet(np.ones(5), 6)
    x, z = jnp.asarray([0, 1, 2, 3, 4, 0], jnp.int32), jnp.asarray([5, 1, 5, 5, 4, 5], jnp.int32)
    logits, t = beliefs.LeaveOneOut(jnp.log(x_theta)), jnp.asarray(0.3)
    sigma = -np.log(float(process.alpha(t)))
    ratios = np.concatenate([x_theta / np.expm1(sigma), np.ones((6, 1))], 1)
    masked = token_rates.bound(process, logits, x, z, t)
    assert np.all((masked > 0) == (np.asarray(z) == 5))
    as_score = beliefs.Score(jnp.log(ratios))
    for found in (
        token_rates.score_entropy(process, as_score, x, z, t),
        token_rates.score_entropy(process, logits, x, z, t),
        token_rates.flow(process, beliefs.Posterior(logits.logits), x, z, t),
    ):
        np.testing.assert_allclose(found, masked, rtol=1e-11, atol=1e-13)
    # A score that is 1.3 times a belief's pays for it here, as Lou et al. (2024) write it; `bound` makes it a belief.
    s = 1.3 * x_theta[0] / np.expm1(sigma)
    rate = math.pi / 2 * np.sin(math.pi / 2 * 0.3) / np.cos(math.pi / 2 * 0.3)  # -alpha' / alpha
    r = 1 / np.expm1(sigma)
    typed = rate * (s.sum() - r * np.log(s[0]) + r * (np.log(r) - 1))
    off = beliefs.Score(jnp.log(jnp.where(jnp.arange(6) < 5, 1.3 * ratios, ratios)))
    assert float(token_rates.score_entropy(process, off, x, z, t)[0]) == pytest.approx(typed, rel=1e-12)
    np.testing.assert_allclose(token_rates.bound(process, off, x, z, t), masked, rtol=1e-11, atol=1e-13)


def test_flow_matching_from_uniform_noise_is_not_tight(x64):
    """Even of one token with its exact belief, where `bound` is the entropy: it is another chain's."""
    p = np.random.default_rng(1).dirichlet(np.ones(8)).reshape(4, 2).sum(1)
    process, one = processes.uniform(4), oracles.table(np.log(p))
    xs = [(i,) for i in range(4)]
    flow = p @ integrals(process, token_rates.flow, one.denoiser(process, beliefs.Posterior), xs)
    tight = p @ integrals(process, token_rates.bound, one.denoiser(process), xs)
    print(f"one token: flow matching {flow:.4f}, the bound {tight:.4f}, the entropy {-p @ np.log(p):.4f}")
    assert tight == pytest.approx(-p @ np.log(p), abs=1e-12)
    assert flow > tight + 0.1


@pytest.mark.parametrize("form", [token_rates.surprise, token_rates.flow])
def test_the_optimum_is_the_posterior(form, x64):
    """Of cross-entropy and of flow matching at one time, against the leave-one-out belief as the negative control."""
    process, t = processes.uniform(3), jnp.asarray(0.4)
    exact = oracle().denoiser(process, beliefs.Posterior)
    alone = Partial(declared, Partial(beliefs.Posterior), oracle().denoiser(process))

    def shifted(shift, z, t):
        return beliefs.Posterior(exact(z, t).logits + shift * jnp.asarray(LOGITS[:3, 0, 0, 0])[z[0]])

    @jax.jit
    def risk(denoise):
        costs = jax.vmap(lambda x: mean_cost(process, form, denoise, x, t))(jnp.asarray(SEQUENCES, jnp.int32))
        return jnp.asarray(JOINT.reshape(-1)) @ costs

    assert float(jax.grad(lambda shift: risk(Partial(shifted, shift)))(0.0)) == pytest.approx(0, abs=1e-12)
    assert risk(exact) < risk(Partial(shifted, 0.1)) - 1e-5
    assert risk(exact) < risk(alone) - 0.01


def test_the_divergence_and_its_slopes_near_and_far(x64):
    """Typed for u = log(theta / rho) from -3 to 3, and impossible rho and rates that are 0."""
    log_theta, log_rho, log_rate = (
        jnp.asarray(v) for v in np.meshgrid(np.linspace(-2, 1, 7), [-1.0, 0.3], [-0.5, 2.0])
    )
    value, slopes = jax.value_and_grad(lambda *a: jnp.sum(token_rates.divergence(*a)), (0, 1, 2))(
        log_rho, log_theta, log_rate
    )
    theta, rho, rate = (np.exp(log) for log in (log_theta, log_rho, log_rate))
    each = rate * (theta - rho + rho * np.log(rho / theta))
    np.testing.assert_allclose(value, each.sum(), rtol=1e-12)
    typed = rate * rho * np.log(rho / theta), rate * (theta - rho), each
    for found, exact in zip(slopes, typed, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
    never, zero = jnp.asarray(-jnp.inf), jnp.asarray(0.0)
    edge = jax.value_and_grad(token_rates.divergence, (0, 1, 2))
    assert [float(v) for v in jax.tree.leaves(edge(never, zero, zero))] == [1, 0, 1, 1]  # theta alone
    assert [float(v) for v in jax.tree.leaves(edge(zero, zero + 1, never))] == [0, 0, 0, 0]
    assert token_rates.divergence(zero, never) == jnp.inf
    assert token_rates.divergence(never, never) == 0
    # In float32 a slope near 0 keeps its digits.
    small = jnp.float32(1e-3)
    np.testing.assert_allclose(jax.grad(token_rates.divergence, 1)(0 * small, small), np.expm1(1e-3), rtol=1e-6)
