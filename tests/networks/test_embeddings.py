import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff.errors import InputError
from jaxdiff.networks import Conditioning, fourier


def test_inner_products_depend_on_the_difference_alone(key):
    # sum_f cos a cos b + sin a sin b = sum_f cos(a - b): a stationary kernel, |e|^2 = features / 2
    a, b = 3 * jax.random.normal(key, (2, 50))
    kernel = lambda a, b: jnp.sum(fourier(a, 32) * fourier(b, 32), -1)  # noqa: E731
    np.testing.assert_allclose(kernel(a, b), kernel(a + 0.37, b + 0.37), atol=1e-3)
    np.testing.assert_allclose(kernel(a, a), 16.0, rtol=1e-5)


def test_levels_are_told_apart_and_neighbours_are_alike():
    c = jnp.arange(-4.0, 4.0, 0.05)
    e = fourier(c, 64)
    far = jnp.linalg.norm(e[:, None] - e[None], axis=-1) + 10 * jnp.eye(len(c))
    assert far.min() > 2.0  # |e| = 5.7, whatever the two levels
    near = jnp.linalg.norm(fourier(c + 1e-3, 64) - e, axis=-1)
    assert near.max() < 0.15


@pytest.mark.parametrize(
    ("options", "word"),
    [({"features": 7}, "even"), ({"features": 2}, "at least 4"), ({"features": 8, "lowest": 9.0}, "lowest < highest")],
)
def test_fourier_says_what_is_wrong(options, word):
    with pytest.raises(InputError, match=word):
        fourier(jnp.zeros(3), **options)


def test_null_class_is_the_row_after_the_last(key):
    net = Conditioning(16, num_classes=4, rngs=nnx.Rngs(0))
    c = jnp.zeros(5)
    rows = net(c, jnp.arange(5, dtype=jnp.int32))
    assert net.null_class == 4
    distance = jnp.linalg.norm(rows[:, None] - rows[None], axis=-1)
    assert jnp.all(distance[~np.eye(5, dtype=bool)] > 0.05)
    np.testing.assert_array_equal(net(c), jnp.broadcast_to(net(c, jnp.full(5, 4, jnp.int32)), rows.shape))


@pytest.mark.parametrize("label", [-1, 5])
def test_label_out_of_range_is_nan_not_a_neighbour(label):
    net = Conditioning(16, num_classes=4, rngs=nnx.Rngs(0))
    out = net(jnp.zeros(2), jnp.array([0, label], jnp.int32))
    assert jnp.all(jnp.isfinite(out[0]))
    assert jnp.all(jnp.isnan(out[1]))


def test_labels_without_classes_are_refused():
    net = Conditioning(16, rngs=nnx.Rngs(0))
    assert net.null_class is None
    with pytest.raises(InputError, match="num_classes"):
        net(jnp.zeros(2), jnp.zeros(2, jnp.int32))
    with pytest.raises(InputError, match="at least 1"):
        Conditioning(16, num_classes=0, rngs=nnx.Rngs(0))
