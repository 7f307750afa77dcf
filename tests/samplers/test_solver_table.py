"""The table of docs/samplers.md says what the roster says, and the roster what a step does."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from roster import STEPPERS

from jaxdiff import processes, samplers

ROOT = Path(__file__).parents[2]


def rows():
    """name -> (order, calls, stochastic, multistep) of the page."""
    lines = re.findall(r"^\| (`.*) \|$", (ROOT / "docs/samplers.md").read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {
        name: (order, calls, stochastic == "yes", multistep == "yes")
        for name, order, calls, stochastic, multistep, *_ in cells
    }


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import sampler_orders

    return sampler_orders.TABLE


def test_the_page_is_the_roster(table):
    page = rows()
    for name, key, multistep, *_ in table:
        order, calls, stochastic, many = page.pop(name)
        row = STEPPERS[key]
        assert abs(float(order) - row.order) < 0.25, name
        assert int(calls) == row.calls, name
        assert (stochastic, many) == (row.stochastic, bool(multistep)), name
    assert [*page] == ["`flow` (diffrax)"]


def test_multistep_is_what_remembers(table):
    for name, key, multistep, *_ in table:
        carry = STEPPERS[key].make(processes.vp()).init(jnp.ones(2), jnp.asarray(0.9))
        assert bool(jax.tree.leaves(carry)) == bool(multistep), name


def test_every_sampler_is_on_the_page():
    """All that is exported, but what is no stepper and what is tuned or walked by others."""
    page = (ROOT / "docs/samplers.md").read_text()
    others = {
        "Flow",
        "Sampler",
        "Stepper",
        "sample",
        "draw",
        "draw_chunks",
        "edm",
        "generalised",
        "euler_in_t",
        "runge_kutta_in_t",
    }
    others |= {"langevin", "project", "product", "recasting", "in_turn", "churn"}
    missing = {name for name in samplers.__all__ if not re.search(rf"\b{name}\b", page)} - others
    assert not missing


@pytest.mark.parametrize("name", STEPPERS)
def test_a_step_asks_as_often_as_the_roster_says(name):
    """The last of five steps: a start is over by then."""
    p, asked = processes.vp(), 0

    def denoise(x, t):
        nonlocal asked
        asked += 1
        return 0.5 * x

    stepper = STEPPERS[name].make(p)
    x, ts = jnp.ones(2), jnp.linspace(0.9, 0.4, 6)
    with jax.disable_jit():  # so that a branch runs when it is taken
        carry = stepper.init(x, ts[0])
        for t, s in pairwise(ts):
            asked = 0
            x, carry = stepper.step(jax.random.key(0), denoise, carry, x, t, s)
    assert asked == STEPPERS[name].calls
