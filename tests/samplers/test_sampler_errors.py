"""A caller's mistake is one sentence: what, what was got, what was expected, the cure. In a compiled caller, where the
numbers are known only when it runs, the samples are NaN."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import STEPPERS

from jaxdiff import processes, samplers
from jaxdiff.errors import InputError

X = jnp.ones(3)
FINE = jnp.array([0.9, 0.5, 0.1])


def walk(key, ts=FINE, stepper=None, denoise=lambda x, t: 0.5 * x, x=X, **options):
    return samplers.sample(key, stepper or samplers.euler(processes.vp()), denoise, x, ts, **options)


def one_sentence(error):
    text = str(error.value)
    assert len(text) < 350
    assert "\n" not in text


@pytest.mark.parametrize(
    "ts", [[0.1, 0.9], [0.9, 0.5, 0.5], [1.2, 0.5], [0.9, -0.1], [0.9, np.nan, 0.1], [0.9, 0.1, 0.5]]
)
def test_times_must_fall_within_0_and_1(ts, key):
    with pytest.raises(InputError, match="sampling times must fall from at most 1") as error:
        walk(key, jnp.array(ts))
    assert "got [" in str(error.value)
    one_sentence(error)


def test_times_must_fall_when_compiled_too(key):
    run = jax.jit(lambda ts: walk(key, ts))
    assert jnp.isfinite(run(FINE)).all()
    assert jnp.isnan(run(FINE[::-1])).all()


@pytest.mark.parametrize("ts", [[0.5], [], 0.5, [[0.9, 0.1]]])
def test_there_must_be_two_times(ts, key):
    with pytest.raises(
        InputError, match=r"have shape .*expected at least 2 falling times; make them with a grid"
    ) as error:
        walk(key, jnp.asarray(ts))
    one_sentence(error)


def test_there_must_be_an_interval_for_each_end(key):
    first = samplers.euler(processes.vp())
    with pytest.raises(InputError, match="expected at least 3 falling times"):
        walk(key, FINE[:2], first=first, last=first)


@pytest.mark.parametrize(
    "stepper", ["euler", "heun", "dpmpp_2m", "ancestral", "reverse_sde", "churn_heun", "langevin_euler"]
)
@pytest.mark.parametrize(
    ("denoise", "got"),
    [
        (lambda x, t: x[:1], r"float32 of shape \(1,\)"),
        (lambda x, t: x[None], r"float32 of shape \(1, 3\)"),
        (lambda x, t: x.astype(jnp.bfloat16), r"bfloat16 of shape \(3,\)"),
        (lambda x, t: (x, x), "a tuple"),
        (lambda x, t: None, "a NoneType"),
    ],
)
def test_a_belief_must_be_like_the_state(stepper, denoise, got, key):
    made = STEPPERS[stepper].make(processes.vp())
    with pytest.raises(
        InputError, match=f"the denoiser returned {got} for x of float32 and shape .*array like x"
    ) as error:
        walk(key, stepper=made, denoise=denoise)
    one_sentence(error)


@pytest.mark.parametrize("denoise", [None, 3.0, {"w": 1}])
def test_a_denoiser_must_be_a_function(denoise, key):
    sample = inspect.unwrap(samplers.sample)  # without the type checker, which would be first
    name = type(denoise).__name__
    with pytest.raises(
        InputError, match=rf"denoiser is a {name}, expected a function of \(x, t\) that returns E"
    ) as error:
        sample(key, samplers.euler(processes.vp()), denoise, X, FINE)
    one_sentence(error)


@pytest.mark.parametrize("name", [name for name, row in STEPPERS.items() if row.needs_last])
def test_a_second_order_step_must_not_end_without_noise(name, key):
    stepper, ts = STEPPERS[name].make(processes.vp()), jnp.array([0.9, 0.5, 0.0])
    with pytest.raises(InputError, match=r"sigma is 0 at the last time.*last=euler\(process\)") as error:
        walk(key, ts, stepper)
    one_sentence(error)
    assert jnp.isnan(jax.jit(lambda ts: walk(key, ts, stepper))(ts)).all()
    # With `last`, and where noise is left at t = 0, there is no such demand.
    assert jnp.isfinite(walk(key, ts, stepper, last=samplers.euler(processes.vp()))).all()
    assert jnp.isfinite(walk(key, ts, STEPPERS[name].make(processes.ve()))).all()


@pytest.mark.parametrize("make", [processes.flow, processes.cosine])
def test_the_reverse_sde_must_not_start_without_signal(make, key):
    p, ts = make(), jnp.array([1.0, 0.5, 0.1])
    stepper = samplers.reverse_sde(p)
    with pytest.raises(InputError, match=r"alpha is 0 at the first time.*first=euler\(process\)") as error:
        walk(key, ts, stepper)
    one_sentence(error)
    assert jnp.isnan(jax.jit(lambda ts: walk(key, ts, stepper))(ts)).all()
    assert jnp.isfinite(walk(key, ts, stepper, first=samplers.euler(p))).all()


def test_a_last_stepper_that_needs_noise_is_refused_too(key):
    p = processes.vp()
    with pytest.raises(InputError, match="sigma is 0 at the last time"):
        walk(key, jnp.array([0.9, 0.5, 0.0]), last=samplers.heun(p))


def test_a_modifier_passes_on_the_demands_of_its_stepper(key):
    p, ts = processes.vp(), jnp.array([0.9, 0.5, 0.0])
    for stepper in (
        samplers.churn(p, samplers.heun(p), 0.1),
        samplers.langevin(p, samplers.heun(p)),
        samplers.project(samplers.heun(p), lambda x, s: x),
    ):
        with pytest.raises(InputError, match="sigma is 0 at the last time"):
            walk(key, ts, stepper)


def test_draw_checks_before_it_compiles(key):
    p = processes.vp()
    sampler = samplers.Sampler(p, samplers.heun(p), jnp.array([0.9, 0.5, 0.0]))
    with pytest.raises(InputError, match="sigma is 0 at the last time"):
        samplers.draw(key, 2, lambda cond: lambda x, t: x, sampler, (3,))


@pytest.mark.parametrize("steps", [0, -1])
def test_edm_needs_a_step(steps):
    with pytest.raises(InputError, match=f"n={steps} steps, expected a whole number of at least 1"):
        samplers.edm(processes.edm(), steps=steps)


def test_edm_needs_a_range():
    with pytest.raises(InputError, match=r"sigma_min=5\.0 is not below sigma_max=1\.0"):
        samplers.edm(processes.edm(), sigma_min=5.0, sigma_max=1.0)
    with pytest.raises(InputError, match=r"sigma_max=100 is outside the process's noise levels"):
        samplers.edm(processes.edm(80.0), sigma_max=100.0)
