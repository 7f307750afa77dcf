"""A learned schedule changes the bound through its ends alone, and its interior through nothing but the variance."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from scipy import stats

from jaxdiff import gammas, likelihood, oracles, processes
from jaxdiff.errors import InputError

S = 0.5
G0, G1 = -6.0, 5.0
LIMIT = 0.5 * np.log((1 + S**2 * np.exp(-G0)) / (1 + S**2 * np.exp(-G1)))  # L_inf of N(0, S^2), exact denoiser


def straight(t):
    return t


def random(key, scale=1.0, hidden=16):
    """A schedule that is far from a straight line."""
    return gammas.learned(jax.jit(shaken, static_argnames="hidden")(key, scale, hidden=hidden), G0, G1)


def shaken(key, scale, hidden):
    interior = gammas.monotone(key, hidden=hidden)
    leaves, form = jax.tree.flatten(interior)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    return form.unflatten(leaf + scale * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True))


def legendre(n):
    nodes, weight = np.polynomial.legendre.leggauss(n)
    return jnp.asarray(0.5 * (nodes + 1)), jnp.asarray(0.5 * weight)


def exact(gamma):
    return oracles.gaussian(processes.logsnr(gamma), 0.0, S**2).denoise


def given(eps, key, shape, dtype):
    return jnp.full(shape, eps, dtype)


@jax.jit
def moments(gamma, t, weight):
    """(E[l], E[l^2]) of l = vdm_loss at a random time on N(0, S^2), over a quadrature of times.

    The error x - D is linear in x and eps, so Gaussian: l has at each t the mean that it has over x = S, eps = +-1,
    times a chi-squared of one degree, whose mean square is 3."""
    loss, oracle, x = likelihood.vdm_loss(processes.logsnr(gamma)), exact(gamma), jnp.asarray(S, t.dtype)

    def mean(t):
        return sum(loss(jax.random.key(0), oracle, x, t, noise=Partial(given, eps)) for eps in (1.0, -1.0)) / 2

    values = jax.vmap(mean)(t)
    return jnp.stack([jnp.sum(weight * values), 3 * jnp.sum(weight * values**2)])


# The function itself -------------------------------------------------------------------------------------------------


def test_monotone_rises_from_zero_whatever_its_leaves(key):
    t = jnp.linspace(0.0, 1.0, 400)

    @jax.jit
    def table(n):
        return n(t), jax.vmap(jax.value_and_grad(n))(t)

    for scale in (0.0, 1.0, 3.0):
        value, (one_by_one, slope) = table(random(key, scale, hidden=64).interior)
        assert value[0] == 0
        assert np.all(np.diff(value) > 0)
        assert np.all(np.isfinite(slope))
        assert np.all(np.asarray(slope) > 0)
        np.testing.assert_allclose(one_by_one, value, rtol=1e-5, atol=1e-6)


def test_monotone_is_its_formula_and_starts_near_a_line(key, x64):
    n, t = gammas.monotone(key, hidden=1024), np.linspace(0, 1, 11)
    a, b, d, c = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(n))
    a, b, c = (np.log1p(np.exp(leaf)) for leaf in (a, b, c))

    def logistic(u):
        return 1 / (1 + np.exp(-u))

    formula = a * t + np.sum(c * (logistic(b * t[:, None] + d) - logistic(d)), -1)
    np.testing.assert_allclose(n(jnp.asarray(t)), formula, rtol=1e-9, atol=1e-12)
    assert a + c.sum() == pytest.approx(2, rel=1e-6)
    assert np.abs(formula / formula[-1] - t).max() < 0.08
    slope = jax.jit(jax.vmap(jax.grad(n)))(jnp.asarray(t))
    np.testing.assert_allclose(slope, (n(t + 1e-6) - n(t - 1e-6)) / 2e-6, rtol=1e-6)


def test_a_learned_schedule_holds_its_ends(key):
    """Where a bare network does not; in float32, called as a function and inside a process."""
    t = jnp.linspace(0.01, 1.0, 9)

    @jax.jit
    def table(gamma):
        process, bare = processes.logsnr(gamma), processes.logsnr(gamma.interior)
        alpha, sigma = process.scales(t)
        ends = [(gamma(t), -process.log_snr(t), -bare.log_snr(t)) for t in (0.0, 1.0)]
        return ends, gamma.end, process.time_of(sigma / alpha)

    for scale in (0.0, 3.0):
        ((start, first, _), (last, final, bare)), end, again = table(random(key, scale, hidden=256))
        np.testing.assert_allclose([start, last, end], [G0, G1, G1], atol=2e-6)
        np.testing.assert_allclose([first, final], [G0, G1], atol=1e-5)
        assert abs(bare - G1) > 1
        np.testing.assert_allclose(again, t, atol=1e-4)


def test_its_ends_stay_in_order_and_all_its_leaves_learn(key):
    """Pushed together by plain gradient descent, a hundred steps of size 1."""

    def span(gamma):
        return gamma(1.0) - gamma(0.0)

    def descend(_, gamma):
        return jax.tree.map(lambda leaf, slope: leaf - slope, gamma, jax.grad(span)(gamma))

    def slopes_of(part):
        return jax.grad(lambda gamma: part(gamma)(0.3) ** 2)

    parts = {"both": lambda gamma: gamma, "ends": gammas.ends_only, "interior": gammas.interior_only}

    @jax.jit
    def table(gamma):
        squeezed = jax.lax.fori_loop(0, 100, descend, gamma)
        slopes = {name: slopes_of(part)(gamma) for name, part in parts.items()}
        return span(gamma), span(squeezed), slopes, [part(gamma)(0.3) for part in parts.values()]

    before, after, slopes, values = table(random(key))
    assert 0 < after < 0.1 < before
    assert values[0] == values[1] == values[2]
    learn = {"both": ("start", "log_span", "interior"), "ends": ("start", "log_span"), "interior": ("interior",)}
    for name, fields in learn.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(slopes[name]):
            assert bool(np.any(leaf != 0)) == (path[0].name in fields), (name, path)


def test_mistakes_in_schedules():
    for words, make in {
        "start=5.0, which is not below end=-6.0": lambda: gammas.learned(straight, 5.0, -6.0),
        "does not rise": lambda: gammas.learned(lambda t: -t),
        "hidden=0, expected at least 1": lambda: gammas.monotone(jax.random.key(0), hidden=0),
    }.items():
        with pytest.raises(InputError, match=words):
            make()


def test_it_compiles_once_and_keeps_the_dtype(key, x64):
    traces = []

    @jax.jit
    def value(process, t):
        traces.append(1)
        return process.log_snr(t), process.sde(t)

    for seed in range(2):
        gamma = gammas.learned(gammas.monotone(jax.random.fold_in(key, seed), hidden=8), -3.0 - seed, 4.0)
        process = processes.logsnr(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gamma))
        assert {leaf.dtype for leaf in jax.tree.leaves(value(process, jnp.float64(0.4)))} == {jnp.dtype("float64")}
    assert len(traces) == 1


# What it does to the bound -------------------------------------------------------------------------------------------


def test_the_continuous_loss_depends_on_the_ends_alone(key, x64):
    """For one x, and for any denoiser that knows the noise level: the exact one of a mixture, and a wrong one."""
    nodes = 33
    eps, step = np.linspace(-8, 8, nodes, retstep=True)
    (t, weight), density = legendre(120), jnp.asarray(step * stats.norm.pdf(eps))

    @jax.jit
    def table(gamma, wrong):
        """L_inf and L_4 at x = .4."""
        process = processes.logsnr(gamma)
        oracle = oracles.mixture(process, [0.3, 0.7], [-1.0, 1.2], [0.05, 0.2])

        def denoise(x, t):
            return oracle.denoise(x, t) + wrong * jnp.tanh(x - process.log_snr(t))

        def loss(t, eps):
            laws = likelihood.vdm_loss(process), likelihood.vdm_loss(process, steps=4)
            return jnp.stack([law(key, denoise, jnp.asarray(0.4), t, noise=Partial(given, eps)) for law in laws])

        values = jax.vmap(jax.vmap(loss, (None, 0)), (0, None))(t, jnp.asarray(eps))
        return jnp.einsum("i,j,ijk->k", weight, density, values)

    curve = random(key, 3.0)
    # Without its steps the network is the straight line, and the same program runs both.
    line = eqx.tree_at(lambda gamma: gamma.interior.heights, curve, jnp.full(16, -1e3))
    ts = jnp.linspace(0.0, 1.0, 50)
    np.testing.assert_allclose(line(ts), G0 + (G1 - G0) * ts, atol=1e-12)
    print(f"\nthe two schedules are up to {np.abs(line(ts) - curve(ts)).max():.2f} apart in log SNR")
    assert np.abs(line(ts) - curve(ts)).max() > 1
    for wrong in (0.0, 0.5):
        (along_line, in_steps), (along_curve, in_other_steps) = table(line, wrong), table(curve, wrong)
        print(f"{'wrong' if wrong else 'exact'} denoiser: L_inf {along_line:.8f} and {along_curve:.8f}", end=", ")
        print(f"but L_4 {in_steps:.5f} and {in_other_steps:.5f}")
        np.testing.assert_allclose(along_curve, along_line, rtol=2e-6)
        assert abs(in_other_steps / in_steps - 1) > 1e-2  # in steps it depends on the way
    assert abs(table(dataclasses.replace(curve, start=curve.start - 1), 0.5)[0] / along_curve - 1) > 1e-2


def test_the_mean_loss_has_no_gradient_in_the_interior_and_the_limits_in_the_ends(key, x64):
    """d L_inf / d g1 = m(g1) / 2 and d L_inf / d g0 = -m(g0) / 2, with m(g) = s^2 / (s^2 + e^g) the least error of
    eps; the mean square has a gradient in the interior."""
    t, weight = legendre(120)
    gamma = random(key, 0.5)

    @jax.jit
    def both(gamma):
        values, pull = jax.vjp(lambda g: moments(g, t, weight), gamma)
        return values, *(pull(row)[0] for row in jnp.eye(2))

    values, slopes, square = both(gamma)
    np.testing.assert_allclose(values[0], LIMIT, rtol=1e-9)
    for mean, other in zip(*map(jax.tree.leaves, (slopes.interior, square.interior)), strict=True):
        assert np.abs(mean).max() < 1e-8 < 1e-2 < np.abs(other).max()
    at0, at1 = (S**2 / (S**2 + np.exp(g)) for g in (G0, G1))
    # start moves both ends, log_span the last by its own size.
    np.testing.assert_allclose(slopes.start, 0.5 * (at1 - at0), rtol=1e-8)
    np.testing.assert_allclose(slopes.log_span, 0.5 * at1 * (G1 - G0), rtol=1e-7)


def test_the_objective_gives_each_group_its_own_criterion(key):
    """Against the two gradients taken alone; its value is the loss."""
    gamma, params = random(key), {"scale": jnp.float32(0.8)}
    keys, x, t = jax.random.split(key, 6), jax.random.normal(key, (6, 3)), jnp.linspace(0.1, 0.9, 6)

    def losses(decoder):
        def each(params, gamma):
            loss = likelihood.vdm_loss(processes.logsnr(gamma), decoder)
            return jax.vmap(lambda key, x, t: loss(key, lambda z, t: params["scale"] * z, x, t))(keys, x, t)

        return each

    whole, diffusion = losses(likelihood.decoders.gaussian()), losses(None)
    criteria = {
        "objective": lambda *args: jnp.mean(likelihood.vdm_objective(whole, diffusion, *args)),
        "mean": lambda *args: jnp.mean(whole(*args)),
        "square": lambda *args: jnp.mean(diffusion(*args) ** 2),
    }
    found = jax.jit(lambda *args: {name: jax.value_and_grad(f, (0, 1))(*args) for name, f in criteria.items()})(
        params, gamma
    )
    value, (of_params, of_gamma) = found["objective"]
    (mean, (mean_params, mean_gamma)), (_, (_, square_gamma)) = found["mean"], found["square"]

    def close(a, b):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), a, b)

    close((value, of_params), (mean, mean_params))
    close((of_gamma.start, of_gamma.log_span), (mean_gamma.start, mean_gamma.log_span))
    close(of_gamma.interior, square_gamma.interior)
    assert abs(mean_gamma.log_span - square_gamma.log_span) > 1e-2  # the groups could have been mixed up


def test_the_best_schedule_of_gaussian_data_has_a_constant_loss(x64):
    """E[l^2 | t] = 3 E[l | t]^2, so that the least E[l^2] is 3 L_inf^2, where E[l | t] = L_inf at every t:

    ln(1 + s^2 SNR) is then a straight line in t."""

    def best(t):
        high, low = (jnp.log1p(S**2 * jnp.exp(-g)) for g in (G0, G1))
        return jnp.log(S**2) - jnp.log(jnp.expm1(high + (low - high) * t))

    t, weight = legendre(60)
    gamma = gammas.learned(best, G0, G1)
    np.testing.assert_allclose(moments(gamma, t, weight), [LIMIT, 3 * LIMIT**2], rtol=1e-9)


@pytest.mark.claim("training a schedule's interior leaves the mean and lowers the variance (prints it)", "-s")
def test_training_the_interior_leaves_the_mean_and_lowers_the_variance(key):
    """400 steps of Adam on vdm_objective, batches of 256 draws; then both schedules on the same fresh draws, and by
    quadrature."""
    first = gammas.learned(gammas.monotone(key, hidden=64), G0, G1)

    @partial(jax.jit, static_argnums=2)
    def draw(gamma, key, n):
        """n losses at uniform times."""
        loss, oracle = likelihood.vdm_loss(processes.logsnr(gamma)), exact(gamma)
        x_key, t_key, noise_key = jax.random.split(key, 3)
        x, t = S * jax.random.normal(x_key, (n,)), jax.random.uniform(t_key, (n,))
        return jax.vmap(lambda key, x, t: loss(key, oracle, x, t))(jax.random.split(noise_key, n), x, t)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))

    def objective(interior, key):
        gamma = dataclasses.replace(first, interior=interior)
        losses = lambda _, gamma: draw(gamma, key, 256)  # noqa: E731
        return jnp.mean(likelihood.vdm_objective(losses, losses, (), gamma))

    @jax.jit
    def train(interior):
        def step(carry, key):
            interior, state = carry
            updates, state = optimizer.update(jax.grad(objective)(interior, key), state)
            return (optax.apply_updates(interior, updates), state), None

        return jax.lax.scan(step, (interior, optimizer.init(interior)), jax.random.split(key, 400))[0][0]

    with jax.numpy_dtype_promotion("standard"):
        last = dataclasses.replace(first, interior=train(first.interior))

    n = 20_000
    before, after = (np.asarray(draw(gamma, jax.random.fold_in(key, 1), n), np.float64) for gamma in (first, last))
    t, weight = legendre(400)
    exact_before, exact_after = (np.array(moments(g, t, weight), np.float64) for g in (first, last))
    shift = after - before
    z = shift.mean() / (shift.std() / np.sqrt(n))
    p = stats.ttest_rel((before - LIMIT) ** 2, (after - LIMIT) ** 2, alternative="greater").pvalue
    print("\n                     mean      variance")
    print(f"L_inf, best        {LIMIT:8.5f}   {2 * LIMIT**2:8.4f}")
    for name, (mean, square), sample in (("first", exact_before, before), ("trained", exact_after, after)):
        print(f"{name:8s} exact     {mean:8.5f}   {square - mean**2:8.4f}")
        print(f"         sampled   {sample.mean():8.5f}   {sample.var():8.4f}")
    print(f"means differ by {z:+.2f} standard errors; p of equal variances {p:.1e} (n = {n}, paired)")
    assert abs(z) < 5
    assert abs(after.mean() - LIMIT) < 5 * after.std() / np.sqrt(n)
    np.testing.assert_allclose([exact_before[0], exact_after[0]], LIMIT, rtol=1e-4)
    assert p < 1e-3
    floor = 2 * LIMIT**2
    assert floor < exact_after[1] - exact_after[0] ** 2 < 1.15 * floor < 1.8 * floor < exact_before[1] - LIMIT**2
