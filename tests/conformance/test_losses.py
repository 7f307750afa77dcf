"""Every loss is what its paper says: on the exact denoiser of Gaussian data, its mean is weight x (a - b alpha /
sigma)^2 x tr MMSE, with schedules, rows, weights and the error typed from the papers; pairs that are one loss agree
draw by draw."""

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from roster import PROCESSES, ROWS, WEIGHTS

from jaxdiff import losses, oracles, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.losses import weights

pytestmark = pytest.mark.claim("every row, weight and loss at its exact value; equal pairs are equal")


every_process = pytest.mark.parametrize("name", PROCESSES)
TIMES = np.array([0.05, 0.15, 0.3, 0.5, 0.7, 0.9])
DRAWS = 1000
COV = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])


def typed(name):
    """(row -> (a, b), weight -> w) at TIMES, in the papers' terms; rho is the signal-to-noise ratio."""
    alpha, sigma = papers.SCHEDULES[name](TIMES)
    d_alpha, d_sigma = papers.slopes(name, TIMES)
    rho = alpha**2 / sigma**2
    slope = 2 * (d_sigma / sigma - d_alpha / alpha)  # -d log SNR / dt
    level = sigma / alpha
    c_skip, c_out, *_ = papers.preconditioning(level)
    rows = {
        "noise": (0, 1),  # Ho et al. (2020)
        "data": (1, 0),
        "velocity": (d_alpha, d_sigma),  # Lipman et al. (2023)
        "v": (-sigma, alpha),  # Salimans and Ho (2022)
        "score": (0, -1 / sigma),  # Song et al. (2021)
        "scaled_score": (0, -1),
        # Karras et al. (2022), eq. 8: F = (y - c_skip (y + level n)) / c_out.
        "edm": ((1 - c_skip) / c_out, -c_skip * level / c_out),
    }
    lambdas = {
        "unit": 1,
        "snr": rho,
        "edm": (level**2 + 0.5**2) / (level * 0.5) ** 2,  # Table 1
        "min_snr": np.minimum(rho, 5),  # Hang et al. (2023)
        "sigmoid": slope / (1 + rho * np.exp(-1)),  # Kingma and Gao (2023): sigmoid(bias - log SNR), bias 1
        "likelihood": sigma**2 * slope,  # g^2 of Song et al. (2021): sigma^2 times -d log SNR / dt
    }
    return rows, lambdas


def batch(key):
    """The same (keys, x0) for each of the six times."""
    law = oracles.gaussian(processes.edm(), np.zeros(3), COV)
    return jax.random.split(key, DRAWS), law.sample(jax.random.fold_in(key, 1), DRAWS)


@every_process
def test_the_oracles_loss_is_weight_times_row_times_the_least_error(name, key):
    process, (keys, x0) = PROCESSES[name](), batch(key)
    denoise = oracles.gaussian(process, np.zeros(3), COV).denoise
    rows, lambdas = typed(name)
    assert (rows.keys(), lambdas.keys()) == (ROWS.keys(), WEIGHTS.keys())
    alpha, sigma = papers.SCHEDULES[name](TIMES)
    least = np.array(
        [np.trace(COV - a * COV @ np.linalg.solve(a**2 * COV + s**2 * np.eye(3), a * COV))
         for a, s in zip(alpha * np.ones(6), sigma, strict=True)]
    )  # fmt: skip

    def one(k, x, t):
        return {
            (row, weight): losses.matching(process, ROWS[row], WEIGHTS[weight])(k, denoise, x, t)
            for row in ROWS
            for weight in WEIGHTS
        }

    over_draws = jax.vmap(one, (0, 0, None))
    table = jax.jit(jax.vmap(over_draws, (None, None, 0)))(keys, x0, jnp.asarray(TIMES, jnp.float32))
    error = table["data", "unit"]  # |x0 - D|^2 itself
    for (row, weight), values in table.items():
        values, (a, b) = np.asarray(values, np.float64), rows[row]
        factor = lambdas[weight] * (a - b * alpha / sigma) ** 2 * np.ones(6)
        off = np.abs(values.mean(1) - factor * least)
        assert np.all(off < 5 * values.std(1) / np.sqrt(DRAWS)), (row, weight, values.mean(1), factor * least)
        np.testing.assert_allclose(values, factor[:, None] * error, rtol=2e-4, err_msg=f"{row} {weight}")


def _ratio(process, t):
    alpha, sigma = process.scales(t)
    return alpha**2 / sigma**2


SAME = {
    "EDM's weight on data is unit weight on the EDM row": (("data", weights.edm(0.5)), ("edm", weights.unit)),
    "SNR on data is the simple loss on noise": (("data", weights.snr), ("noise", weights.unit)),
    "min-SNR on data is min(1, gamma / SNR) on noise": (
        ("data", weights.min_snr(5.0)),
        ("noise", lambda p, t: jnp.minimum(1, 5 / _ratio(p, t))),
    ),
    "likelihood on score is g^2 / sigma^2 on noise": (
        ("score", weights.likelihood),
        ("noise", lambda p, t: p.sde(t)[1] / p.scales(t)[1] ** 2),
    ),
    "unit on v is SNR + 1 on data, where alpha^2 + sigma^2 = 1": (
        ("v", weights.unit),
        ("data", lambda p, t: _ratio(p, t) * sum(s**2 for s in p.scales(t)) ** 2 / p.scales(t)[0] ** 2),
    ),
    "unit on velocity is (SNR slope / 2)^2 alpha^2 on data": (
        ("velocity", weights.unit),
        ("data", lambda p, t: (p.scales(t)[0] * jax.jvp(p.log_snr, (t,), (jnp.ones_like(t),))[1] / 2) ** 2),
    ),
    "g^2 / sigma^2 is the slope of -log SNR": (
        ("score", weights.likelihood),
        ("noise", lambda p, t: -jax.jvp(p.log_snr, (t,), (jnp.ones_like(t),))[1]),
    ),
}


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "subvp", "logsnr"])
def test_equivalent_pairs_agree_draw_by_draw(name, key, x64):
    process, x0 = PROCESSES[name](), jnp.array([0.3, -1.0, 0.8])

    @jax.jit
    def pairs(key, t):
        return [
            [losses.matching(process, ROWS[row], weight)(key, lambda x, t: 0.5 * x, x0, t) for row, weight in pair]
            for pair in SAME.values()
        ]

    for t in TIMES:
        for law, (one, two) in zip(SAME, pairs(key, jnp.float64(t)), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, err_msg=f"{law}, t={t}")


def test_published_losses_by_hand():
    """One draw, eps = 1, D = 0 and x0 = 1, at t = .5."""

    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    def loss(process, row, weight=weights.unit):
        return losses.matching(process, row, weight)(
            jax.random.key(0), lambda x, t: 0 * x, jnp.ones(2), 0.5, noise=ones
        )

    # Two axes of error 1. Flow at .5: velocity eps - x0, (a - b alpha / sigma) = -2. EDM at sigma = 40: Table 1.
    np.testing.assert_allclose(loss(processes.flow(), parameterizations.velocity), 8, rtol=1e-6)
    np.testing.assert_allclose(loss(processes.edm(), parameterizations.data, weights.edm(0.5)), 2 * 4.000625, rtol=1e-6)
    np.testing.assert_allclose(loss(processes.edm(), parameterizations.noise), 2 / 1600, rtol=1e-6)
    np.testing.assert_allclose(loss(processes.edm(), parameterizations.score, weights.likelihood), 2 / 40**4 * 6400)


def test_sees_the_perturbed_example_and_its_time(key):
    """The denoiser that returns its input has error x0 - x_t = (1 - alpha) x0 - sigma eps, with perturb's own eps."""
    process, x0 = processes.vp(), jnp.array([[0.3, -1.0, 0.8]])
    seen = losses.matching(process)(key, lambda x, t: jnp.where(t == 0.3, x, 0), x0, 0.3)
    np.testing.assert_allclose(seen, np.sum((x0 - process.perturb(key, x0, 0.3)) ** 2), rtol=1e-6)


def test_mask_counts_what_it_holds_and_hides_the_rest_even_if_it_is_not_a_number(key):
    loss, x0 = losses.matching(processes.vp()), jnp.array([[1.0, 2.0], [3.0, 4.0]])

    def denoise(x, t):
        return jnp.array([[0.0, 5.0], [0.0, jnp.nan]])

    row = jnp.array([[True], [False]])
    np.testing.assert_allclose(loss(key, denoise, x0, 0.3, mask=row), 1 + 9)
    np.testing.assert_allclose(loss(key, denoise, x0, 0.3, mask=jnp.array([[True, False], [True, False]])), 1 + 9)
    assert loss(key, denoise, x0, 0.3, mask=jnp.zeros((2, 2), bool)) == 0
    assert jnp.isnan(loss(key, denoise, x0, 0.3))
    slope = jax.grad(lambda x: loss(key, lambda _, t: x, x0, 0.3, mask=row))(x0 - 1)
    np.testing.assert_allclose(slope, [[-2, -2], [0, 0]])


def test_examples_of_any_shape_sum_their_axes(key):
    for shape in ((), (1,), (4,), (2, 3), (2, 3, 1, 2)):
        x0 = jnp.full(shape, 2.0)
        value = losses.matching(processes.vp())(key, lambda x, t: 0 * x, x0, 0.3)
        assert (value.shape, float(value)) == ((), 4.0 * x0.size)


def test_a_belief_of_another_shape_is_refused_with_the_cure(key):
    with pytest.raises(InputError, match=r"shape \(1, 3\) for an example of shape \(3,\).*jax.vmap"):
        losses.matching(processes.vp())(key, lambda x, t: x[None], jnp.zeros(3), 0.3)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_losses_are_pytrees_that_compile_once_keep_their_dtype_and_have_gradients(weight, key, x64):
    traces = 0

    @jax.jit
    def value_and_slope(loss, key, scale, x0, t):
        nonlocal traces
        traces += 1
        return jax.value_and_grad(lambda scale: loss(key, lambda x, t: scale * x, x0, t))(scale)

    for dtype in (jnp.float32, jnp.bfloat16):
        x0, traces = jnp.ones(3, dtype), 0
        for spread in (0.5, 0.7):
            loss = losses.matching(processes.vp(), parameterizations.edm(spread), WEIGHTS[weight])
            outs = value_and_slope(loss, key, jnp.asarray(0.3, dtype), x0, jnp.asarray(0.5, dtype))
            assert {out.dtype for out in outs} == {jnp.dtype(dtype)}
            assert all(jnp.isfinite(out) for out in outs)
        assert traces == 1
