"""The table of docs/samplers.md says what the roster says, and the roster what a step does."""

import re
import sys
import types
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from roster import STEPPERS, found

from jaxdiff import grids, oracles, processes, samplers

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
    for name, key, *_ in table:
        order, calls, stochastic, _ = page.pop(name)
        row = STEPPERS[key]
        assert abs(float(order) - row.order) < 0.25, name
        assert int(calls) == row.calls, name
        assert stochastic == row.stochastic, name
    assert [*page] == ["`flow` (diffrax)"]


def test_multistep_is_what_remembers(table):
    page = rows()
    for name, key, *_ in table:
        carry = STEPPERS[key].make(processes.vp()).init(jnp.ones(2), jnp.asarray(0.9))
        assert bool(jax.tree.leaves(carry)) == page[name][3], name


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
    others |= {"named", "langevin", "project", "product", "recasting", "in_turn", "churn"}
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


class Toy(samplers.Stepper):
    """A file of its own would hold this: Euler's step with the belief asked a second time where it leads."""

    process: processes.Gaussian
    order = calls = 2

    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        x1, _ = samplers.euler(self.process).step(key, denoise, (), x, t, s)
        (a, b), (a1, b1) = self.process.scales(t), self.process.scales(s)
        now, then = denoise(x, t), denoise(x1, s)
        return x1 + 0.5 * (a1 - a * b1 / b) * (then - now), carry

    def demands(self, ts):
        return ((self.process.scales(ts[-1])[1] > 0, "toy needs noise at its end"),)


def toy(process: processes.Gaussian) -> samplers.Stepper:
    return Toy(process)


def test_a_new_stepper_is_its_file_and_the_door(key):
    """The roster finds what the door shows, with the facts that it says; `ends` and a sampler's calls follow."""
    row = found(types.SimpleNamespace(__all__=["toy", "Toy"], toy=toy, Toy=Toy))["toy"]
    assert (row.order, row.calls, row.stochastic, row.needs_first, row.needs_last) == (2, 2, False, False, True)
    p = processes.edm()
    stepper, ts = toy(p), grids.karras(p, 18)
    sampler = samplers.Sampler(p, stepper, ts, **samplers.ends(stepper, samplers.euler(p), ts))
    assert sampler.calls == 2 * 18 - 1
    oracle = oracles.gaussian(p, jnp.full(4, 0.3), 0.25)
    drawn = samplers.draw(key, 64, lambda cond: oracle.denoise, sampler, (4,))
    assert abs(drawn.mean() - 0.3) < 5 * 0.5 / 16
    assert found(samplers).keys() >= {"euler", "heun", "dpmpp_2m", "ancestral", "unipc"}
