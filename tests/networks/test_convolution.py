"""The 3 x 3 convolution and all its derivatives are XLA's own, however the kernel's gradient is summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.networks.convolution import Conv3x3


def plain(padding, x, kernel, bias):
    rows = (padding, padding)
    return (
        jax.lax.conv_general_dilated(x, kernel, (1, 1), (rows, rows), dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
    )


def ours(padding):
    graph, _ = nnx.split(Conv3x3(2, 3, padding=padding, param_dtype=jnp.float64, dtype=jnp.float64, rngs=nnx.Rngs(0)))
    return lambda x, kernel, bias: nnx.merge(graph, nnx.State({"kernel": kernel, "bias": bias}))(x)


@pytest.mark.parametrize(("shape", "padding"), [((20, 30), 1), ((19, 27), 2), ((4, 4), 1), ((4, 600), 1)])
def test_values_and_derivatives_in_both_modes(key, x64, shape, padding):
    keys = iter(jax.random.split(key, 8))
    draw = lambda: tuple(jax.random.normal(next(keys), s) for s in ((2, *shape, 2), (3, 3, 2, 3), (3,)))  # noqa: E731
    args, tangents = draw(), draw()
    mine, theirs = ours(padding), lambda *args: plain(padding, *args)
    weight = jax.random.normal(next(keys), jax.eval_shape(theirs, *args).shape)
    for f in (lambda f: f(*args), lambda f: jax.jvp(f, args, tangents)[1]):
        np.testing.assert_allclose(f(mine), f(theirs), atol=1e-12)
    gradient = lambda f: jax.grad(lambda args: jnp.sum(weight * f(*args)))(args)  # noqa: E731
    for a, b in zip(gradient(mine), gradient(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_strips_serve_the_kernel_alone(key, x64):
    f, x, kernel = ours(1), jnp.ones((1, 32, 32, 2)), jnp.ones((3, 3, 2, 3))

    def convolutions(g, at):
        return str(jax.make_jaxpr(g)(at)).count("conv_general_dilated[")

    assert convolutions(lambda x: jax.jvp(lambda x: f(x, kernel, jnp.ones(3)), (x,), (x,)), x) == 2
    assert convolutions(jax.grad(lambda k: f(x, k, jnp.ones(3)).sum()), kernel) == 9  # the value, and eight strips
    mapped = jax.vmap(lambda k, x: f(x[None], k, jnp.ones(3)).sum(), (None, 0))
    assert convolutions(jax.grad(lambda k: mapped(k, jnp.ones((4, 32, 32, 2))).sum()), kernel) == 9
