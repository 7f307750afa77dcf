import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import data, denoisers, parameterizations, processes
from jaxdiff.errors import InputError
from jaxdiff.networks import UNet, count, fourier_features, functional

SMALL = {"width": 8, "multipliers": (1,), "blocks": 1, "groups": 4, "features": 16}


@pytest.mark.parametrize("exponents", [(7, 8), (3,), (-1, 0, 12)])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 4, 2)])
def test_they_are_the_formula_to_float32s_last_digits(exponents, shape, key):
    """Against NumPy in float64, whose own angle is exact enough at these sizes."""
    x = 2 * jax.random.normal(key, shape)
    found = fourier_features(x, exponents)
    angles = np.concatenate([2.0**n * np.pi * np.asarray(x, np.float64) for n in exponents], -1)
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)], -1), atol=5e-7)
    assert found.dtype == jnp.float32
    slope = jax.jvp(lambda x: fourier_features(x, exponents), (x,), (jnp.ones_like(x),))[1]
    rates = np.repeat(np.pi * 2.0 ** np.array(exponents), shape[-1])
    exact = np.concatenate([rates * np.cos(angles), -rates * np.sin(angles)], -1)
    np.testing.assert_allclose(slope, exact, atol=1e-6 * rates.max())


def test_the_two_exponents_tell_odd_levels_from_even_and_a_level_from_its_edge():
    """17 levels, n = 4: a period a level; n = 3: half of one. For 256 nearly so with 8 and 7."""
    for levels, exponents, atol in ((17, (3, 4), 1e-5), (256, (7, 8), 1.0)):
        k = np.arange(levels, dtype=np.uint8)
        x = jnp.asarray(data.to_model(k, levels))[None, :, None]
        parity, whole = np.asarray(fourier_features(x, exponents))[0, :, 2:].T
        middle = slice(levels // 2 - 8, levels // 2 + 8)
        start = parity[levels // 2] * (-1.0) ** (levels // 2)
        np.testing.assert_allclose(parity[middle], (start * (-1.0) ** k)[middle], atol=min(atol, 0.2))
        np.testing.assert_allclose(np.diff(whole[middle]), 0, atol=min(atol, 0.2))
        between = fourier_features(x[:, middle] + 1 / (levels - 1), exponents)
        assert np.all(np.asarray(between)[0, :, 3] * whole[middle] < 0)


def test_a_unet_with_them_has_a_wider_stem_and_is_the_plain_one_without_its_weights(key, perturb):
    plain, params = functional(UNet(3, **SMALL, rngs=nnx.Rngs(0)))
    waving, wide = functional(UNet(3, **SMALL, fourier=(7, 8), rngs=nnx.Rngs(0)))
    assert count(wide) == count(params) + 9 * (3 * 2 * 2) * 8
    wide = perturb(wide)
    narrow = wide | {"stem": wide["stem"] | {"kernel": wide["stem"]["kernel"][:, :, :3]}}
    deaf = wide | {"stem": wide["stem"] | {"kernel": wide["stem"]["kernel"].at[:, :, 3:].set(0)}}
    x, c = jax.random.normal(key, (2, 8, 8, 3)), jnp.array([-1.0, 0.5])
    plain, waving = jax.jit(plain), jax.jit(waving)
    np.testing.assert_allclose(waving(deaf, x, c, None), plain(narrow, x, c, None), atol=1e-5)

    def response(apply, params):
        """To a thousandth of the data's range."""
        return jnp.abs(apply(params, x + 1e-3, c, None) - apply(params, x, c, None)).max()

    assert response(waving, wide) > 10 * response(waving, deaf)


def test_a_denoiser_sees_the_waves_of_x_itself_where_c_in_is_one(key, perturb):
    """The first convolution of a network in bfloat16 gets them in the digits of float32."""
    process = processes.logsnr()
    net = UNet(1, **SMALL, fourier=(7, 8), dtype="bfloat16", rngs=nnx.Rngs(0))
    apply, params = functional(net)
    params = perturb(params)
    denoise = denoisers.from_network(apply, parameterizations.noise, process)(params)
    x = jax.random.normal(key, (8, 8, 1))
    out = jax.jit(denoise)(x, 0.3)
    assert (out.shape, out.dtype) == (x.shape, jnp.float32)
    assert np.all(np.isfinite(out))
    # A stem that sees the waves alone does not see x move by 2^-6, whole periods of both.
    waves = params | {"stem": params["stem"] | {"kernel": params["stem"]["kernel"].at[:, :, :1].set(0)}}
    blind = jax.jit(lambda x: apply(waves, x[None], jnp.zeros(1), None))
    whole = jnp.round(x * 2**12) / 2**12
    np.testing.assert_array_equal(blind(whole + 2**-6), blind(whole))
    assert jnp.abs(blind(whole + 2**-9) - blind(whole)).max() > 1e-2


def test_an_exponent_twice_is_refused():
    with pytest.raises(InputError, match=r"exponents \(7, 7\), expected each once"):
        fourier_features(jnp.zeros((1, 4, 1)), (7, 7))
