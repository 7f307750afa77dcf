"""On Gaussian data every sampler is an affine map of its starting noise. The intercepts and slopes here were computed
by k-diffusion and by diffusers, on D = (s^2 x + sigma^2 m) / (s^2 + sigma^2)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes, samplers

MEAN, STD = 0.3, 0.5

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.claim("the solvers equal k-diffusion's intercepts and slopes to 1e-8, published forms included"),
]


class Ones(eqx.Module):
    """All noise is 1, on a path too."""

    def __call__(self, key, shape, dtype):
        return jnp.ones(shape, dtype)

    def between(self, x, t, s):
        return jnp.ones_like(x)


def line(sampler):
    """Intercept and slope of the sampler's result in the latent z, x = sigma(t_0) z."""
    denoise = oracles.gaussian(sampler.process, MEAN, STD**2).denoise
    scale = sampler.process.scales(sampler.ts[0])[1]
    at = jax.vmap(lambda z: sampler(jax.random.key(0), denoise, scale * z, noise=Ones()))(jnp.array([0.0, 1.0]))
    return np.array([at[0], at[1] - at[0]])


EDM = {
    "dpm_2": (samplers.dpm_2s, 0.2978977693, 0.5605948607),
    "dpmpp_2m": (samplers.dpmpp_2m, 0.2978273000, 0.5793866576),
    "euler_a": (lambda p: samplers.ancestral_form(p, samplers.euler(p)), 0.8985176752, 0.0031248779),
    "dpm_2_a": (lambda p: samplers.ancestral_form(p, samplers.dpm_2s(p)), 1.9457622216, 0.0186701879),
    "dpmpp_2s_a": (lambda p: samplers.ancestral_form(p, samplers.dpmpp_2s(p)), 1.1227505820, 0.0061863584),
    "dpmpp_sde": (samplers.dpmpp_sde, 1.1894966158, 0.0031248779),
    "dpmpp_2m_sde": (samplers.dpmpp_2m_sde, 1.3579411772, 0.0031248779),
    "dpmpp_2m_sde_heun": (lambda p: samplers.dpmpp_2m_sde(p, heun=True), 1.8005761144, 0.0031248779),
    "dpmpp_3m_sde_published": (lambda p: samplers.dpmpp_3m_sde(p, published=True), 2.1303431626, 0.0031248779),
}


@pytest.mark.parametrize("name", EDM)
def test_it_is_k_diffusions(name):
    """Ten Karras steps, the last one to sigma = 0 first order."""
    make, *golden = EDM[name]
    p = processes.edm()
    sampler = samplers.Sampler(p, make(p), grids.karras(p, 10), last=samplers.euler(p))
    np.testing.assert_allclose(line(sampler), golden, rtol=0, atol=1e-9)


def test_lms_is_k_diffusions_to_the_end():
    p = processes.edm()
    sampler = samplers.Sampler(p, samplers.lms(p), grids.karras(p, 10))
    np.testing.assert_allclose(line(sampler), [0.2984502742, 0.4132602226], rtol=0, atol=1e-9)


def test_dpm_fast_is_k_diffusions():
    np.testing.assert_allclose(
        line(samplers.dpm_fast(processes.edm(), calls=10)), [0.2980274069, 0.5260248226], rtol=0, atol=1e-9
    )


# diffusers on VP, at uneven levels sigma / alpha. Its multistep DPM-Solver rounds to float32 on the way, and says so by
# being 2e-7 off on the first-order row that its other classes have to ten digits.
LEVELS = [20.0, 11.0, 7.0, 4.0, 2.7, 1.6, 0.9, 0.6, 0.35, 0.2]
WIDE = [20.0, 6.0, 1.1, 0.2]
VP = {
    "euler": (samplers.euler, LEVELS, 0.2870943341, 0.4719912377, 1e-9),
    "deis_1": (lambda p: samplers.deis(p, 1), LEVELS, 0.2870943341, 0.4719912377, 1e-9),
    "deis_2": (lambda p: samplers.deis(p, 2), LEVELS, 0.2864810542, 0.5128765660, 1e-9),
    "deis_3": (lambda p: samplers.deis(p, 3), LEVELS, 0.2862818585, 0.5261562803, 1e-9),
    "dpm_3m": (samplers.dpm_3m, LEVELS, 0.2862818585, 0.5261562803, 1e-9),
    "unipc_2_bh1": (lambda p: samplers.unipc(p, 2, published=samplers.bh1), LEVELS, 0.2860386635, 0.5423692804, 1e-9),
    "unipc_2_bh2": (lambda p: samplers.unipc(p, 2, published=samplers.bh2), LEVELS, 0.2861885273, 0.5323783626, 1e-9),
    "unipc_3_bh1": (lambda p: samplers.unipc(p, 3, published=samplers.bh1), LEVELS, 0.2861468043, 0.5351598936, 1e-9),
    "unipc_3_bh2": (lambda p: samplers.unipc(p, 3, published=samplers.bh2), LEVELS, 0.2861473555, 0.5351231458, 1e-9),
    "dpmpp_2s": (samplers.dpmpp_2s, WIDE, 0.2870533422, 0.4747240337, 1e-9),
    "dpmpp_2s_0.4": (lambda p: samplers.dpmpp_2s(p, 0.4), WIDE, 0.2869632413, 0.4807307630, 1e-9),
    "dpm_2s": (samplers.dpm_2s, WIDE, 0.2845305496, 0.6429102074, 1e-9),
    "dpm_2s_0.4": (lambda p: samplers.dpm_2s(p, 0.4), WIDE, 0.2850633667, 0.6073890702, 1e-9),
    "dpmpp_2m": (samplers.dpmpp_2m, LEVELS, 0.2862934103, 0.5253872944, 1e-6),
    "dpm_2m": (samplers.dpm_2m, LEVELS, 0.2864257683, 0.5165605610, 1e-6),
    "dpmpp_3m_published": (lambda p: samplers.dpmpp_3m(p, published=True), LEVELS, 0.2861388215, 0.5356911568, 1e-5),
    "dpm_3m_published": (lambda p: samplers.dpm_3m(p, published=True), LEVELS, 0.2863217194, 0.5234971934, 1e-5),
}


@pytest.mark.parametrize("name", VP)
def test_it_is_diffusers(name):
    make, levels, intercept, slope, tolerance = VP[name]
    p = processes.vp()
    sampler = samplers.Sampler(p, make(p), p.time_of(jnp.array(levels)))
    np.testing.assert_allclose(line(sampler), [intercept, slope], rtol=0, atol=tolerance)


def test_the_same_method_by_two_ways():
    """The ancestral form of Euler is DDIM(eta), a stochastic multistep with eta = 0 is its deterministic self, lms(1)
    is Euler, and eta is the root of k-diffusion's."""
    p = processes.vp()
    ts = p.time_of(jnp.array(LEVELS))

    def found(stepper):
        return line(samplers.Sampler(p, stepper, ts))

    for one, other in (
        (samplers.ancestral_form(p, samplers.euler(p), 0.7), samplers.ddim(p, 0.7)),
        (samplers.dpmpp_2m_sde(p, 0.0), samplers.dpmpp_2m(p)),
        (samplers.dpmpp_3m_sde(p, 0.0), samplers.dpmpp_3m(p)),
        (samplers.dpmpp_sde(p, 0.0), samplers.dpmpp_2s(p)),
        (samplers.lms(p, 1), samplers.euler(p)),
    ):
        np.testing.assert_allclose(found(one), found(other), rtol=0, atol=1e-10)
