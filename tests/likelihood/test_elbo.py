"""The bound is log q_t0(x) itself for the exact score, whatever x, the process and the form; for another score its mean
is -H - KL - J. Its estimates have that mean with the standard errors that they state, and with a decoder it stays below
the exact log p(x) of clean data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from roster import PROCESSES

from jaxdiff import grids, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.likelihood import decoders, vdm
from jaxdiff.likelihood.elbo import elbo
from jaxdiff.likelihood.ends import start

MIXTURE = ([0.3, 0.7], [-1.0, 1.2], [0.05, 0.2])
POINTS = np.array([-1.0, -0.2, 0.5, 1.2, 2.5])
COV = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])
MEAN = np.array([0.3, -0.5, 0.1])
FORMS = {
    "dsm": {"form": "dsm"},
    "ism": {"form": "ism"},
    "hutchinson": {"form": "ism", "divergence": "hutchinson", "probes": 2},
    "ssm": {"form": "ssm", "probes": 2},
}


def _node(node, key, shape, dtype):
    return jnp.full(shape, node, dtype)


def _log_prob(oracle, x):
    return oracle.log_prob(x, 1.0)


def integrated(process, denoise, x, *, nodes, n_times, **options):
    """The bound without Monte Carlo: its noise at the nodes of Gauss and Hermite, its times at those of Legendre."""
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)

    def one(x, node):
        return elbo(
            jax.random.key(0), process, denoise, x,
            times=grids.quadrature_times, n_times=n_times, draws=1, noise=Partial(_node, node), **options,
        ).value  # fmt: skip

    table = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(jnp.asarray(x), jnp.asarray(at))
    return np.asarray(table) @ (weight / weight.sum())


@pytest.mark.claim(
    "with the exact score and prior the ELBO is log q at the five published points, to 1e-5, in all three forms"
)
@pytest.mark.parametrize("form", ["dsm", "ism", "ssm"])
def test_with_the_exact_score_the_bound_is_the_log_density_at_published_points(form, x64):
    process = processes.vp()
    oracle = oracles.mixture(process, *MIXTURE)
    found = integrated(
        process, oracle.denoise, POINTS, form=form, t0=1e-3, prior=Partial(_log_prob, oracle), nodes=80, n_times=64
    )
    known = [-0.626082, -5.191753, -1.695345, -0.471114, -4.694686]
    print(f"{form}: {found}, off by {np.abs(found - known).max():.1e}")
    np.testing.assert_allclose(found, known, atol=1e-5)
    if form != "dsm":
        return
    # From the process's own prior N(0, sigma(1)^2) it is a lower bound.
    own = integrated(process, oracle.denoise, POINTS, form=form, t0=1e-3, nodes=80, n_times=64)
    assert 1e-6 < np.abs(own - known).max() < 6e-5


@pytest.mark.parametrize("name", ["ve", "flow"])
def test_on_other_processes(name, x64):
    process = PROCESSES[name]()
    oracle = oracles.mixture(process, *MIXTURE)
    exact = jax.vmap(oracle.log_prob, (0, None))(POINTS, start(process))
    # In float64 the flow reaches a noise level of 7e7: more nodes.
    found = integrated(
        process, oracle.denoise, POINTS, form="dsm", prior=Partial(_log_prob, oracle), nodes=80, n_times=160
    )
    np.testing.assert_allclose(found, exact, atol=1e-5)


def _skewed(k, c, process, x, t):
    """The belief that makes the score -(x - alpha m - c) / (k v_t) of data N(.7, .25)."""
    alpha, sigma = process.scales(t)
    v = alpha**2 * 0.25 + sigma**2
    return (x - sigma**2 * (x - alpha * 0.7 - c) / (k * v)) / alpha


@pytest.mark.claim("the ELBO's mean is -H - KL - J of a mis-specified score, to 1e-9")
def test_the_mean_bound_is_entropy_and_prior_and_score_error(x64):
    """Data N(.7, .25) on VP from t0 = 1e-3, score -(x - m - c) / (k v) with k = 1.2, c = .05: -H - KL_T - J."""
    process, t0 = processes.vp(), 1e-3
    alpha, sigma = (float(scale) for scale in process.scales(t0))
    at, weight = np.polynomial.hermite_e.hermegauss(8)  # all is quadratic
    x = 0.7 * alpha + np.sqrt(0.25 * alpha**2 + sigma**2) * at
    for form in ("dsm", "ism"):
        # sdeflow's prior is N(0, 1).
        bounds = integrated(
            process, Partial(_skewed, 1.2, 0.05, process), x, form=form, t0=t0, nodes=8, n_times=64,
            prior=Partial(lambda x: jnp.sum(jax.scipy.stats.norm.logpdf(x))),
        )  # fmt: skip
        mean = bounds @ (weight / weight.sum())
        print(f"{form}: mean bound {mean:.13f}")
        np.testing.assert_allclose(mean, -0.8973276093642073, atol=1e-9)


# Estimates -----------------------------------------------------------------------------------------------------------


def estimates(key, n, process, denoise, x, **options):
    keys = jax.random.split(key, n)
    return jax.jit(jax.vmap(lambda k: elbo(k, process, denoise, x, **options)))(keys)


def _network(x, t):
    inward = jnp.array([[0.9, -0.8, 0.3], [0.1, 0.7, 0.9], [-0.6, 0.2, 0.5]], x.dtype)
    outward = jnp.array([[0.4, 0.7, -0.2], [-0.9, 0.3, 0.4], [0.2, -0.5, 0.6]], x.dtype)
    return 0.6 * x + 0.2 * outward @ jnp.tanh(inward @ x + t)


def test_the_forms_have_one_mean_on_a_jacobian_without_symmetry(key):
    process, x = processes.vp(), jnp.array([0.2, -0.9, 0.5])
    found = {}
    for i, (name, form) in enumerate(FORMS.items()):
        values = estimates(jax.random.fold_in(key, i), 200, process, _network, x, t0=0.01, **form).value
        values = np.asarray(values, float)
        found[name] = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
        z = (found[name][0] - found["dsm"][0]) / np.hypot(found[name][1], found["dsm"][1])
        print(f"{name}: {found[name][0]:.3f} +- {found[name][1]:.3f}, z {z:.2f}")
        assert abs(z) < 5
        assert found[name][1] < 0.3, name


@pytest.mark.parametrize("law", [grids.uniform_times, grids.importance_times])
def test_the_mean_over_draws_is_the_log_density_and_the_standard_error_is_true(law, key):
    process, n, x = processes.vp(), 300, jnp.array([0.2, -0.9, 0.5])
    oracle = oracles.gaussian(process, MEAN, COV)
    found = estimates(key, n, process, oracle.denoise, x, t0=0.01, prior=Partial(_log_prob, oracle), times=law)
    values = np.asarray(found.value, float)
    exact = float(oracle.log_prob(x, 0.01))
    z = (values.mean() - exact) / (values.std(ddof=1) / np.sqrt(n))
    print(f"{law.__name__}: {values.mean():.4f} for {exact:.4f}, z {z:.2f}, spread {values.std():.4f}")
    assert abs(z) < 5
    # The mean square of the stated error is the variance: each within 5 of its own errors.
    stated, seen = np.asarray(found.stderr, float) ** 2, (values - values.mean()) ** 2
    assert abs(stated.mean() - seen.mean()) < 5 * np.hypot(stated.std(), seen.std()) / np.sqrt(n)


def test_a_given_prior_is_drawn_and_the_default_is_its_mean(key):
    process, x = processes.ve(), jnp.array([0.2, -0.9, 0.5])
    oracle = oracles.gaussian(process, MEAN, COV)
    own = elbo(key, process, oracle.denoise, x)
    same = elbo(key, process, oracle.denoise, x, prior=process.log_prior, draws=64)
    assert own.stderrs["prior"] == 0
    assert abs(same.terms["prior"] - own.terms["prior"]) < 5 * same.stderrs["prior"]
    assert same.stderrs["prior"] < 0.1


def test_terms_add_up_and_one_draw_has_no_error(key):
    process = processes.flow()
    oracle = oracles.gaussian(process, MEAN, COV)
    found = elbo(key, process, oracle.denoise, jnp.asarray(MEAN, jnp.float32), decoder=decoders.gaussian())
    assert found.terms.keys() == found.stderrs.keys() == {"prior", "diffusion", "entropy", "reconstruction"}
    np.testing.assert_allclose(sum(found.terms.values()), found.value, rtol=1e-5)
    assert found.stderrs["entropy"] == found.stderrs["prior"] == 0
    assert 0 < found.stderr < 5
    one = elbo(key, process, oracle.denoise, jnp.asarray(MEAN, jnp.float32), draws=1)
    assert one.terms.keys() == {"prior", "diffusion"}
    assert jnp.isfinite(one.value)
    assert jnp.isnan(one.stderr)


# Clean data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "t0"), [("flow", 0.15), ("ve", 0.25)])
def test_with_a_decoder_it_is_below_the_log_density_of_the_model_for_every_x(name, t0, x64):
    """With the exact denoiser the model is z ~ q_t0, x ~ N(D(z), (sigma / alpha)^2): its density by the trapezium rule
    in z; and on average over the data the bound is below their own log-density."""
    process = PROCESSES[name]()
    oracle = oracles.mixture(process, *MIXTURE)
    alpha, sigma = (float(scale) for scale in process.scales(t0))
    x = np.linspace(-2.5, 3.7, 63)
    options = {"decoder": decoders.gaussian(), "prior": Partial(_log_prob, oracle), "nodes": 80, "n_times": 160}
    found = integrated(process, oracle.denoise, x, form="dsm", t0=t0, **options)
    z = np.linspace(-4, 5, 20_001)
    log_q, belief = (np.asarray(jax.vmap(f, (0, None))(z, t0)) for f in (oracle.log_prob, oracle.denoise))
    joint = log_q - 0.5 * ((x[:, None] - belief) * alpha / sigma) ** 2 - np.log(np.sqrt(2 * np.pi) * sigma / alpha)
    model = np.log(np.sum(np.exp(joint), 1) * (z[1] - z[0]))
    print(f"{name}: log p_model less the bound {(model - found).min():.2e} to {(model - found).max():.2e}")
    assert np.all(found < model + 1e-6)
    w, m, v = np.array(MIXTURE)
    data = np.sum(w * np.exp(-0.5 * (x[:, None] - m) ** 2 / v) / np.sqrt(2 * np.pi * v), 1)
    gap = np.sum(data * (np.log(data) - found)) * (x[1] - x[0])
    print(f"{name}: the mean of log p of the data less the bound {gap:.2e}")
    assert 1e-5 < gap < 0.1
    # Without the entropy it would be no bound, by D/2 log(2 pi e sigma^2).
    assert gap + 0.5 * np.log(2 * np.pi * np.e * sigma**2) < -0.3


def test_with_a_decoder_it_is_the_bound_of_variational_diffusion_models(x64):
    """Another arrangement of one sum: KL(q(z_1 | x) | p_1) there is `prior` and part of `entropy` here."""
    process = processes.logsnr()
    oracle, x = oracles.mixture(process, *MIXTURE), jnp.asarray(0.5)
    at, weight = np.polynomial.hermite_e.hermegauss(80)

    def both(node):
        options = {"decoder": decoders.discrete(9, -2.0, 2.0), "t0": 0.0, "draws": 1, "noise": Partial(_node, node)}
        key = jax.random.key(0)
        ours = elbo(key, process, oracle.denoise, x, n_times=64, times=grids.quadrature_times, **options)
        theirs = vdm(key, process, oracle.denoise, x, n_times=64, times=grids.quadrature_times, **options)
        return ours.value, theirs.value

    ours, theirs = (np.asarray(v) @ (weight / weight.sum()) for v in jax.jit(jax.vmap(both))(jnp.asarray(at)))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_decoder_reads_clean_data_and_draws_its_noise(key):
    """On data N(m, S) the mean of the estimates is below log p(x), by a gap that one draw's error does not hide."""
    process, x = processes.vp(), jnp.array([0.2, -0.9, 0.5])
    oracle = oracles.gaussian(process, MEAN, COV)
    found = estimates(key, 100, process, oracle.denoise, x, decoder=decoders.gaussian())
    values, exact = np.asarray(found.value, float), float(oracle.log_prob(x, 0.0))
    assert abs(values.mean() - exact) < 5 * values.std() / 10 + 1e-3
    sigma = process.scales(start(process))[1]
    np.testing.assert_allclose(found.terms["entropy"], 1.5 * jnp.log(2 * jnp.pi * jnp.e * sigma**2), rtol=1e-6)


# Numbers and laws ----------------------------------------------------------------------------------------------------


def _both_ends(key, process, n, low, high):
    t = jnp.stack([low, jnp.ones_like(low)])
    return grids.Times(t, jnp.ones_like(t))


@pytest.mark.parametrize(("name", "form"), [("flow", "dsm"), ("flow", "hutchinson"), ("ve", "dsm")])
def test_it_is_finite_at_both_ends_of_time_in_float32(name, form, key):
    process = PROCESSES[name]()
    oracle = oracles.gaussian(process, MEAN, COV)
    x = jnp.asarray(MEAN, jnp.float32)
    assert jnp.isfinite(elbo(key, process, oracle.denoise, x, times=_both_ends, n_times=2, **FORMS[form]).value)


@pytest.mark.parametrize(("name", "form"), [("flow", "dsm"), ("ve", "ism")])
def test_float32_is_near_float64(name, form, x64):
    process = PROCESSES[name]()
    oracle = oracles.mixture(process, *MIXTURE)
    options = {"form": form, "nodes": 20, "n_times": 160, "t0": 0.02}
    fine = integrated(process, oracle.denoise, POINTS, **options)
    coarse = integrated(process, oracle.denoise, POINTS.astype(np.float32), **options)
    np.testing.assert_allclose(coarse, fine, atol=3e-4)
    assert not np.array_equal(coarse, fine)


def test_it_compiles_once_maps_over_examples_and_has_gradients(key):
    process, traces = processes.vp(), 0
    oracle = oracles.gaussian(process, MEAN, COV)

    def denoise(x, t):
        nonlocal traces
        traces += 1
        return oracle.denoise(x, t)

    for i in range(3):
        found = elbo(jax.random.fold_in(key, i), process, denoise, jnp.full(3, 0.1 * i), t0=1e-3 * (1 + i))
        before = traces if i == 0 else before
        assert traces == before
        assert found.value.dtype == jnp.float32
    batch = jnp.array([[0.1, 0.2, 0.3], [-0.4, 0.0, 0.9]])
    keys = jax.random.split(key, 2)
    one = elbo(keys[1], process, denoise, batch[1], t0=1e-3)
    assert traces == before
    mapped = jax.vmap(lambda k, x: elbo(k, process, denoise, x, t0=1e-3))(keys, batch)
    np.testing.assert_allclose(mapped.value[1], one.value, rtol=1e-5)
    slope = jax.grad(lambda scale: elbo(key, process, Partial(_scaled, scale), batch[0], n_times=2, draws=1).value)(0.5)
    assert jnp.isfinite(slope)
    assert slope != 0


def _scaled(scale, x, t):
    return scale * x


def test_mistakes(key):
    process, x = processes.vp(), jnp.zeros(3)
    oracle = oracles.gaussian(process, MEAN, COV)
    bad = [
        ({"form": "fisher"}, r"form='fisher', expected one of dsm, ism, ssm"),
        ({"divergence": "trace"}, r"divergence='trace', expected one of exact, hutchinson"),
        ({"draws": 0}, r"draws=0, expected at least 1"),
        ({"n_times": 0}, r"n_times=0, expected at least 1"),
        ({"probes": 0}, r"probes=0, expected at least 1"),
        ({"t0": 1.0}, r"t0=1 is not in \[0, 1\)"),
        ({"t0": -0.1}, r"t0=-0.1 is not in \[0, 1\)"),
        ({"t0": 0.0}, r"sigma is 0 at t0=0"),
        ({"times": grids.vp_times}, r"a law of noise levels.*such as grids.importance_times"),
        ({"times": Partial(grids.lognormal_times, mean=0.5)}, r"a law of noise levels"),
    ]
    for options, words in bad:
        with pytest.raises(InputError, match=words):
            elbo(key, process, oracle.denoise, x, **options)
    with pytest.raises(InputError, match=r"x of int32, expected float32 or float64"):
        elbo(key, process, oracle.denoise, jnp.zeros(3, int))
    with pytest.raises(InputError, match=r"x of bfloat16, expected float32 or float64"):
        elbo(key, process, oracle.denoise, jnp.zeros(3, jnp.bfloat16))
    with pytest.raises(InputError, match=r"x that is not finite"):
        elbo(key, process, oracle.denoise, x.at[1].set(jnp.nan))
    with pytest.raises(InputError, match=r"shape \(1, 3\) for x of float32 and shape \(3,\)"):
        elbo(key, process, lambda x, t: x[None], x)
