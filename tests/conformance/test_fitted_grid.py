"""The fitted grid is the cheapest: as brute force finds it, as the theorem says, never dearer than the published."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.grids.fitted import cheapest
from jaxdiff.theory import error_budget, line_law, walks

EDM = processes.edm(80.0)


def levels_of(process, ts):
    return np.asarray(walks.level(process, ts), np.float64)[:-1]


def total(cost, levels):
    return float(cost(jnp.asarray(levels[:-1]), jnp.asarray(levels[1:])).sum())


def bumpy(high, low):
    """No step is like another."""
    return jnp.abs(jnp.sin(7 * jnp.log(high)) + jnp.cos(5 * jnp.log(low))) + 0.3 * jnp.log(high / low) ** 2


def test_the_places_on_a_lattice_are_those_of_brute_force(x64):
    lattice = jnp.geomspace(10.0, 0.1, 9)
    for n in (1, 3, 5):
        places, ok = cheapest(bumpy, lattice, n, n)
        tried = {
            (0, *inner, 8): total(bumpy, np.asarray(lattice)[[0, *inner, 8]])
            for inner in combinations(range(1, 8), n - 1)
        }
        assert ok
        assert tuple(places.tolist()) == min(tried, key=lambda chosen: tried[chosen]), n
    places, _ = cheapest(bumpy, lattice, 5, 3)  # of fewer steps, then standing still
    assert places.tolist()[:4] == cheapest(bumpy, lattice, 3, 3)[0].tolist()
    assert places.tolist()[3:] == [8, 8, 8]


def test_narrow_data_without_error_want_even_steps_in_the_log(x64):
    """As the data's variance goes to 0 a step of h = ln(high^2 / low^2) costs (h - 1 + e^-h) / 2, which is convex."""
    cost = error_budget.step_cost(EDM, error_budget.normal_profile(1e-14))
    found = levels_of(EDM, grids.optimal(EDM, 8, cost))
    np.testing.assert_allclose(found, np.geomspace(80.0, 0.002, 8), rtol=1e-4)  # what is left of twelve halvings
    h = 2 * np.log(4e4) / 7
    np.testing.assert_allclose(total(cost, found), 3.5 * (h - 1 + np.exp(-h)), rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", [EDM, processes.ve(), processes.flow()], ids=["edm", "ve", "flow"])
def test_no_published_grid_costs_less(process):
    profile = error_budget.normal_profile(np.array([0.25, 0.01]), 0.5)
    for walk in (walks.SCORE, walks.BELIEF) if process is EDM else (walks.SCORE,):
        cost = error_budget.step_cost(process, profile, walk)
        # VE has noise left at its end, .02, and no step to take from there.
        whole = slice(None) if float(process.scales(0.0)[1]) > 0 else slice(-1)
        ends = {"sigma_min": 0.02, "sigma_max": 50.0}
        levels = {
            name: np.asarray(walks.level(process, make(process, 12, **ends)), np.float64)[whole]
            for name, make in {
                "optimal": lambda p, n, cost=cost, **ends: grids.optimal(p, n, cost, **ends),
                "karras": grids.karras,
                "exponential": grids.logsnr,
                "vp": grids.vp,
            }.items()
        }
        for name in ("karras", "exponential", "vp"):
            np.testing.assert_allclose(levels[name][[0, -1]], levels["optimal"][[0, -1]], rtol=1e-6)
            assert total(cost, levels["optimal"]) < total(cost, levels[name]) * (1 + 1e-6), (name, walk)


def test_a_fitted_grid_steps_over_a_network_s_bad_levels_and_its_samples_are_nearer(x64, key):
    """A mixture on the line, a score that is wrong around sigma = .3, by exact laws."""
    process = processes.edm(10.0)
    oracle = oracles.mixture(process, [0.3, 0.7], [[-1.0], [1.2]], [0.05, 0.2])

    def denoise(x, t):
        sigma = process.scales(t)[1]
        wrong = jnp.exp(-0.5 * (jnp.log(sigma / 0.3) / 0.4) ** 2)
        return oracle.denoise(x, t) - 2**0.5 * sigma * wrong * jnp.sin(2 * x)

    profile = error_budget.profile(key, oracle, np.geomspace(0.05, 10.0, 24), denoise=denoise, draws=512)
    cost = error_budget.step_cost(process, profile)
    fitted, karras = (
        make(process, 13, sigma_min=0.05)[:-1]
        for make in (lambda p, n, **o: grids.optimal(p, n, cost, **o), grids.karras)
    )
    assert total(cost, np.asarray(10 * fitted)) < 0.8 * total(cost, np.asarray(10 * karras))
    assert line_law.kl(oracle, denoise, fitted, fine=3.0) < 0.8 * line_law.kl(oracle, denoise, karras, fine=3.0)


def test_mistakes():
    with pytest.raises(InputError, match="got 4 candidate levels for 4 steps, expected at least 5"):
        grids.optimal(EDM, 4, bumpy, candidates=4)
    with pytest.raises(InputError, match="the cost of a step is not finite"):
        grids.optimal(EDM, 4, lambda high, low: jnp.log(low - 1), candidates=8)
