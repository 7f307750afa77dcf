"""Sampling times fall from noise to data on every process and are the published sequences; training times are laws
whose weighted means are the same integral."""

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from roster import GRIDS, PROCESSES, TRAINING_TIMES
from scipy import stats

from jaxdiff import grids, processes
from jaxdiff.errors import InputError

every_process = pytest.mark.parametrize("name", PROCESSES)


@every_process
def test_every_grid_falls_from_noise_to_the_data_end_and_compiles_with_a_traced_process(name):
    process, traces = PROCESSES[name](), 0

    @jax.jit
    def compiled(process):
        nonlocal traces
        traces += 1
        return {(grid, n): make(process, n) for grid, make in GRIDS.items() for n in (1, 2, 18)}

    within = compiled(process)
    compiled(PROCESSES[name]())
    assert traces == 1
    for (grid, n), ts in within.items():
        assert ts.shape == (n + 1,), (grid, n)
        assert ts[0] <= 1, (grid, n)
        assert ts[-1] == 0, (grid, n)
        assert np.all(np.diff(ts) < 0), (grid, n, ts)
        if grid in ("uniform", "karras", "logsnr", "optimal"):  # the others keep their published highest level
            assert ts[0] == 1, (grid, n)
    if name in ("vp", "ve"):  # the same sequence from a process that is known
        for grid, make in GRIDS.items():
            np.testing.assert_allclose(make(process, 18), within[grid, 18], rtol=1e-4, atol=1e-6, err_msg=grid)


def walked(process, make):
    """(times, levels) of a grid, in one compiled program."""

    @jax.jit
    def both(process):
        ts = make(process)
        return ts, jnp.divide(*process.scales(ts)[::-1])

    return jax.device_get(both(process))


def test_published_sequences(x64):
    edm, ve, vp = processes.edm(), processes.ve(), processes.vp()
    # Karras et al. (2022), eq. 5, N = 18, sigma from 80 to .002, rho = 7.
    exact = [80, 57.58598472124816, 1.9233398370400518, 0.0075280199627840785, 0.002, 0]
    _, got = walked(edm, lambda p: grids.karras(p, 18))
    np.testing.assert_allclose(got[[0, 1, 9, -3, -2, -1]], exact, rtol=1e-12)
    # Song et al.'s VP levels at N = 5: on VP itself, and on EDM once it reaches so far.
    exact = [152.1669702839464, 17.04912255896805, 3.422244762572157, 0.9575264822375213, 0.010485992786706403]
    for process in (processes.edm(200.0), vp):
        ts, got = walked(process, lambda p: grids.vp(p, 5))
        np.testing.assert_allclose(got[:-1], exact, rtol=1e-9)
    np.testing.assert_allclose(ts, [1, 0.75025, 0.5005, 0.25075, 0.001, 0], rtol=1e-9)
    # sigma^2 = 100^2 (.02^2 / 100^2)^(i / (N - 1)): uniform times on VE, whose own end the last level is.
    np.testing.assert_allclose(walked(ve, lambda p: grids.ve(p, 4))[0], [1, 0.75, 0.5, 0.25, 0], rtol=1e-12, atol=1e-12)
    wide = processes.edm(100.0)
    np.testing.assert_allclose(walked(wide, lambda p: grids.ve(p, 3))[1], [100, 2**0.5, 0.02, 0], rtol=1e-12)
    # Exponential from 10 to .1.
    exact = [10, 3.1622776601683795, 1, 0.31622776601683794, 0.1, 0]
    _, got = walked(edm, lambda p: grids.logsnr(p, 5, sigma_min=0.1, sigma_max=10.0))
    np.testing.assert_allclose(got, exact, rtol=1e-12)
    _, got = walked(edm, lambda p: grids.karras(p, 4, sigma_min=1.0, sigma_max=16.0, rho=2.0))
    np.testing.assert_allclose(got, [4**2, 3**2, 2**2, 1, 0], rtol=1e-12)


def test_iddpm_picks_from_the_published_table(x64):
    """sigma_max = 81 leaves u_8 ... u_999; step i takes u at 8 + round(i (992 - 1) / (N - 1)) (Table 1)."""
    table = papers.iddpm_table()
    for j, u in papers.IDDPM_U.items():
        np.testing.assert_allclose(table[j], u, rtol=1e-12)
    picks = [table[8 + int(np.round(991 / 17 * i))] for i in range(18)]
    for process in (processes.edm(100.0), processes.iddpm()):
        _, got = walked(process, lambda p: grids.iddpm(p, 18))
        np.testing.assert_allclose(got, [*picks, 0], rtol=1e-9)
    np.testing.assert_allclose(got[[0, 17]], [80.20370184547417, 0.006425412771141183], rtol=1e-9)


def test_the_levels_of_a_grid_do_not_depend_on_the_process(x64):
    """Between its ends a published sequence is the same levels, whoever walks it."""
    published = [GRIDS[name] for name in ("karras", "logsnr", "vp", "ve", "iddpm")]

    def every(process):
        return jnp.stack([make(process, 9, sigma_min=0.05, sigma_max=50.0) for make in published])

    _, reference = walked(processes.edm(200.0), every)
    for process in (processes.flow(), processes.cosine()):
        np.testing.assert_allclose(walked(process, every)[1], reference, rtol=1e-8)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_of_no_steps_is_refused(name):
    for n in (0, -3):
        with pytest.raises(InputError, match=r"steps, expected a whole number of at least 1"):
            GRIDS[name](processes.vp(), n)


@pytest.mark.parametrize("name", ["karras", "logsnr", "vp", "ve", "iddpm"])
def test_a_range_that_is_empty_or_out_of_reach_is_refused(name):
    make, ve = GRIDS[name], processes.ve()
    with pytest.raises(InputError, match=r"sigma_min=2.0 is not below sigma_max=1.0"):
        make(ve, 4, sigma_min=2.0, sigma_max=1.0)
    if name != "iddpm":
        with pytest.raises(InputError, match=r"sigma_min=0.001 is outside the process's noise levels \[0.02, 100\]"):
            make(ve, 4, sigma_min=0.001)
        with pytest.raises(InputError, match=r"sigma_max=200 is outside"):
            make(ve, 4, sigma_max=200.0)
    else:
        with pytest.raises(InputError, match="no iDDPM noise level lies in the process's range"):
            make(ve, 4, sigma_min=0.0201, sigma_max=0.0202)


# Training times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uniform", "stratified", "lattice", "importance", "debiased"])
def test_weighted_means_estimate_the_integral(name, key):
    """The mean of weight x t^2 is the integral of t^2 over [.001, 1], one third (less 1e-9 / 3)."""
    n = 20_000
    for i, process in enumerate(("vp", "ve")):
        law = jax.jit(lambda key, process: TRAINING_TIMES[name](key, process, n, low=1e-3, high=1.0))
        t, weight = law(jax.random.fold_in(key, i), PROCESSES[process]())
        values = np.asarray(weight * t**2, np.float64)
        assert abs(values.mean() - 1 / 3) < max(5 * values.std() / np.sqrt(n), 1e-5)
        assert 1e-3 * (1 - 1e-6) <= t.min() < t.max() <= 1


def test_stratified_times_have_one_in_each_part_and_far_less_variance(key):
    n, keys = 64, jax.random.split(key, 200)
    laws = {name: TRAINING_TIMES[name] for name in ("uniform", "stratified")}
    means = {}
    for name, law in laws.items():
        t = np.asarray(jax.vmap(lambda k, law=law: law(k, processes.vp(), n, low=0.0).t)(keys))
        assert t.min() > 0
        means[name] = np.mean(t**2, axis=1)
    assert np.all((t * n > np.arange(n)) & (t * n <= np.arange(1, n + 1)))
    # Var of one stratum of width 1 / n is n^2 times smaller: 4096 up to constants.
    assert means["stratified"].var() < means["uniform"].var() / 500


def test_importance_times_flatten_the_likelihood_weight_and_have_its_published_total(key):
    """Z = the integral of g^2 / sigma^2 over [.001, 1]: 19.1654 for VP, 28.2809 for sub-VP; and uniform t on VE."""

    @jax.jit
    def flattened(process):
        t, weight = grids.importance_times(key, process, 4000, low=1e-3)
        return t, weight, weight * process.sde(t)[1] / process.scales(t)[1] ** 2

    times = {}
    for name, total in (("vp", 19.1654), ("subvp", 28.2809), ("ve", 2 * np.log(5000) * 0.999)):
        process = PROCESSES[name]()
        t, weight, flat = flattened(process)
        times[name] = np.asarray(t, np.float64)
        np.testing.assert_allclose(flat, total, rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(weight, 0.999, rtol=1e-4)
    # The law itself, against quadrature of its density: -log SNR falls short of the start by u Z.
    t = times["vp"]
    b = 0.1 * t + 9.95 * t**2
    a0, a1 = (np.log(np.expm1(0.1 * v + 9.95 * v**2)) for v in (1e-3, 1.0))
    assert stats.kstest((np.log(np.expm1(b)) - a0) / (a1 - a0), "uniform", method="asymp").pvalue > 1e-6


@every_process
def test_lognormal_times_have_normal_log_levels(name, key):
    process, n = PROCESSES[name](), 20_000

    # A narrow law, so that no process cuts its tails: VE stops at ln .02 = -3.9, log-SNR at 2.5.
    @jax.jit
    def times(process):
        narrow = grids.lognormal_times(key, process, n, mean=-0.5, std=0.5)
        return narrow, grids.lognormal_times(key, process, n, mean=0.0, std=20.0)

    (t, weight), (wide, _) = times(process)
    alpha, sigma = papers.SCHEDULES[name](np.asarray(t, np.float64))
    log_level = np.log(sigma / alpha)
    assert stats.kstest(log_level, stats.norm(-0.5, 0.5).cdf, method="asymp").pvalue > 1e-6
    np.testing.assert_array_equal(weight, 1)
    # A wide law stays in the process's range.
    assert np.all((wide >= 0) & (wide <= 1))


def test_published_laws_draw_their_levels_on_every_process(key):
    """Karras et al. (2022), Table 1: VP's at uniform t, VE's log-uniform, iDDPM's u_j with j uniform."""
    n = 20_000
    uniform = {}
    for name in ("vp", "ve", "iddpm"):
        # A process that reaches all of them: u_0 is 20291.
        t, weight = jax.jit(TRAINING_TIMES[name], static_argnums=2)(key, processes.edm(3e4), n)
        level = 3e4 * np.asarray(t, np.float64)
        np.testing.assert_array_equal(weight, 1)
        if name == "vp":
            b = np.log1p(level**2)
            uniform[name] = (2 * b / (0.1 + np.sqrt(0.1**2 + 2 * 19.9 * b)) - 1e-5) / (1 - 1e-5)
        elif name == "ve":
            uniform[name] = np.log(level / 0.02) / np.log(100 / 0.02)
        else:
            table = papers.iddpm_table()[:1000]
            place = np.abs(np.log(table[:, None]) - np.log(level[None, :])).argmin(0)
            np.testing.assert_allclose(level, table[place], rtol=1e-5)
            counts = np.bincount(place, minlength=1000)
            assert stats.chisquare(counts).pvalue > 1e-6
            assert counts.min() > 0
    for name, u in uniform.items():
        assert stats.kstest(u, "uniform", method="asymp").pvalue > 1e-6, name
    # Held in the range of a process that reaches less.
    low = jax.jit(lambda key, process: grids.vp_times(key, process, n))(key, processes.ve()).t
    assert np.all((low >= 0) & (low <= 1))


def test_lognormal_defaults_are_karras():
    t, _ = jax.jit(lambda process: grids.lognormal_times(jax.random.key(0), process, 20_000))(processes.edm())
    log_level = np.log(80 * np.asarray(t))
    assert abs(log_level.mean() + 1.2) < 5 * 1.2 / np.sqrt(20_000)
    assert abs(log_level.std() / 1.2 - 1) < 5 / np.sqrt(2 * 20_000)


@pytest.mark.parametrize("name", TRAINING_TIMES)
def test_training_times_repeat_by_key_and_compile_once(name, key):
    traces = 0

    @jax.jit
    def compiled(key, process):
        nonlocal traces
        traces += 1
        return TRAINING_TIMES[name](key, process, 8)

    one, again = compiled(key, processes.vp()), compiled(key, processes.vp(0.2, 15.0))
    assert traces == 1
    assert one.t.shape == one.weight.shape == (8,)
    assert one.t.dtype == one.weight.dtype == jnp.float32
    np.testing.assert_allclose(one.t, TRAINING_TIMES[name](key, processes.vp(), 8).t, rtol=1e-4)
    if name not in ("uniform", "stratified", "lattice"):
        assert not np.allclose(one.t, again.t)  # the process decides


def test_mistakes_in_training_times(key):
    for law in (grids.uniform_times, grids.stratified_times):
        with pytest.raises(InputError, match=r"low=0.5, high=0.1, expected 0 <= low < high <= 1"):
            law(key, processes.vp(), 4, low=0.5, high=0.1)
    with pytest.raises(InputError, match=r"log-SNR is infinite at t=0.001 or t=1;"):
        grids.importance_times(key, processes.flow(), 4)
    with pytest.raises(InputError, match=r"log-SNR is infinite at t=0 or"):
        grids.importance_times(key, processes.vp(), 4, low=0.0)
