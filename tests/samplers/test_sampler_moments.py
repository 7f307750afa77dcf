"""Stochastic steppers on a correlated Gaussian: each step is the published affine map, that map's recursion converges
to the data law at the stepper's weak order, and drawn samples have the moments of the recursion."""

import affine
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes, samplers

pytestmark = pytest.mark.claim("every stochastic sampler has the moments of its own affine recursion, which converges")


CHURN = {"low": 0.05, "high": 50.0, "noise_scale": 1.003}


def churned(inner, amount):
    return lambda p: samplers.churn(p, inner(p), amount, **CHURN)


def corrected(snr, steps):
    return lambda p: samplers.langevin(p, samplers.euler(p), snr=snr, steps=steps)


# name -> (the stepper of a process, the published step).
ROWS = {
    "euler": (samplers.euler, affine.euler),
    "heun": (samplers.heun, affine.heun),
    "ddim_0": (samplers.ddim, affine.ddim(0.0)),
    "ddim_half": (lambda p: samplers.ddim(p, 0.5), affine.ddim(0.5)),
    "ddim_1": (lambda p: samplers.ddim(p, 1.0), affine.ancestral),
    "ancestral": (samplers.ancestral, affine.ancestral),
    "reverse_sde_0": (lambda p: samplers.reverse_sde(p, 0.0), affine.reverse_sde(0.0)),
    "reverse_sde_half": (lambda p: samplers.reverse_sde(p, 0.5), affine.reverse_sde(0.5)),
    "reverse_sde": (samplers.reverse_sde, affine.reverse_sde(1.0)),
    "churn_heun": (churned(samplers.heun, 0.2), affine.churn(affine.heun, 0.2, **CHURN)),
    "churn_euler": (churned(samplers.euler, 0.4), affine.churn(affine.euler, 0.4, **CHURN)),
    "langevin_euler": (corrected(0.3, 2), affine.langevin(affine.euler, 0.3, 2)),
}
STOCHASTIC = [name for name in ROWS if name not in ("euler", "heun", "ddim_0", "reverse_sde_0", "ddim_1")]

# Uneven steps over the whole range, the first from so near the end that churn's climb is cut at t = 1.
PAIRS = np.array([[0.97, 0.8], [0.8, 0.71], [0.6, 0.2], [0.2, 0.17], [0.1, 0.03], [2e-3, 5e-4], [2e-4, 5e-5]])


@jax.jit
def own_maps(oracle, stepper, pairs):
    """(A, b, C) of each step, found from the stepper by differentiating it in x and in the noise it is given; and how
    far off that map a step from elsewhere is."""

    def one(pair):
        t, s = pair

        def move(x, z):
            carry = stepper.init(x, t)
            return stepper.step(jax.random.key(0), oracle.denoise, carry, x, t, s, noise=lambda k, shape, d: z)[0]

        zero, x, z = jnp.zeros(2), jnp.array([5.0, -7.0]), jnp.array([-3.0, 2.0])
        (A, C), b = jax.jacfwd(move, (0, 1))(zero, zero), move(zero, zero)
        return A, b, C, move(x, z) - (A @ x + b + C @ z)

    return jax.vmap(one)(pairs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ROWS)
def test_each_step_is_the_published_affine_map(name):
    make, published = ROWS[name]
    for process in ("vp", "edm", "flow"):
        p = getattr(processes, process)()
        own = own_maps(oracles.gaussian(p, affine.MEAN, affine.COV), make(p), jnp.asarray(PAIRS))
        for A, b, C, bend, (t, s) in zip(*map(np.asarray, own), PAIRS, strict=True):
            expected = published(affine.PUBLISHED[process], affine.IDENTITY, t, s)
            # The largest entry sets the scale; EDM's sigma is up to 80.
            scale = max(1, abs(expected.shared()).max())
            np.testing.assert_allclose(A, expected.A, rtol=0, atol=1e-9 * scale)
            np.testing.assert_allclose(b, expected.b, rtol=0, atol=1e-9 * scale)
            np.testing.assert_allclose(C, expected.shared(), rtol=0, atol=1e-9 * scale)
            np.testing.assert_allclose(bend, 0, atol=1e-9 * scale)


def test_ancestral_on_vp_is_ddpm_as_published():
    p = affine.PUBLISHED["vp"]
    for t, s in PAIRS:
        bayes, ho = (step(p, affine.IDENTITY, t, s) for step in (affine.ancestral, affine.ddpm))
        np.testing.assert_allclose(bayes.A, ho.A, atol=1e-9)
        np.testing.assert_allclose(bayes.b, ho.b, atol=1e-9)
        np.testing.assert_allclose(bayes.shared(), ho.shared(), atol=1e-9)


# Churn and correction per step shrink with the step, else their own bias would not.
WEAK_ORDER = {
    "ddim_half": (lambda n: affine.ddim(0.5), 1),
    "ancestral": (lambda n: affine.ancestral, 1),
    "reverse_sde_half": (lambda n: affine.reverse_sde(0.5), 1),
    "reverse_sde": (lambda n: affine.reverse_sde(1.0), 1),
    "churn_heun": (lambda n: affine.churn(affine.heun, 4 / n, noise_scale=1.0), 2),
    "churn_euler": (lambda n: affine.churn(affine.euler, 4 / n, noise_scale=1.0), 1),
    "langevin_euler": (lambda n: affine.langevin(affine.euler, n**-0.5, 2), 1),
}


@pytest.mark.parametrize("name", WEAK_ORDER)
@pytest.mark.parametrize("process", ["vp", "edm", "flow"])
def test_the_recursion_converges_to_the_data_law_at_the_weak_order(name, process):
    make, order = WEAK_ORDER[name]
    p = affine.PUBLISHED[process]
    errors = []
    for n in (80, 160):
        ts = np.array([p.time_of(r) for r in np.geomspace(8.0, 0.1, n + 1)])
        found, exact = affine.walk(p, make(n), ts, *affine.law(p, ts[0])), affine.law(p, ts[-1])
        errors.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(found, exact, strict=True))))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25, errors


def constant(denoise):
    return lambda cond: denoise


@pytest.mark.parametrize(
    ("name", "process"),
    [
        *((name, "vp") for name in STOCHASTIC),
        ("ancestral", "flow"),
        ("reverse_sde_half", "flow"),
        ("churn_heun", "flow"),
    ],
)
def test_samples_have_the_moments_of_the_recursion(name, process, key):
    make, published = ROWS[name]
    p, exact = getattr(processes, process)(), affine.PUBLISHED[process]
    ends = {
        "first": samplers.euler(p) if "sde" in name and process == "flow" else None,
        "last": samplers.euler(p) if name == "churn_heun" else None,
    }
    ts = grids.karras(p, 10)
    sampler = samplers.Sampler(p, make(p), ts, **ends)
    n = 100_000
    oracle = oracles.gaussian(p, affine.MEAN, affine.COV)
    x = samplers.draw(key, n, constant(oracle.denoise), sampler, (2,), chunk=n // 2)
    ends = {name: affine.euler for name, end in ends.items() if end is not None}
    start = np.zeros(2), exact.scales(1.0)[1] ** 2 * affine.EYE
    mean, cov = affine.walk(exact, published, np.asarray(ts, np.float64), *start, **ends)
    assert np.all(abs(x.mean(0) - mean) < 5 * np.sqrt(np.diag(cov) / n))
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)  # of a Gaussian's sample covariance
    assert np.all(abs(np.cov(x.T) - cov) < 5 * spread)
