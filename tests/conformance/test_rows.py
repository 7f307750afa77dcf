"""Every row means what its paper says, every pair of rows converts both ways on every process, at the ends too, and the
EDM row is Karras et al.'s preconditioning."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from roster import PROCESSES, ROWS, UNDEFINED

from jaxdiff import denoisers, parameterizations, processes
from jaxdiff.parameterizations import from_data, to_data

pytestmark = pytest.mark.claim("every row, weight and loss at its exact value; equal pairs are equal")


every_process = pytest.mark.parametrize("name", PROCESSES)
TIMES = np.array([0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
RNG = np.random.default_rng(0)
X0, EPS, Y = RNG.normal(size=(3, 7))


@pytest.fixture
def arrays(x64):
    """(x0, eps, y, t) in float64."""
    return tuple(jnp.asarray(values) for values in (X0, EPS, Y, TIMES))


@every_process
def test_rows_are_their_papers_targets(name, arrays):
    """noise: eps; data: x0; velocity: the speed of x_t; v: alpha eps - sigma x0; score: grad log N(x_t; alpha x0)."""
    process = PROCESSES[name]()
    alpha, sigma = papers.SCHEDULES[name](TIMES)
    d_alpha, d_sigma = papers.slopes(name, TIMES)
    c_skip, c_out, *_ = papers.preconditioning(sigma / alpha)
    x = alpha * X0 + sigma * EPS
    targets = {
        "noise": EPS,
        "data": X0,
        "velocity": d_alpha * X0 + d_sigma * EPS,
        "v": alpha * EPS - sigma * X0,
        "score": -(x - alpha * X0) / sigma**2,
        "scaled_score": -EPS,
        # F = (x0 - c_skip x) / c_out at Karras's noise level sigma / alpha, on x / alpha.
        "edm": (X0 - c_skip * x / alpha) / c_out,
    }
    assert targets.keys() == ROWS.keys()
    x0, _, _, t = arrays
    for row, target in targets.items():
        got = from_data(ROWS[row], process, x0, jnp.asarray(x), t)
        np.testing.assert_allclose(got, target, rtol=1e-8, atol=1e-9, err_msg=row)
        back = to_data(ROWS[row], process, jnp.asarray(target), jnp.asarray(x), t)
        np.testing.assert_allclose(back, X0, rtol=1e-7, atol=1e-8, err_msg=row)


@every_process
def test_every_pair_of_rows_round_trips(name, arrays):
    """y of row A -> x0 -> y' of row B -> x0 -> y, for any y and x, related or not."""
    process, (x, _, y, t) = PROCESSES[name](), arrays
    worst = 0.0
    for first, second in itertools.permutations(ROWS, 2):
        a, b = ROWS[first], ROWS[second]
        there = from_data(b, process, to_data(a, process, y, x, t), x, t)
        back = from_data(a, process, to_data(b, process, there, x, t), x, t)
        worst = max(worst, np.max(np.abs(np.asarray(back) - Y)))
    assert worst < 1e-9, worst


@every_process
@pytest.mark.parametrize("precise", [False, True], ids=["float32", "float64"])
def test_every_row_is_finite_at_both_ends_unless_it_is_listed_as_undefined(name, precise):
    with jax.enable_x64(precise):
        process = PROCESSES[name]()
        y, x = jnp.asarray(Y, float), jnp.asarray(X0, float)
        for row, t in itertools.product(ROWS, (0.0, 1.0)):
            scales = jnp.stack(ROWS[row](process, t))
            data = to_data(ROWS[row], process, y, x, t)
            finite = bool(jnp.isfinite(scales).all() & jnp.isfinite(data).all())
            assert finite == ((row, name, t) not in UNDEFINED), (row, t, scales, data)


def test_undefined_lists_only_what_exists():
    assert {(row, name) for row, name, _ in UNDEFINED} <= set(itertools.product(ROWS, PROCESSES))


@every_process
def test_data_at_the_data_end_is_what_is_seen(name):
    """Where sigma = 0, every row that mixes in x_t recovers x itself from a perfect prediction, the data row its y."""
    process, x = PROCESSES[name](), jnp.asarray(X0, jnp.float32)
    if process.scales(0.0)[1] > 0:
        return
    for row in ("noise", "v", "edm"):
        np.testing.assert_allclose(to_data(ROWS[row], process, 0 * x, x, 0.0), x, rtol=1e-6)
    np.testing.assert_array_equal(to_data(ROWS["data"], process, x, 0 * x, 0.0), x)


def test_edm_row_is_table_1_on_the_edm_process(arrays):
    process, row, (x, _, y, t) = processes.edm(), parameterizations.edm(), arrays
    sigma = 80 * TIMES
    c_skip, c_out, c_in, c_noise = papers.preconditioning(sigma)
    np.testing.assert_allclose(to_data(row, process, y, x, t), c_skip * X0 + c_out * Y, rtol=1e-12)
    np.testing.assert_allclose(row.input_scale(process, t), c_in, rtol=1e-13)
    np.testing.assert_allclose(denoisers.log_ratio(process, t), c_noise, rtol=1e-12)
    # By hand at sigma = sigma_data = .5: c_skip = 1/2, c_out = 1/sqrt(8), c_in = sqrt 2.
    at_half = to_data(row, process, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), 0.5 / 80)
    np.testing.assert_allclose(at_half, [0.5, 8**-0.5], rtol=1e-12)
    np.testing.assert_allclose(row.input_scale(process, 0.5 / 80), 2**0.5, rtol=1e-12)


@every_process
def test_edm_row_has_unit_variance_input_and_target_orthogonal_to_it(name, x64):
    process, t = PROCESSES[name](), np.linspace(0, 1, 101)
    for spread in (0.5, 2.0):
        row = parameterizations.edm(spread)
        (alpha, sigma), (a, b) = process.scales(t), row(process, t)
        # Var(a x0 + b eps), Var(c_in x_t) and their covariance, with x0 of std `spread`.
        c_in = row.input_scale(process, t)
        np.testing.assert_allclose(a**2 * spread**2 + b**2, 1, rtol=1e-12)
        np.testing.assert_allclose(c_in**2 * (alpha**2 * spread**2 + sigma**2), 1, rtol=1e-12)
        np.testing.assert_allclose(a * alpha * spread**2 + b * sigma, 0, atol=1e-12 * np.max(sigma))


def test_edm_row_takes_one_spread_a_channel_and_learns_it(x64):
    process, t = processes.vp(), 0.4
    spreads = jnp.array([0.5, 1.0, 2.0])
    x, y = jnp.asarray(X0[:3]), jnp.asarray(Y[:3])
    together = to_data(parameterizations.edm(spreads), process, y, x, t)
    apart = [to_data(parameterizations.edm(float(s)), process, v, u, t) for s, v, u in zip(spreads, y, x, strict=True)]
    np.testing.assert_allclose(together, apart, rtol=1e-12)
    slope = jax.grad(lambda s: to_data(parameterizations.edm(s), process, y, x, t).sum())(spreads)
    assert jnp.all(jnp.isfinite(slope) & (slope != 0))


def test_rows_map_compile_once_and_keep_their_dtype(x64):
    traces = 0

    @jax.jit
    def convert(row, process, y, x, t):
        nonlocal traces
        traces += 1
        return jax.vmap(lambda y, x, t: to_data(row, process, y, x, t))(y, x, t)

    y, x, t = (jnp.asarray(v, jnp.float32) for v in (Y, X0, TIMES))
    for spread in (2.0, 0.5):
        mapped = convert(parameterizations.edm(spread), processes.vp(), y, x, t)
    assert traces == 1
    row = parameterizations.edm(0.5)
    looped = [to_data(row, processes.vp(), *one) for one in zip(y, x, t, strict=True)]
    np.testing.assert_allclose(mapped, looped, rtol=1e-5)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
        y, x, t = (jnp.asarray(v, dtype) for v in (Y, X0, TIMES))
        for row in ROWS.values():
            outs = jax.eval_shape(
                lambda y, x, t, row=row: (
                    to_data(row, processes.vp(), y, x, t),
                    from_data(row, processes.vp(), y, x, t),
                    row(processes.vp(), t),
                ),
                y,
                x,
                t,
            )
            assert {out.dtype for out in jax.tree.leaves(outs)} == {jnp.dtype(dtype)}
