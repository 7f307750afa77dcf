"""The generalised sampler of Karras et al. (2022): every solver, schedule, scaling and grid, against intercepts and
slopes that the published program computed on D = (s^2 x + sigma^2 m) / (s^2 + sigma^2)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes, samplers
from jaxdiff.errors import InputError

MEAN, STD = 0.3, 0.5

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.claim(
        "the generalised sampler equals the published intercepts and slopes to 1e-9, all 48 combinations converge"
    ),
]

# The noise levels that each of the published grids goes through, and the grid. The iDDPM levels are cut off at 81.
RANGES = {
    "vp": (0.010485992786706403, 152.16697028394634),
    "ve": (0.02, 100.0),
    "iddpm": (0.002, 81.0),
    "edm": (0.002, 80.0),
}
GRIDS = {
    "vp": lambda p, n: grids.vp(p, n, sigma_min=RANGES["vp"][0], sigma_max=RANGES["vp"][1]),
    "ve": lambda p, n: grids.ve(p, n, sigma_min=0.02, sigma_max=100.0),
    "iddpm": grids.iddpm,
    "edm": lambda p, n: grids.karras(p, n, sigma_min=0.002, sigma_max=80.0),
}
SCHEDULES = {
    "vp": processes.vp_between,
    "ve": lambda low, high: processes.brownian(high),
    "linear": lambda low, high: processes.edm(high),
}
SCALINGS = {"vp": processes.preserving, "none": processes.unscaled}


def generalised(grid, schedule, scaling, steps=18, **options):
    process = SCALINGS[scaling](SCHEDULES[schedule](*RANGES[grid]))
    return samplers.generalised(process, GRIDS[grid](process, steps), **options)


@jax.jit
def ends(sampler, denoise):
    _, sigma = sampler.process.scales(sampler.ts[0])
    key = jax.random.key(0)

    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    # The published latents have unit variance at sigma / alpha.
    return jax.vmap(lambda z: sampler.run(key, denoise, sigma * z, ones))(jnp.array([0.0, 1.0]))


def line(sampler, network=None):
    """Intercept and slope of the result in the latent z."""
    denoise = oracles.gaussian(network or sampler.process, MEAN, STD**2).denoise
    at = ends(sampler, denoise)
    return np.array([at[0], at[1] - at[0]])


EULER, HEUN = {"alpha": None}, {}
TABLE = [
    (("vp", "vp", "vp", EULER), (0.3042201271, 0.4898416872)),
    (("vp", "vp", "vp", HEUN), (0.2978313083, 0.5041956448)),
    (("ve", "ve", "none", EULER), (0.2952285603, 1.5904798975)),
    (("ve", "ve", "none", HEUN), (0.2993923566, 0.2025478008)),
    (("iddpm", "linear", "none", EULER), (0.2982900656, 0.4571435587)),
    (("iddpm", "linear", "none", HEUN), (0.2980991433, 0.5081858155)),
    (("edm", "vp", "vp", EULER), (0.3001112379, 0.5222397521)),
    (("edm", "vp", "vp", HEUN), (0.2949401914, 0.5040047308)),
    (("edm", "linear", "none", EULER), (0.2984136321, 0.4230314364)),
    (("edm", "linear", "none", HEUN), (0.2980214076, 0.5276246370)),
    (("edm", "ve", "none", EULER), (0.2948276962, 1.3792810189)),
    (("edm", "ve", "none", HEUN), (0.2990513036, 0.2529856995)),
    (("edm", "linear", "none", {"alpha": 0.5}), (0.2981333452, 0.4977746122)),
    (("edm", "linear", "none", {"alpha": 2 / 3}), (0.2981021466, 0.5060942335)),
    (
        ("edm", "linear", "none", {"churn": 40, "churn_min": 0.05, "churn_max": 50, "noise_scale": 1.003}),
        (1.9732207787, 0.0200884956),
    ),
]


@pytest.mark.parametrize(("combination", "golden"), TABLE)
def test_the_published_programs_intercept_and_slope(combination, golden):
    *names, options = combination
    np.testing.assert_allclose(line(generalised(*names, **options)), golden, rtol=0, atol=1e-9)


@pytest.mark.parametrize("combination", [(c, g) for c, g in TABLE if not c[3].get("churn")])
def test_it_runs_on_a_network_of_any_process(combination):
    """The same figures with the beliefs of another process that reaches the same noise levels."""
    (*names, options), golden = combination
    for network in (processes.flow(), processes.edm(160.0)):
        sampler = generalised(*names, **options, network=network)
        np.testing.assert_allclose(line(sampler, network), golden, rtol=0, atol=1e-9)


def test_all_48_combinations_are_finite_and_converge():
    """Two solvers x four grids x three schedules x two scalings: four times the steps, less of the error."""
    combinations = list(itertools.product((EULER, HEUN), RANGES, SCHEDULES, SCALINGS))
    assert len(combinations) == 48
    for solver, grid, schedule, scaling in combinations:
        high = RANGES[grid][1]
        shrink = STD / np.hypot(STD, high)  # the exact flow keeps (x - m) / std
        exact = MEAN * (1 - shrink), high * shrink
        # The iDDPM levels are a table of a thousand, and start below its upper limit.
        errors = [abs(line(generalised(grid, schedule, scaling, steps=n, **solver)) - exact) for n in (40, 160)]
        assert np.isfinite(errors).all()
        worse = errors[1] > np.maximum(errors[0], 5e-3)
        assert not worse.any(), (solver, grid, schedule, scaling, errors)


def test_defaults_are_the_edm_sampler():
    process = processes.edm()
    ours = samplers.generalised(process, grids.karras(process, 18))
    np.testing.assert_allclose(line(ours), line(samplers.edm(process, steps=18)), rtol=1e-14)


def test_schedules_rescaled():
    """Equal noise levels, alpha = 1 or alpha^2 + sigma^2 = 1; and each undoes the other."""
    t = np.linspace(0, 1, 50)
    for make in (processes.vp, processes.subvp, processes.edm, processes.ve):
        alpha, sigma = make().scales(t)
        free, kept = processes.unscaled(make()), processes.preserving(make())
        np.testing.assert_allclose(free.scales(t), (np.ones(50), sigma / alpha), rtol=1e-12)
        total = np.sqrt(alpha**2 + sigma**2)
        np.testing.assert_allclose(kept.scales(t), (alpha / total, sigma / total), rtol=1e-12)
        np.testing.assert_allclose(processes.unscaled(kept).scales(t), free.scales(t), rtol=1e-12)
        for process in (free, kept):
            np.testing.assert_allclose(process.time_of((sigma / alpha)[1:]), t[1:], rtol=1e-9)
    # VP is its own, and sigma's derivative at 0 is no trouble for g^2.
    np.testing.assert_allclose(processes.preserving(processes.vp()).scales(t), processes.vp().scales(t), rtol=1e-12)
    sde = jax.jit(lambda: processes.preserving(processes.vp()).sde(jnp.asarray(t)))()
    np.testing.assert_allclose(sde, jax.jit(lambda: processes.vp().sde(jnp.asarray(t)))(), rtol=1e-9)
    # Flow has no signal at 1, where its preserving form is noise alone.
    np.testing.assert_array_equal(processes.preserving(processes.flow()).scales(1.0), (0.0, 1.0))


def test_vp_between_meets_its_noise_levels():
    for low, high in RANGES.values():
        alpha, sigma = processes.vp_between(low, high).scales(np.array([1e-3, 1.0]))
        np.testing.assert_allclose(sigma / alpha, (low, high), rtol=1e-9)
    song = processes.vp_between(*RANGES["vp"]).schedule
    np.testing.assert_allclose((song.beta_min, song.beta_max), (0.1, 20.0), rtol=1e-9)


def test_mistakes():
    process = processes.edm()
    ts = grids.karras(process, 4)
    for alpha in (0.0, 1.5):
        with pytest.raises(InputError, match=r"alpha=\S+, expected 0 < alpha <= 1"):
            samplers.generalised(process, ts, alpha=alpha)
    with pytest.raises(InputError, match=r"divides by sigma at its second call.*euler_in_t"):
        samplers.sample(jax.random.key(0), samplers.runge_kutta_in_t(process), lambda x, t: x, jnp.zeros(2), ts)
