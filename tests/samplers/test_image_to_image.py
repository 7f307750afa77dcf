"""Starting from noised data: the law of what comes out is known on Gaussian data, and any sampler does it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.runs.samplers import SAMPLERS
from jaxdiff.samplers import Sampler

MEAN, STD = 0.3, 0.5


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_fast"])  # a whole by itself
def test_the_result_has_the_exact_law(name, key):
    """x0 noised to t and carried back: along the flow (x - m) / std is kept, along a stochastic walk x_0 is drawn from
    p(x_0 | x_t)."""
    process, n, level = processes.edm(), 4096, 0.8
    oracle = oracles.gaussian(process, MEAN, STD**2)
    first_order = ("ancestral", "ancestral_2s", "reverse_sde", "ddim", "euler")  # or a second with large steps
    steps = {"steps": 200 if name in first_order else 40}
    sampler = SAMPLERS[name](process, **steps).begin(level)
    t = float(sampler.ts[0])
    sigma = 80 * t
    assert sigma <= level * (1 + 1e-6)
    x0 = np.full((n,), -0.9, np.float32)
    found = samplers.draw(key, n, lambda cond: oracle.denoise, sampler, (), x0=x0, chunk=1024)
    assert found.shape == (n,)
    # x_t ~ N(x0, sigma^2); the flow to 0 shrinks by STD / hypot(STD, sigma), the reverse SDE's mean by its square.
    shrink = STD / np.hypot(STD, sigma)
    stochastic = name in ("ancestral", "reverse_sde") or "sde" in name or "ancestral" in name
    mean = MEAN + (-0.9 - MEAN) * (shrink**2 if stochastic else shrink)
    variance = shrink**4 * sigma**2 + STD**2 * (1 - shrink**2) if stochastic else (shrink * sigma) ** 2
    error = 5 * np.sqrt(variance / n)
    assert abs(found.mean() - mean) < 0.02 + error
    assert abs(found.std() / np.sqrt(variance) - 1) < 0.05 + 5 / np.sqrt(2 * n)


def test_less_noise_keeps_more_of_the_image(key):
    process = processes.edm()
    oracle = oracles.gaussian(process, np.zeros(3), np.diag([1.0, 0.5, 0.1]))
    x0 = np.tile(np.array([2.0, -1.0, 0.2], np.float32), (64, 1))
    sampler = samplers.edm(process, steps=40)
    away = [
        np.abs(samplers.draw(key, 64, lambda cond: oracle.denoise, sampler.begin(level), (3,), x0=x0) - x0).mean()
        for level in (0.02, 0.2, 2.0, 20.0)
    ]
    assert away == sorted(away)
    assert away[0] < 0.05


def test_begin_takes_the_first_level_at_most_the_one_asked_for():
    process = processes.vp()
    whole = samplers.edm(process, steps=10)
    alpha, sigma = process.scales(whole.ts)
    levels = np.asarray(sigma / alpha)
    for k in range(9):
        begun = whole.begin(float(levels[k]) * 1.0001)
        np.testing.assert_array_equal(begun.ts, whole.ts[k:])
    assert isinstance(begun, Sampler)
    reverse = SAMPLERS["reverse_sde"](processes.flow(), steps=10)
    assert reverse.begin(5.0).first is None  # the start without signal is cut away, and its stepper with it
    assert reverse.begin(np.inf).first is not None


def test_multistep_samplers_begin_with_an_empty_memory(key):
    process = processes.edm()
    oracle = oracles.gaussian(process, MEAN, STD**2)
    whole = SAMPLERS["dpmpp_2m"](process, steps=12)
    begun = whole.begin(1.0)
    alone = Sampler(process, whole.stepper, begun.ts, last=whole.last)
    x = jnp.asarray(0.7)
    np.testing.assert_array_equal(begun(key, oracle.denoise, x), alone(key, oracle.denoise, x))


def test_mistakes_in_beginnings(key):
    process = processes.edm()
    sampler = samplers.edm(process, steps=10)
    with pytest.raises(
        InputError, match=r"begin got level=0\.0001, below the sampler's last steps; expected at least 0\.0"
    ):
        sampler.begin(1e-4)
    fast = SAMPLERS["dpm_fast"](process, steps=20)
    with pytest.raises(InputError, match="give it one turn an interval"):
        samplers.draw(key, 2, lambda cond: lambda x, t: x, fast.begin(1.0), (), x0=np.zeros(2))
    with pytest.raises(InputError, match=r"x0 has shape \(3, 2\), expected \(4, \.\.\.\)"):
        samplers.draw(key, 4, lambda cond: lambda x, t: x, sampler, (2,), x0=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"x0 has examples of shape \(5,\), expected \(2,\)"):
        samplers.draw(key, 4, lambda cond: lambda x, t: x, sampler, (2,), x0=np.zeros((4, 5)))
