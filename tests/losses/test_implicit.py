"""Implicit, sliced and denoising score matching are one objective: equal means in value and gradient over 1e4 draws, on
a denoiser whose Jacobian is neither symmetric nor diagonal; and by hand where nothing is random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import grids, losses, oracles, parameterizations, processes
from jaxdiff.errors import InputError

pytestmark = pytest.mark.claim("ISM, SSM and DSM losses have equal means and gradients")


DRAWS = 10_000
COV = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.3]])
PARAMS = {
    "in": jnp.array([[0.9, -0.8, 0.3], [0.1, 0.7, 0.9], [-0.6, 0.2, 0.5]]),
    "out": jnp.array([[0.4, 0.7, -0.2], [-0.9, 0.3, 0.4], [0.2, -0.5, 0.6]]),
}


def network(params, x, t):
    """A small one, its Jacobian out diag(1 - tanh^2) in."""
    return params["out"] @ jnp.tanh(params["in"] @ x + t)


def forms(process):
    weight = losses.weights.likelihood
    return {
        "denoising": losses.matching(process, parameterizations.score, weight),
        "implicit": losses.implicit(process),
        "sliced": losses.sliced(process),
        "sliced twice": losses.sliced(process, probes=2),
        "sliced, the first form": losses.sliced(process, variance_reduced=False),
    }


def drawn(key, process, one, n=DRAWS):
    """`one(key, x0, t)` on data of covariance COV, times uniform over [.2, .9]."""
    data_key, time_key, key = jax.random.split(key, 3)
    x0 = oracles.gaussian(process, np.array([0.3, -0.5, 0.1]), COV).sample(data_key, n)
    t = grids.stratified_times(time_key, process, n, low=0.2, high=0.9).t
    return jax.jit(jax.vmap(one))(jax.random.split(key, n), x0, t)


@pytest.mark.parametrize("make", [processes.vp, processes.flow])
def test_the_forms_have_equal_means_in_value_and_gradient(make, key):
    process = make()

    def value_and_slopes(loss, key, x0, t):
        value, slopes = jax.value_and_grad(lambda params: loss(key, lambda x, t: network(params, x, t), x0, t))(PARAMS)
        return jnp.concatenate([value[None], *(leaf.reshape(-1) for leaf in jax.tree.leaves(slopes))])

    tables = {}
    for i, (name, loss) in enumerate(forms(process).items()):
        draw_key = jax.random.fold_in(key, i)
        tables[name] = np.asarray(drawn(draw_key, process, lambda *a, loss=loss: value_and_slopes(loss, *a)), float)
    means = {name: table.mean(0) for name, table in tables.items()}
    errors = {name: table.std(0) / np.sqrt(DRAWS) for name, table in tables.items()}
    for name in tables:
        z = (means[name] - means["denoising"]) / np.hypot(errors[name], errors["denoising"])
        print(f"{name}: mean {means[name][0]:.3f} +- {errors[name][0]:.3f}, worst z {np.abs(z).max():.2f}")
        assert np.abs(z).max() < 5, (name, z)


def test_the_forms_by_hand(x64):
    """EDM at sigma = 40, eps = 1, D(x) = A x: s = (A - 1) x / 1600, div s = tr(A - 1) / 1600."""
    a, x0 = np.array([[0.2, 0.5], [-0.3, 0.6]]), np.array([2.0, -1.0])

    def ones(key, shape, dtype):
        return jnp.ones(shape, dtype)

    def value(loss, **options):
        return loss(jax.random.key(0), lambda x, t: a @ x, jnp.asarray(x0), 0.5, noise=ones, **options)

    process, jacobian = processes.edm(), (a - np.eye(2)) / 1600
    score = jacobian @ (x0 + 40)
    exact = score @ score + 2 * np.trace(jacobian) + 2 / 1600
    unit = losses.weights.unit
    np.testing.assert_allclose(value(losses.implicit(process, unit)), exact, rtol=1e-12)
    np.testing.assert_allclose(value(losses.implicit(process)), 6400 * exact, rtol=1e-12)  # g^2 = (sigma^2)' = 6400
    # A probe of signs is (1, 1) or (1, -1), up to its own sign.
    for reduced in (True, False):
        possible = [
            (score @ score if reduced else (v @ score) ** 2) + 2 * v @ jacobian @ v + 2 / 1600
            for v in np.array([[1, 1], [1, -1]])
        ]
        got = value(losses.sliced(process, unit, variance_reduced=reduced))
        assert min(abs(got / np.array(possible) - 1)) < 1e-12
    # The mask holds the second element alone, or none.
    exact = score[1] ** 2 + 2 * jacobian[1, 1] + 1 / 1600
    mask = jnp.array([False, True])
    for loss in (losses.implicit, losses.sliced, lambda *a: losses.sliced(*a, probes=3, variance_reduced=False)):
        np.testing.assert_allclose(value(loss(process, unit), mask=mask), exact, rtol=1e-12)
        assert value(loss(process, unit), mask=jnp.zeros(2, bool)) == 0


def test_implicit_sees_the_x_t_that_matching_sees(key):
    """The denoiser that answers with its input tells: alpha D - x_t is a multiple of x_t."""
    process, x0 = processes.vp(), jnp.array([0.3, -1.0, 0.8])
    alpha, sigma = process.scales(0.3)
    x = process.perturb(key, x0, 0.3)
    exact = np.sum(((alpha - 1) * x / sigma**2) ** 2) + 3 * (2 * alpha - 1) / sigma**2
    seen = losses.implicit(process, losses.weights.unit)(key, lambda x, t: x, x0, 0.3)
    np.testing.assert_allclose(seen, exact, rtol=1e-5)


def test_what_the_mask_hides_may_be_no_number(key):
    mask = jnp.array([[True], [False]])

    def denoise(x, t):
        return jnp.where(mask, x, jnp.nan)

    for loss in (losses.implicit(processes.vp()), losses.sliced(processes.vp())):
        assert jnp.isfinite(loss(key, denoise, jnp.ones((2, 2)), 0.3, mask=mask))
        assert jnp.isnan(loss(key, denoise, jnp.ones((2, 2)), 0.3))


def test_they_are_pytrees_that_compile_once_and_keep_their_dtype(key, x64):
    traces = 0

    @jax.jit
    def value(loss, key, x0, t):
        nonlocal traces
        traces += 1
        return loss(key, lambda x, t: 0.5 * x, x0, t)

    for make in (losses.implicit, losses.sliced):
        for dtype in (jnp.float32, jnp.float64):
            before = traces
            for beta in (15.0, 20.0):
                assert value(make(processes.vp(0.1, beta)), key, jnp.ones((2, 3), dtype), 0.5).dtype == dtype
            assert traces == before + 1


def test_mistakes(key):
    with pytest.raises(InputError, match=r"probes=0, expected at least 1"):
        losses.sliced(processes.vp(), probes=0)
    for loss in (losses.implicit(processes.vp()), losses.sliced(processes.vp())):
        with pytest.raises(InputError, match=r"shape \(1, 3\) for x of float32 and shape \(3,\)"):
            loss(key, lambda x, t: x[None], jnp.zeros(3), 0.3)
