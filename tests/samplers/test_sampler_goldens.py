"""On Gaussian data every sampler is an affine map of its starting noise. The intercepts and slopes here were computed
by other programs (the published EDM code and k-diffusion), on D = (s^2 x + sigma^2 m) / (s^2 + sigma^2)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, oracles, processes, samplers, schedules

MEAN, STD = 0.3, 0.5

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.claim("EDM's sampler equals the published slopes on Gaussian data to 1e-9, with churn too"),
]


class Root(schedules.EDM):
    """VE in the paper's own time, where sigma grows with the root of t; starts at sigma = 0."""

    def sigma(self, t):
        return self.sigma_max * jnp.sqrt(t)

    def variance(self, t):
        return self.sigma_max**2 * t

    def time_of(self, ratio):
        return (ratio / self.sigma_max) ** 2


def ones(key, shape, dtype):
    return jnp.ones(shape, dtype)


def line(sampler):
    """Intercept and slope of the sampler's result in the latent z, x = sigma(t_0) z, with all injected noise = 1."""
    denoise = oracles.gaussian(sampler.process, MEAN, STD**2).denoise
    scale = sampler.process.scales(sampler.ts[0])[1]
    key = jax.random.key(0)
    at = jax.vmap(lambda z: sampler(key, denoise, scale * z, noise=ones))(jnp.array([0.0, 1.0]))
    return np.array([at[0], at[1] - at[0]])


def walk(process, stepper, ts, **ends):
    return samplers.Sampler(process, stepper, ts, **ends)


def is_golden(sampler, intercept, slope):
    np.testing.assert_allclose(line(sampler), [intercept, slope], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "intercept", "slope"),
    [
        (4, 0.2918183863, 2.1817636444),
        (10, 0.2977132575, 0.6097980008),
        (18, 0.2980214076, 0.5276246370),
        (40, 0.2981067118, 0.5048768647),
    ],
)
def test_edm_is_algorithm_1(steps, intercept, slope):
    is_golden(samplers.edm(processes.edm(), steps=steps), intercept, slope)


def test_edm_with_churn_is_algorithm_2():
    sampler = samplers.edm(
        processes.edm(), steps=18, churn=40, churn_min=0.05, churn_max=50, noise_scale=1.003
    )  # The paper's setting for ImageNet.
    is_golden(sampler, 1.9732207787, 0.0200884956)


def test_the_last_step_of_algorithm_2_climbs_too():
    """With S_min = 0, against the algorithm as printed (Karras et al. 2022, Alg. 2), every eps = 1."""
    sampler = samplers.edm(processes.edm(), steps=5, churn=2.0, noise_scale=1.007)
    t = np.append((80 ** (1 / 7) + np.arange(5) / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0)

    def denoise(x, sigma):
        return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)

    x = t[0] * np.array([0.0, 1.0])
    for i in range(5):
        # The first climb stops at the process's own end.
        up = min(t[i] * (1 + 2.0 / 5), 80.0)
        x_up = x + 1.007 * np.sqrt(up**2 - t[i] ** 2)
        d = (x_up - denoise(x_up, up)) / up
        x = x_up + (t[i + 1] - up) * d
        if i < 4:
            x = x_up + (t[i + 1] - up) * (d + (x - denoise(x, t[i + 1])) / t[i + 1]) / 2
    is_golden(sampler, x[0], x[1] - x[0])


def test_euler_is_the_published_euler_on_edm():
    p = processes.edm()
    is_golden(walk(p, samplers.euler(p), grids.karras(p, 18)), 0.2984136321, 0.4230314364)
    is_golden(walk(p, samplers.euler(p), grids.karras(p, 10)), 0.2986304510, 0.3652130651)


def test_euler_and_heun_on_the_iddpm_levels_are_the_published_ones():
    p = processes.edm(81.0)
    ts = grids.iddpm(p, 18, sigma_max=81.0)
    is_golden(walk(p, samplers.euler(p), ts), 0.2982900656, 0.4571435587)
    is_golden(walk(p, samplers.heun(p), ts, last=samplers.euler(p)), 0.2980991433, 0.5081858155)


def test_the_deterministic_reverse_sde_is_the_published_euler_in_t_on_vp():
    p = processes.vp()
    is_golden(walk(p, samplers.reverse_sde(p, 0.0), grids.vp(p, 18)), 0.3042201271, 0.4898416872)


def test_the_deterministic_reverse_sde_is_the_published_euler_in_t_on_edm_levels_of_vp():
    # The VP whose sigma / alpha is .002 at t = .001 and 80 at t = 1 (Karras et al. 2022, Table 1).
    low, high = np.log1p(0.002**2), np.log1p(80.0**2)
    slope = 2 * (low / 1e-3 - high) / (1e-3 - 1)
    p = processes.vp(high - slope / 2, high + slope / 2)
    is_golden(walk(p, samplers.reverse_sde(p, 0.0), grids.karras(p, 18)), 0.3001112379, 0.5222397521)


def test_the_deterministic_reverse_sde_is_the_published_euler_in_sigma_squared_on_ve():
    p = processes.Gaussian(Root(100.0))
    is_golden(walk(p, samplers.reverse_sde(p, 0.0), grids.ve(p, 18)), 0.2952285603, 1.5904798975)
    ts = grids.karras(p, 18, sigma_max=80.0)
    is_golden(walk(p, samplers.reverse_sde(p, 0.0), ts), 0.2948276962, 1.3792810189)


def test_dpmpp_2m_is_the_published_one():
    p = processes.edm()
    sampler = walk(p, samplers.dpmpp_2m(p), grids.karras(p, 10), last=samplers.euler(p))
    is_golden(sampler, 0.2978273000, 0.5793866576)


def test_ancestral_is_the_published_ancestral_euler():
    p = processes.edm()
    for stepper in (samplers.ancestral(p), samplers.ddim(p, 1.0)):
        is_golden(walk(p, stepper, grids.karras(p, 10)), 0.8985176752, 0.0031248779)


def test_one_ancestral_step_from_2_to_1_splits_into_half_and_root_three_quarters():
    p = processes.edm(2.0)
    data = jnp.zeros(())
    sampler = walk(p, samplers.ancestral(p), jnp.array([1.0, 0.5]))
    step = [
        sampler(jax.random.key(0), lambda x, t: data, x, noise=noise)
        for x, noise in ((jnp.asarray(2.0), lambda k, s, d: jnp.zeros(s, d)), (data, ones))
    ]
    np.testing.assert_allclose(step, [0.5, 0.8660254037844386], atol=1e-15)


def test_the_flow_from_80_to_0_is_the_exact_one():
    p = processes.edm()
    oracle = oracles.gaussian(p, MEAN, STD**2)
    exact = [0.2981250366, 0.4999902347]
    z = 80.0 * jnp.array([0.0, 1.0])
    ends = jax.vmap(lambda x: samplers.flow(p, oracle.denoise, x, rtol=1e-10, atol=1e-10).x)(z)
    np.testing.assert_allclose([ends[0], ends[1] - ends[0]], exact, atol=1e-9)
    ends = jax.vmap(lambda x: oracle.flow(x, 1.0, 0.0))(z)
    np.testing.assert_allclose([ends[0], ends[1] - ends[0]], exact, atol=1e-10)
