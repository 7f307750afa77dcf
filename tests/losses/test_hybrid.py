"""Hybrid score matching: on the exact denoiser its mean is weight times the least error there is; no other affine
denoiser does better; and with one copy it is denoising score matching, draw by draw."""

import coupled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import losses, oracles, parameterizations, processes, schedules
from jaxdiff.errors import InputError
from jaxdiff.losses import weights

MEAN = np.array([0.4, -0.7])
COV = np.array([[0.6, 0.35], [0.35, 0.5]])
TIMES = np.array([0.05, 0.3, 0.8])
DRAWS = 4000

WEIGHTS = {"unit": weights.unit, "snr": weights.snr, "girsanov": losses.girsanov}


def typed(law):
    """(least error, weights) at TIMES from the moment equations: tr Cov(x0 | X_t), m' S^-1 m and beta |G S^-1 m|^2."""
    means, covs = law.moments(TIMES)
    least, table = [], {name: [] for name in WEIGHTS}
    for t, m, S in zip(TIMES, means, covs, strict=True):
        total, cross = np.kron(np.outer(m, m), COV) + np.kron(S, np.eye(2)), np.kron(m[None], COV)
        least.append(np.trace(COV - cross @ np.linalg.solve(total, cross.T)))
        pull = np.linalg.solve(S, m)
        table["unit"].append(1.0)
        table["snr"].append(m @ pull)
        table["girsanov"].append(law.beta(t) * np.sum((law.G @ pull) ** 2))
    return np.array(least), table


def test_the_oracles_loss_is_the_weight_times_the_least_error(key):
    process, law = processes.cld(), coupled.LAWS["critical"]
    oracle = oracles.linear(process, MEAN, COV)
    least, table = typed(law)
    data_key, noise_key = jax.random.split(key)
    x0, keys = oracle.sample(data_key, DRAWS), jax.random.split(noise_key, DRAWS)

    def one(k, x, t):
        return {name: losses.hybrid(process, weight)(k, oracle.denoise, x, t) for name, weight in WEIGHTS.items()}

    times = jnp.asarray(TIMES, jnp.float32)
    found = jax.jit(jax.vmap(jax.vmap(one, (0, 0, None)), (None, None, 0)))(keys, x0, times)
    error = np.asarray(found["unit"], np.float64)
    for name, values in found.items():
        values = np.asarray(values, np.float64)
        factor = np.array(table[name])
        assert np.all(abs(values.mean(1) - factor * least) < 5 * values.std(1) / np.sqrt(DRAWS)), name
        np.testing.assert_allclose(values, factor[:, None] * error, rtol=2e-4, err_msg=name)


def test_the_exact_denoiser_is_where_the_loss_is_least(key, x64):
    """Over affine denoisers a + K X_t the mean of the loss is a quadratic, whose slope vanishes at the oracle, to five
    standard errors, and not beside it."""
    process, n, t = processes.cld(), 4_000, 0.3
    oracle = oracles.linear(process, MEAN, COV)
    data_key, noise_key = jax.random.split(key)
    x0, keys = oracle.sample(data_key, n), jax.random.split(noise_key, n)
    loss = losses.hybrid(process)

    def affine(p):
        return lambda x, t: p["a"] + jnp.tensordot(p["K"], x, 2)

    exact = {"a": oracle.denoise(jnp.zeros((2, 2)), t)}
    exact["K"] = jax.jacobian(lambda x: oracle.denoise(x, t))(jnp.zeros((2, 2)))
    slopes = jax.jit(jax.vmap(jax.grad(lambda p, k, x: loss(k, affine(p), x, t)), (None, 0, 0)))
    at = slopes(exact, keys, x0)
    assert all(jnp.all(abs(s.mean(0)) < 5 * s.std(0) / np.sqrt(n)) for s in jax.tree.leaves(at))
    beside = slopes({"a": exact["a"], "K": exact["K"] + 0.05}, keys, x0)["K"]
    assert jnp.any(abs(beside.mean(0)) > 5 * beside.std(0) / np.sqrt(n))


def test_with_one_copy_it_is_denoising_score_matching_draw_by_draw(key):
    one, two = processes.linear([[-0.5]], [[1.0]], beta=schedules.LinearVP().integral), processes.vp()
    x0 = jnp.array([[0.3, -1.0, 0.8]])
    pairs = {
        "data": (losses.hybrid(one), losses.matching(two)),
        "noise": (losses.hybrid(one, weights.snr), losses.matching(two, parameterizations.noise)),
        "min_snr": (losses.hybrid(one, weights.min_snr(5.0)), losses.matching(two, weight=weights.min_snr(5.0))),
        "score": (
            losses.hybrid(one, losses.girsanov),
            losses.matching(two, parameterizations.score, weights.likelihood),
        ),
    }
    for name, (hybrid, matching) in pairs.items():
        for t in (0.01, 0.4, 1.0):
            found = hybrid(key, lambda x, t: 0.5 * x[0], x0, t)
            np.testing.assert_allclose(found, matching(key, lambda x, t: 0.5 * x, x0, t), rtol=1e-5, err_msg=name)


def test_sees_the_perturbed_state_and_its_noise(key):
    process, x0 = processes.cld(), jnp.array([0.3, -1.0, 0.8])
    seen = losses.hybrid(process)(key, lambda x, t: x[1], x0, 0.3)
    np.testing.assert_allclose(seen, np.sum((x0 - process.perturb(key, x0, 0.3)[1]) ** 2), rtol=1e-6)
    still = losses.hybrid(process)(key, lambda x, t: x[0], x0, 0.3, noise=lambda key, shape, d: jnp.zeros(shape, d))
    np.testing.assert_allclose(still, np.sum(x0**2) * (1 - process.kernel(0.3)[0][0]) ** 2, rtol=1e-5)


def test_mask_counts_what_it_holds_and_hides_the_rest_even_if_it_is_not_a_number(key):
    loss, x0 = losses.hybrid(processes.cld()), jnp.array([[1.0, 2.0], [3.0, 4.0]])

    def denoise(x, t):
        return jnp.array([[0.0, 5.0], [0.0, jnp.nan]])

    row = jnp.array([[True], [False]])
    np.testing.assert_allclose(loss(key, denoise, x0, 0.3, mask=row), 1 + 9)
    assert jnp.isnan(loss(key, denoise, x0, 0.3))
    slope = jax.grad(lambda x: loss(key, lambda _, t: x, x0, 0.3, mask=row))(x0 - 1)
    np.testing.assert_allclose(slope, [[-2, -2], [0, 0]])


def test_a_belief_of_the_states_shape_is_refused(key):
    with pytest.raises(InputError, match=r"shape \(2, 3\) for an example of shape \(3,\).*of the data alone"):
        losses.hybrid(processes.cld())(key, lambda x, t: x, jnp.zeros(3), 0.3)


def test_the_loss_is_a_pytree_that_compiles_once_and_keeps_its_dtype(key):
    traces = 0

    @jax.jit
    def value_and_slope(loss, scale, x0, t):
        nonlocal traces
        traces += 1
        return jax.value_and_grad(lambda scale: loss(key, lambda x, t: scale * x[0], x0, t))(scale)

    for dtype in (jnp.float32, jnp.bfloat16):
        traces = 0
        for mass in (0.25, 0.5):
            loss = losses.hybrid(processes.cld(mass=mass), losses.girsanov)
            outs = value_and_slope(loss, jnp.asarray(0.3, dtype), jnp.ones(3, dtype), jnp.asarray(0.5, dtype))
            assert {out.dtype for out in outs} == {jnp.dtype(dtype)}
            assert all(jnp.isfinite(out) for out in outs)
        assert traces == 1
