"""Every process is what its paper says: scales and (f, g^2) against the papers' formulas and each other, the inverse,
the precision of float32, the prior, the perturbation, and p(x_s | x_t, x0) against Bayes' rule."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from roster import ALPHA_ENDS_AT_0, PROCESSES, SIGMA_STARTS_AT_0
from scipy.integrate import solve_ivp

from jaxdiff import processes
from jaxdiff.errors import InputError
from jaxdiff.schedules import LinearGamma

pytestmark = pytest.mark.claim("(f, g^2) integrate to (alpha, sigma^2); float32 agrees with float64")


every_process = pytest.mark.parametrize("name", PROCESSES)

# Dense, and geometric towards both ends.
EDGE = np.geomspace(1e-6, 1e-2, 60)
TIMES = np.unique(np.concatenate([[0.0], EDGE, np.linspace(0.01, 0.99, 500), 1 - EDGE, [1.0]]))
INSIDE = TIMES[1:-1]


@every_process
def test_scales_are_the_papers(name, x64):
    alpha, sigma = PROCESSES[name]().scales(INSIDE)
    # 1 - abar of the papers' cosine cancels near t = 0, and its cos near t = 1; other schedules keep all their bits.
    exact_alpha, exact_sigma = papers.SCHEDULES[name](INSIDE.astype(np.longdouble) if name == "cosine" else INSIDE)
    np.testing.assert_allclose(alpha, exact_alpha.astype(float), rtol=1e-9)
    np.testing.assert_allclose(sigma, exact_sigma.astype(float), rtol=1e-9)


@pytest.mark.parametrize("name", papers.SDES)
def test_drift_and_diffusion_are_the_papers(name, x64):
    t = np.linspace(0, 0.99, 100)
    f, g2 = PROCESSES[name]().sde(t)
    exact_f, exact_g2 = papers.SDES[name](t)
    np.testing.assert_allclose(f, exact_f, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(g2, exact_g2, rtol=1e-9, atol=1e-12)


@every_process
def test_the_sde_moves_the_moments_as_alpha_and_sigma_do(name, x64):
    """m' = f m and v' = 2 f v + g^2 over each thousandth of [0, 1], then chained: there iDDPM's beta jumps."""
    process, width = PROCESSES[name](), 1e-3
    count = 990 if name in ALPHA_ENDS_AT_0 else 1000  # f and g^2 are infinite where alpha = 0
    sde = eqx.filter_jit(process.sde)
    start = np.arange(count)

    def slope(u, moments):
        f, g2 = sde((start + np.clip(u, 1e-9, 1 - 1e-9)) * width)
        m, v = moments.reshape(2, count)
        return width * np.concatenate([f * m, 2 * f * v + g2])

    solution = solve_ivp(
        slope, (0, 1), np.repeat([1.0, 0.0], count), method="DOP853", rtol=1e-12, atol=1e-14, t_eval=[1.0]
    )
    m, v = solution.y[:, -1].reshape(2, count)
    alpha, sigma = (np.asarray(s) for s in process.scales((start + 1) * width))
    mean, variance = (float(s) for s in process.scales(0.0))
    variance = variance**2
    worst = 0.0
    for k in range(count):
        mean, variance = m[k] * mean, m[k] ** 2 * variance + v[k]
        worst = max(worst, abs(mean / alpha[k] - 1), abs(variance / sigma[k] ** 2 - 1))
    assert worst < 1e-7, worst


def _off(low, high, floor):
    low, high = np.asarray(low, np.float64), np.asarray(high)
    there = np.isfinite(high) & (high != 0)
    np.testing.assert_array_equal(low[~there], high[~there])
    return np.max(np.abs(low[there] - high[there]) / np.maximum(np.abs(high[there]), floor))


@every_process
def test_float32_keeps_its_precision_over_the_whole_range(name, x64):
    process = PROCESSES[name]()
    t = TIMES.astype(np.float32)
    ratio = np.geomspace(0.002, 100, 1000).astype(np.float32)
    alpha, sigma = np.asarray(process.scales(np.array([0.0, 1.0])))
    ratio = ratio[(ratio * alpha[0] >= sigma[0]) & (ratio * alpha[1] <= sigma[1])]
    both = jax.jit(lambda t, ratio: (*process.scales(t), process.log_snr(t), process.time_of(ratio)))
    low, high = both(t, ratio), both(t.astype(float), ratio.astype(float))
    assert {x.dtype for x in low} == {jnp.dtype("float32")}
    # A log crosses zero, where only its absolute error means something: that is the ratio's relative error. So does
    # VE's time, a log of sigma / sigma_min.
    floors = (0, 0, 1, 1 if name == "ve" else 0)
    errors = [_off(a, b, floor) for a, b, floor in zip(low, high, floors, strict=True)]
    assert max(errors) < 1e-5, errors


@every_process
def test_time_of_inverts_the_ratio_and_noise_only_grows(name, x64):
    process = PROCESSES[name]()
    alpha, sigma = process.scales(TIMES)
    ratio = sigma / alpha
    np.testing.assert_allclose(process.time_of(ratio), TIMES, rtol=1e-9, atol=1e-13)
    assert np.all(np.diff(ratio) > 0)
    assert np.all(np.diff(process.log_snr(TIMES)) < 0)
    assert np.all(np.diff(alpha) <= 0)
    assert np.all(np.diff(sigma) > 0)
    np.testing.assert_allclose(process.log_snr(INSIDE), np.log((alpha / sigma)[1:-1] ** 2), rtol=1e-9, atol=1e-12)


@every_process
def test_ends_are_exact(name):
    process = PROCESSES[name]()
    (alpha0, sigma0), (alpha1, sigma1) = process.scales(0.0), process.scales(1.0)
    if name != "logsnr":
        assert alpha0 == 1
    assert (sigma0 == 0) == (name in SIGMA_STARTS_AT_0)
    assert (alpha1 == 0) == (name in ALPHA_ENDS_AT_0)
    if name in ALPHA_ENDS_AT_0:
        np.testing.assert_allclose(sigma1, 1, rtol=1e-7)
        assert process.time_of(np.inf) == 1
    if name in SIGMA_STARTS_AT_0:
        assert process.time_of(0.0) == 0


def test_published_noise_levels(x64):
    def ratio(process, t):
        return np.divide(*process.scales(t)[::-1])

    np.testing.assert_allclose(
        [ratio(processes.vp(), 1e-3), ratio(processes.vp(), 1.0)],
        [papers.VP_SIGMA_AT_1E_3, papers.VP_SIGMA_AT_1],
        rtol=1e-12,
    )
    iddpm = processes.iddpm()
    for j, u in papers.IDDPM_U.items():
        np.testing.assert_allclose(ratio(iddpm, (1000 - j) / 1000), u, rtol=1e-9)
    ends = {"ve": (0.02, 100.0), "edm": (0.0, 80.0)}
    for name, levels in ends.items():
        np.testing.assert_allclose([ratio(PROCESSES[name](), t) for t in (0.0, 1.0)], levels, rtol=1e-14)
    np.testing.assert_allclose(
        [processes.logsnr().log_snr(0.0), processes.logsnr().log_snr(1.0)], [13.3, -5.0], rtol=1e-12
    )


@every_process
def test_prior_has_the_right_scale(name, key):
    n, scale = 40_000, {"ve": 100.0, "edm": 80.0, "brownian": 100.0}.get(name, 1.0)
    x = np.asarray(PROCESSES[name]().prior(key, (n,)), np.float64)
    # Sub-VP's and iDDPM's sigma(1) is within 4.3e-5 of 1, VP's within 2.2e-5, log-SNR's sqrt(sigmoid(5)) = .99666.
    scale = 0.9966536 if name == "logsnr" else scale
    assert abs(x.mean()) < 5 * scale / np.sqrt(n)
    assert abs(np.mean(x**2) / scale**2 - 1) < 5 * np.sqrt(2 / n)


@every_process
def test_perturbed_data_have_mean_alpha_x0_and_variance_sigma_squared(name, key):
    n, x0, t = 40_000, 3.0, 0.3
    x = np.asarray(PROCESSES[name]().perturb(key, jnp.full(n, x0), t), np.float64)
    alpha, sigma = papers.SCHEDULES[name](np.float64(t))
    assert abs(x.mean() - alpha * x0) < 5 * sigma / np.sqrt(n)
    assert abs(x.var() / sigma**2 - 1) < 5 * np.sqrt(2 / n)


def test_prior_takes_the_shape_and_dtype_of_what_it_is_shown(key):
    vp = processes.vp()
    like = jax.ShapeDtypeStruct((3, 2), jnp.bfloat16)
    assert (vp.prior(key, like).shape, vp.prior(key, like).dtype) == ((3, 2), jnp.bfloat16)
    assert vp.prior(key, jnp.zeros((4,))).dtype == vp.prior(key, (4,)).dtype == jnp.float32
    np.testing.assert_array_equal(vp.prior(key, (5,), 0.0, noise=jax.random.uniform), 0.0)
    ones = processes.edm().prior(key, (5,), noise=lambda key, shape, dtype: jnp.ones(shape, dtype))
    np.testing.assert_array_equal(ones, 80.0)


def _bayes(alpha, sigma, alpha_s, sigma_s, x, x0):
    """Condition the joint normal of (x_s, x_t) given x0 on x_t, where x_t = (alpha / alpha_s) x_s + fresh noise."""
    keep = alpha / alpha_s
    joint = np.array([[sigma_s**2, keep * sigma_s**2], [keep * sigma_s**2, sigma**2]])
    mean = np.array([alpha_s, alpha]) * x0
    gain = joint[0, 1] / joint[1, 1]
    return mean[0] + gain * (x - mean[1]), np.sqrt(max(joint[0, 0] - gain * joint[1, 0], 0))


@every_process
def test_posterior_is_bayes_rule(name, x64):
    process, x, x0 = PROCESSES[name](), 0.7, -1.3
    for t, s in ((0.9, 0.8), (0.9, 0.1), (0.5, 0.45), (0.5, 0.02), (0.1, 0.01), (0.04, 0.0), (1.0, 0.6), (1.0, 0.0)):
        scales = [float(v) for v in (*papers.SCHEDULES[name](np.float64(t)), *papers.SCHEDULES[name](np.float64(s)))]
        mean, std = process.posterior(np.float64(x), np.float64(x0), t, s)
        exact_mean, exact_std = _bayes(*scales, x, x0)
        np.testing.assert_allclose(mean, exact_mean, rtol=1e-9, err_msg=f"{t} {s}")
        np.testing.assert_allclose(std, exact_std, rtol=1e-7, atol=1e-9, err_msg=f"{t} {s}")


@every_process
def test_a_bridge_draws_bayes_rule(name, key):
    process, n = PROCESSES[name](), 40_000
    x, x0 = jnp.full(n, 0.7), jnp.full(n, -1.3)
    draw = jax.jit(lambda k, t, s: process.bridge(k, x, x0, t, s))
    for t, s in ((0.9, 0.1), (0.5, 0.45), (1.0, 0.6)):
        scales = [float(v) for v in (*papers.SCHEDULES[name](np.float64(t)), *papers.SCHEDULES[name](np.float64(s)))]
        mean, std = _bayes(*scales, 0.7, -1.3)
        drawn = np.asarray(draw(jax.random.fold_in(key, int(100 * s)), t, s), np.float64)
        assert abs(drawn.mean() - mean) < 5 * std / np.sqrt(n) + 1e-5 * abs(mean), (t, s)
        assert abs(drawn.var() / std**2 - 1) < 5 * np.sqrt(2 / n), (t, s)


@every_process
def test_posterior_at_the_ends(name):
    process, x, x0 = PROCESSES[name](), jnp.asarray(0.7), jnp.asarray(-1.3)
    mean, std = process.posterior(x, x0, 0.5, 0.0)
    if name in SIGMA_STARTS_AT_0:  # the data end is known: it is x0
        assert (mean, std) == (x0, 0)
    mean, std = process.posterior(x, x0, 1.0, 0.5)
    if name in ALPHA_ENDS_AT_0:  # pure noise says nothing of x_s
        alpha_s, sigma_s = process.scales(0.5)
        np.testing.assert_allclose([mean, std], [alpha_s * x0, sigma_s], rtol=1e-6)
    mean, std = process.posterior(x, x0, 0.5, jnp.nextafter(jnp.float32(0.5), 0.0))
    np.testing.assert_allclose(mean, x, rtol=1e-3)
    assert 0 <= std < 1e-1


class Pair(NamedTuple):
    pos: object
    feat: object


def test_product_draws_hang_on_names_not_on_the_kind_or_the_order_of_the_tree(key):
    parts = {"pos": processes.ve(), "feat": processes.vp()}
    shapes = {"pos": jnp.zeros(4), "feat": jnp.zeros((2, 3))}
    as_dict = processes.Product(parts)
    as_tuple = processes.Product(Pair(**parts))
    wider = processes.Product(parts | {"another": processes.flow()})
    for act in (
        lambda p, tree: p.prior(key, tree),
        lambda p, tree: p.perturb(key, tree, 0.3),
    ):
        one = act(as_dict, shapes)
        two = act(as_tuple, Pair(**shapes))
        three = act(wider, shapes | {"another": jnp.zeros(4)})
        for leaf in shapes:
            np.testing.assert_array_equal(one[leaf], getattr(two, leaf))
            np.testing.assert_array_equal(one[leaf], three[leaf])
        # Leaves of one shape do not share their noise.
        assert not np.allclose(three["pos"] / 100, three["another"])


def test_product_takes_one_time_or_a_tree_prefix_of_times(key):
    product = processes.Product({"a": {"x": processes.edm(), "y": processes.vp()}, "b": processes.flow()})
    x0 = {"a": {"x": jnp.ones(3), "y": jnp.ones(2)}, "b": jnp.ones(4)}
    prefix = product.perturb(key, x0, {"a": 0.5, "b": 0.0})
    full = product.perturb(key, x0, {"a": {"x": 0.5, "y": 0.5}, "b": 0.0})
    everywhere = product.perturb(key, x0, 0.5)
    jax.tree.map(np.testing.assert_array_equal, prefix, full)
    jax.tree.map(np.testing.assert_array_equal, prefix["a"], everywhere["a"])
    np.testing.assert_array_equal(prefix["b"], x0["b"])
    assert not np.allclose(everywhere["b"], x0["b"])


def test_a_product_is_itself_a_process(key):
    inner = processes.Product({"x": processes.vp(), "y": processes.edm()})
    outer = processes.Product({"in": inner, "out": processes.flow()})
    assert isinstance(outer, processes.Process)
    x1 = outer.prior(key, {"in": {"x": jnp.zeros(2), "y": jnp.zeros(2)}, "out": jnp.zeros(3)})
    assert jax.tree.map(jnp.shape, x1) == {"in": {"x": (2,), "y": (2,)}, "out": (3,)}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: processes.vp(20.0, 0.1), "beta_min=20.0 is not below beta_max=0.1"),
        (lambda: processes.ve(1.0, 1.0), "sigma_min=1.0 is not below sigma_max=1.0"),
        (lambda: processes.edm(0.0), "sigma_max is 0.0, expected a number above 0"),
        (lambda: processes.cosine(-0.1), "s is -0.1"),
        (lambda: processes.iddpm(0), "steps=0"),
        (lambda: processes.logsnr(LinearGamma(5.0, -13.3)), "start=5.0 is not below end=-13.3"),
        (lambda: processes.Product({}), "empty tree"),
        (lambda: processes.Product({"x": 3}), "expected a tree whose leaves are processes"),
    ],
)
def test_mistakes_in_a_process(make, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        make()


# Laws that every pytree of functions obeys (DESIGN, rule 12) --------------------------------------------------------


def _quantities(process, t):
    x, x0 = jnp.asarray(0.4, t.dtype), jnp.asarray(-0.2, t.dtype)
    return (
        *process.scales(t),
        process.log_snr(t),
        process.time_of(0.5 + t),
        *process.sde(t),
        *process.posterior(x, x0, t, 0.5 * t),
    )


@every_process
def test_a_process_is_a_pytree_that_compiles_once_and_maps(name):
    process, traces = PROCESSES[name](), 0
    leaves, form = jax.tree.flatten(process)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)

    @jax.jit
    def quantities(process, t):
        nonlocal traces
        traces += 1
        looped = [_quantities(process, t[i]) for i in range(3)]
        # Mapped, as an array of times (which gives a number a time), and one by one.
        return jax.vmap(lambda t: _quantities(process, t))(t), _quantities(process, t), looped

    t = jnp.array([0.2, 0.5, 0.9])
    mapped, together, looped = quantities(jax.tree.unflatten(form, leaves), t)
    quantities(PROCESSES[name](), t)
    assert traces == 1
    np.testing.assert_allclose(mapped, together, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(np.transpose(looped), together, rtol=2e-5, atol=1e-6)


@every_process
def test_dtype_in_is_dtype_out(name, key, x64):
    process = PROCESSES[name]()
    for dtype in (jnp.float32, jnp.float64, jnp.bfloat16):
        t, x = jnp.asarray(0.5, dtype), jnp.ones(3, dtype)
        outs = jax.eval_shape(
            lambda t, x: (
                *_quantities(process, t),
                process.perturb(key, x, t),
                process.perturb(key, x, 0.5),
                process.prior(key, x),
            ),
            t,
            x,
        )
        assert {out.dtype for out in outs} == {jnp.dtype(dtype)}


LEARNABLE = [name for name in PROCESSES if name not in ("flow", "iddpm")]


@pytest.mark.parametrize("name", LEARNABLE)
def test_gradients_of_a_schedule_are_finite_at_both_ends_and_match_differences(name, x64):
    process = PROCESSES[name]()

    def probe(process, t):
        return jnp.stack([*process.scales(t), process.time_of(0.3 + t), process.sde(t)[1]])

    @jax.jit
    def slopes(process, shift, t):
        up, down = (jax.tree.map(lambda a, b, s=s: a + s * b, process, shift) for s in (1, -1))
        _, exact = jax.jvp(lambda p: probe(p, t), (process,), (shift,))
        return exact, (probe(up, t) - probe(down, t)) / 2

    shift = jax.tree.map(lambda leaf: 1e-6 * (1 + jnp.abs(leaf)), process)
    for t in (0.2, 0.7):
        exact, differences = slopes(process, shift, t)
        np.testing.assert_allclose(exact, differences, rtol=1e-5, atol=1e-11)
    # The square root in sigma is no harm to (f, g^2), nor to alpha, at the very ends.
    at = jax.jit(jax.grad(lambda p, t: p.scales(t)[0] + sum(p.sde(t))))
    for t in (0.0, 1.0) if name not in ALPHA_ENDS_AT_0 else (0.0,):
        gradient = at(process, t)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


class Curve(eqx.Module):
    """A monotone cubic with learnable coefficients, nothing that jaxdiff knows."""

    rates: jax.Array

    def __call__(self, t):
        a, b, c = jax.nn.softplus(self.rates).astype(jnp.result_type(t))
        return -8.0 + a * t + b * t**2 + c * t**3


def test_a_learned_log_snr_is_a_process_and_every_door_has_its_gradient(x64):
    curve = Curve(jnp.array([6.0, 4.0, 2.0]))

    @jax.jit
    def probe(curve, t):
        process = processes.logsnr(curve)
        return jnp.stack([*process.scales(t), process.log_snr(t), process.time_of(0.2 + t), *process.sde(t)])

    forward, backward, eye = jax.jit(jax.jacfwd(probe)), jax.jit(jax.jacrev(probe)), 1e-6 * np.eye(3)
    for t in (0.0, 0.3, 1.0):
        exact, reverse = forward(curve, t).rates, backward(curve, t).rates
        shifts = [probe(Curve(curve.rates + e), t) - probe(Curve(curve.rates - e), t) for e in eye]
        np.testing.assert_allclose(exact, np.stack(shifts, 1) / 2e-6, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(reverse, exact, rtol=1e-9, atol=1e-12)
    # A plain function is a gamma too.
    process = processes.logsnr(lambda t: 12 * t - 6)
    np.testing.assert_allclose(process.log_snr(jnp.array([0.0, 0.5, 1.0])), [6.0, 0.0, -6.0], atol=1e-12)
    np.testing.assert_allclose(process.time_of(1.0), 0.5, rtol=1e-12)
