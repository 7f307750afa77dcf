"""Steppers in turn: the warmed start of a multistep method, the orders of dpm_fast, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError

P = processes.vp()
TS = P.time_of(jnp.geomspace(5.0, 0.2, 6))
ORACLE = oracles.gaussian(P, 0.3 * jnp.ones(2), 0.25)


X = jnp.array([1.0, -2.0])


def walk(stepper, x=X, ts=TS):
    return samplers.sample(jax.random.key(0), stepper, ORACLE.denoise, x, ts)


def test_turns_are_taken_in_order():
    """One walk of three steppers is three walks of one each."""
    a, b, c = samplers.euler(P), samplers.heun(P), samplers.dpm_3s(P)
    together = walk(samplers.in_turn([a, b, c], [2, 2, 0, 1, 1]))
    x = walk(c, ts=TS[:3])
    x = walk(a, x, TS[2:4])
    np.testing.assert_allclose(together, walk(b, x, TS[3:]), atol=1e-6)


def test_warmed_starts_with_the_other_stepper():
    multistep, start = samplers.dpmpp_2m(P), samplers.heun(P)
    stepper = samplers.warmed(multistep, start, 1)
    np.testing.assert_allclose(walk(stepper, ts=TS[:2]), walk(start, ts=TS[:2]), atol=1e-6)
    # The second step is the multistep's, which remembers the first belief.
    _, carry = multistep.step(None, ORACLE.denoise, multistep.init(X, TS[0]), X, TS[0], TS[1])
    expected, _ = multistep.step(None, ORACLE.denoise, carry, walk(start, ts=TS[:2]), TS[1], TS[2])
    np.testing.assert_allclose(walk(stepper, ts=TS[:3]), expected, atol=1e-6)


@pytest.mark.parametrize("calls", [3, 4, 5, 6, 10, 11, 12])
def test_dpm_fast_spends_its_calls(calls):
    asked = []

    def denoise(x, t):
        jax.debug.callback(lambda: asked.append(1))
        return 0.5 * x

    samplers.dpm_fast(processes.edm(), calls=calls)(jax.random.key(0), denoise, jnp.ones(2))
    jax.effects_barrier()
    assert len(asked) == calls


def raises(match):
    return pytest.raises(InputError, match=match)


def test_mistakes():
    euler, multistep = samplers.euler(P), samplers.dpmpp_2m(P)
    with raises(r"in_turn got turns=\(0, 2\) for 2 steppers"):
        samplers.in_turn([euler, euler], [0, 2])
    with raises("in_turn has 2 turns, but walks 5 intervals; give it one turn an interval"):
        walk(samplers.in_turn([euler], [0, 0]))
    with raises("in_turn got a multistep stepper"):
        walk(samplers.in_turn([multistep], [0] * 5))
    with raises("warmed got steps=0, expected at least 1"):
        samplers.warmed(multistep, euler, 0)
    with raises("warmed got a multistep start"):
        walk(samplers.warmed(multistep, multistep, 1))
    with raises("ancestral_form got a multistep stepper"):
        walk(samplers.ancestral_form(P, multistep))
    with raises("dpm_fast got calls=2, expected at least 3"):
        samplers.dpm_fast(P, calls=2)
    for make in (samplers.deis, samplers.lms):
        with raises("got order=5, expected 1, 2, 3 or 4"):
            make(P, 5)
    with raises("unipc got order=1, expected 2 or 3"):
        samplers.unipc(P, 1)
    for r in (0.0, 1.5):
        with raises(rf"single-step solver got r={r}, expected a fraction of the step in \(0, 1\]"):
            samplers.dpm_2s(P, r)


def ancestral_dpm_2s(p):
    return samplers.ancestral_form(p, samplers.dpm_2s(p))


@pytest.mark.parametrize("make", [samplers.dpm_2s, samplers.dpmpp_3s, samplers.dpmpp_sde, ancestral_dpm_2s])
def test_a_start_without_signal_is_refused(make):
    p = processes.flow()
    with raises(r"alpha is 0 at the first time; give the first step to another stepper.*first=euler"):
        samplers.sample(jax.random.key(0), make(p), lambda x, t: x, jnp.ones(2), jnp.array([1.0, 0.5, 0.1]))


def test_the_ancestral_form_looks_where_its_stepper_goes():
    """From alpha = 0 the whole of x is noise, so Heun would be sent to sigma = 0."""
    p = processes.flow()
    with raises("sigma is 0 at the last time"):
        samplers.sample(
            jax.random.key(0), samplers.ancestral_form(p, samplers.heun(p)), lambda x, t: x, jnp.ones(2),
            jnp.array([1.0, 0.5, 0.1]),
        )  # fmt: skip
