"""Nothing retraces: steppers and denoisers made anew, with other numbers in them, run the program that is there. And
that program, and its memory, do not grow with the number of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxdiff import denoisers, grids, parameterizations, processes, samplers

pytestmark = pytest.mark.claim("nothing retraces; a program's size does not grow with the steps")


class Counted:
    """A network, and how often JAX has read it."""

    def __init__(self):
        self.traces = 0

    def __call__(self, params, x, c_noise, cond):
        self.traces += 1
        return jnp.tanh(x * params["w"] + c_noise[:, None])


# Each made by numbers that may differ from call to call.
MADE = {
    "euler": lambda p, v: samplers.euler(p),
    "heun": lambda p, v: samplers.heun(p),
    "dpmpp_2m": lambda p, v: samplers.dpmpp_2m(p),
    "ancestral": lambda p, v: samplers.ancestral(p),
    "ddim": lambda p, v: samplers.ddim(p, v),
    "reverse_sde": lambda p, v: samplers.reverse_sde(p, v),
    "churn": lambda p, v: samplers.churn(p, samplers.heun(p), v, low=v / 10, noise_scale=1 + v),
    "langevin": lambda p, v: samplers.langevin(p, samplers.euler(p), snr=v, steps=2),
    "project": lambda p, v: samplers.project(samplers.ddim(p, v), clipped),
    "runge_kutta_in_t": lambda p, v: samplers.runge_kutta_in_t(p, v),
    "recasting": lambda p, v: samplers.recasting(samplers.euler(p), p, p),
    "dpmpp_2s": lambda p, v: samplers.dpmpp_2s(p, 0.5 + v),
    "dpm_3s": lambda p, v: samplers.dpm_3s(p),
    "dpmpp_3m": lambda p, v: samplers.dpmpp_3m(p),
    "deis": lambda p, v: samplers.deis(p, 4),
    "lms": lambda p, v: samplers.lms(p),
    "unipc": lambda p, v: samplers.unipc(p, 3),
    "unipc_published": lambda p, v: samplers.unipc(p, published=samplers.bh2),
    "dpmpp_sde": lambda p, v: samplers.dpmpp_sde(p, v),
    "dpmpp_2m_sde": lambda p, v: samplers.dpmpp_2m_sde(p, v),
    "dpmpp_3m_sde": lambda p, v: samplers.dpmpp_3m_sde(p, v),
    "ancestral_form": lambda p, v: samplers.ancestral_form(p, samplers.dpm_2s(p), v),
    "one_path": lambda p, v: samplers.one_path(p, samplers.ddim(p, v), levels=4),
    "warmed": lambda p, v: samplers.warmed(samplers.dpmpp_3m(p), samplers.heun(p), 2),
    "in_turn": lambda p, v: samplers.in_turn((samplers.euler(p), samplers.heun(p)), (0, 1, 1, 0)),
    "inverse": lambda p, v: samplers.inverse(p, samplers.euler(p)),
}
X = jnp.ones(3)


def clipped(x, s):
    return jnp.clip(x, -3, 3)


def parts(apply, v):
    """Process, denoiser and times, all made anew."""
    p = processes.vp(0.1 * (1 + v), 20.0)
    denoise = denoisers.from_network(apply, parameterizations.edm(0.5 + v), p)({"w": jnp.full(3, 1 + v)})
    return p, denoise, grids.karras(p, 5)


@pytest.mark.parametrize("name", MADE)
def test_a_stepper_made_again_retraces_nothing(name, key):
    apply = Counted()

    def run(v):
        p, denoise, ts = parts(apply, v)
        return samplers.sample(key, MADE[name](p, v), denoise, X, ts, last=samplers.euler(p))

    run(0.1)
    once = apply.traces
    assert once > 0
    run(0.2)
    run(0.3)
    assert apply.traces == once

    # In a compiled caller, too: the second call of two adds nothing to the trace of the first.
    jax.make_jaxpr(lambda: run(0.1) + run(0.2) + run(0.3))()
    inside = apply.traces - once
    assert inside <= once


def test_numbers_that_are_traced_are_welcome(key):
    """eta, amount and snr can be learned, or mapped over."""
    apply = Counted()

    @jax.jit
    def run(v):
        p, denoise, ts = parts(apply, 0.1)
        return [
            samplers.sample(key, MADE[name](p, v), denoise, X, ts, last=samplers.euler(p))
            for name in ("ddim", "reverse_sde", "churn", "langevin")
        ]

    first, traces = run(jnp.asarray(0.1)), apply.traces
    second = run(jnp.asarray(0.6))
    assert apply.traces == traces
    assert all((a != b).any() for a, b in zip(first, second, strict=True))


def test_the_recipe_and_draw_retrace_nothing(key):
    apply = Counted()

    def run(v, n):
        p = processes.edm(80.0 - v)
        network = denoisers.from_network(apply, parameterizations.edm(0.5 + v), p)
        sampler = samplers.edm(p, steps=5, churn=10 * v, noise_scale=1 + v)
        return samplers.draw(key, n, network.bind({"w": jnp.full(3, v)}), sampler, (3,), chunk=4)

    run(0.1, 3)
    once = apply.traces
    run(0.2, 9)
    run(0.3, 1)
    assert apply.traces == once


def test_drawings_of_any_number_of_steps_are_one_program(key):
    """Deterministic, stochastic and multistep, with ends of their own; the walk of each is that of `sample`."""
    for make in (MADE["heun"], MADE["ddim"], MADE["dpmpp_3m"]):
        apply, seen = Counted(), []
        for n in (2, 3, 18, 256):
            p, denoise, _ = parts(apply, 0.1)
            euler = samplers.euler(p)
            sampler = samplers.Sampler(p, make(p, 0.1), grids.karras(p, n), euler if n > 2 else None, euler)
            before = apply.traces
            drawn = samplers.draw(key, 2, lambda cond, d=denoise: d, sampler, (3,), chunk=2)
            seen.append(apply.traces - before)
            start, walk = jax.random.split(jax.random.fold_in(key, 1))
            x = sampler(walk, denoise, sampler.start(start, (3,)))
            np.testing.assert_allclose(drawn[1], x, rtol=1e-5, atol=1e-5)
        assert seen[1] > 0
        assert seen[2:] == [0, 0]


def test_product_retraces_nothing(key):
    traces = []

    def joint(x, t):
        traces.append(1)
        return {"a": jnp.tanh(x["a"]), "b": 0.5 * x["b"]}

    def run(v):
        p, q = processes.vp(0.1 + v), processes.cosine(0.008 + v)
        stepper = samplers.product({"a": samplers.ddim(p, v), "b": samplers.ancestral(q)})
        return samplers.sample(key, stepper, joint, {"a": X, "b": X}, jnp.linspace(1.0, 0.0, 6))

    run(0.1)
    once = len(traces)
    run(0.2)
    assert len(traces) == once


def test_the_flow_retraces_nothing():
    apply = Counted()

    def run(v):
        p, denoise, _ = parts(apply, v)
        return samplers.flow(p, denoise, X, rtol=1e-3, atol=1e-3)

    run(0.1)
    once = apply.traces
    run(0.2)
    assert apply.traces == once


def equations(jaxpr):
    """All equations, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("name", [name for name in MADE if name != "in_turn"])  # whose turns are the grid's
def test_the_program_does_not_grow_with_the_number_of_steps(name, key):
    apply, sizes = Counted(), []
    for n in (16, 256):
        p, denoise, _ = parts(apply, 0.1)
        args = MADE[name](p, 0.1), denoise, samplers.euler(p)
        program = jax.make_jaxpr(lambda x, ts, args=args: run(key, x, ts, *args))(X, grids.karras(p, n))
        sizes.append(len(list(equations(program.jaxpr))))
    assert sizes[0] == sizes[1] > 10


def run(key, x, ts, stepper, denoise, last, trajectory=False):
    return samplers.sample(key, stepper, denoise, x, ts, first=last, last=last, trajectory=trajectory)


def test_the_compiled_program_does_not_grow_with_the_number_of_steps(key):
    p, denoise, _ = parts(Counted(), 0.1)
    stepper, last = samplers.heun(p), samplers.euler(p)
    sizes = []
    for n in (16, 256):
        ts = grids.karras(p, n)
        program = jax.jit(lambda x, ts=ts: run(key, x, ts, stepper, denoise, last)).lower(X).compile()
        sizes.append(sum(" = " in line for line in program.as_text().splitlines()))
    assert sizes[0] == sizes[1] > 10


def test_states_are_kept_only_on_request(key):
    p, denoise, ts = parts(Counted(), 0.1)
    args = samplers.heun(p), denoise, samplers.euler(p)
    states = (len(ts) - 3, *X.shape)  # of the middle stepper's scan
    for trajectory in (False, True):
        program = jax.make_jaxpr(lambda x, keep=trajectory: run(key, x, ts, *args, trajectory=keep))(X)
        shapes = {getattr(v.aval, "shape", None) for eqn in equations(program.jaxpr) for v in eqn.outvars}
        assert (states in shapes) == trajectory
