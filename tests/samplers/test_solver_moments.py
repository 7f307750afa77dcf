"""Stochastic solvers on Gaussian data: their exact spread is k-diffusion's to ten digits, and converges to the data's
at the order that the roster gives."""

import jax.numpy as jnp
import numpy as np
import pytest
from columns import spread
from roster import STEPPERS

from jaxdiff import grids, processes, samplers

pytestmark = pytest.mark.usefixtures("x64")


def independent(sigma, middle, sigma_s):
    return 0.0 * sigma


def in_sigma(sigma, middle, sigma_s):
    return jnp.sqrt((sigma - middle) / (sigma - sigma_s))


def ancestral_form(inner, eta=1.0):
    return lambda p: samplers.ancestral_form(p, inner(p), eta)


# Standard deviations after 10 and 20 Karras steps from 80, N(0, 80^2), to 0, of data N(0, .5^2): by k-diffusion in
# float64, each draw given a coordinate of its own. The last column says how the two draws of dpmpp_sde are correlated.
KARRAS = {
    "euler_a": (samplers.ancestral, 0.3018828846, 0.3782805316, None),
    "euler_a_half": (lambda p: samplers.ddim(p, 0.5), 0.3553464370, 0.4206155153, None),
    "dpm_2_a": (ancestral_form(samplers.dpm_2s), 0.7914531991, 0.5579041777, None),
    "dpmpp_2s_a": (ancestral_form(samplers.dpmpp_2s), 0.3962852544, 0.4638900161, None),
    "dpmpp_2s_a_half": (ancestral_form(samplers.dpmpp_2s, 0.5), 0.4548176310, 0.4865631065, None),
    "dpmpp_2m_sde": (samplers.dpmpp_2m_sde, 0.5834133551, 0.5559187012, None),
    "dpmpp_2m_sde_half": (lambda p: samplers.dpmpp_2m_sde(p, 0.5), 0.5857888190, 0.5332905876, None),
    "dpmpp_2m_sde_heun": (lambda p: samplers.dpmpp_2m_sde(p, heun=True), 0.8655102335, 0.6454405302, None),
    "dpmpp_3m_sde": (lambda p: samplers.dpmpp_3m_sde(p, published=True), 1.2443708287, 0.5015783476, None),
    "dpmpp_3m_sde_half": (lambda p: samplers.dpmpp_3m_sde(p, 0.5, published=True), 0.7906345333, 0.4928026485, None),
    "dpmpp_sde_tree": (samplers.dpmpp_sde, 0.4296401012, 0.4793368874, in_sigma),
    "dpmpp_sde_independent": (samplers.dpmpp_sde, 0.3501248833, 0.4052925804, independent),
}


@pytest.mark.parametrize("name", KARRAS)
def test_the_spread_is_k_diffusions(name):
    make, *golden, clock = KARRAS[name]
    p = processes.edm()
    found = [spread(p, make(p), grids.karras(p, n), 80.0, 0.25, clock=clock) for n in (10, 20)]
    np.testing.assert_allclose(found, golden, rtol=0, atol=1e-9)


WEAK = [
    "ddim_half",
    "ancestral",
    "dpmpp_sde",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "ancestral_form_dpm_2s",
    "ancestral_form_euler",
]


@pytest.mark.parametrize("name", WEAK)
@pytest.mark.parametrize("process", ["vp", "flow"])
def test_the_spread_converges_at_the_order_of_the_stepper(name, process):
    row, p = STEPPERS[name], getattr(processes, process)()

    def law(t):
        alpha, sigma = p.scales(t)
        return jnp.sqrt(0.25 * alpha**2 + sigma**2)

    errors = []
    for n in (160, 320):
        ts = p.time_of(jnp.geomspace(8.0, 0.1, n + 1))
        errors.append(abs(spread(p, row.make(p), ts, law(ts[0]), 0.25, with_last=False) - law(ts[-1])))
    assert abs(np.log2(errors[0] / errors[1]) - row.order) < 0.25, errors


def test_the_ancestral_form_keeps_the_order_of_its_stepper():
    """The noise is exact, so a third-order step stays third order."""
    p = processes.vp()
    errors = []
    for n in (80, 160):
        ts = p.time_of(jnp.geomspace(8.0, 0.1, n + 1))
        law = [jnp.sqrt(0.25 * a**2 + s**2) for a, s in (p.scales(ts[0]), p.scales(ts[-1]))]
        stepper = samplers.ancestral_form(p, samplers.dpmpp_3s(p))
        errors.append(abs(spread(p, stepper, ts, law[0], 0.25, with_last=False) - law[1]))
    assert abs(np.log2(errors[0] / errors[1]) - 3) < 0.25, errors
