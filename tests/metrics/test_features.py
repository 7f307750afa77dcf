import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.errors import InputError
from jaxdiff.metrics import extract, pca, pixels

IMAGES = np.random.default_rng(0).standard_normal((50, 4, 3, 1)) @ np.ones((1, 2))


def test_pixels_flatten():
    out = pixels()(IMAGES.astype(np.float32))
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, IMAGES.astype(np.float32).reshape(50, 24))


def test_pca_recovers_a_known_basis_and_its_variances():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    scores = rng.standard_normal((40, 6))
    scores -= scores.mean(0)
    scores = np.linalg.qr(scores)[0] * np.array([9, 5, 4, 2, 1, 0.5])  # uncorrelated columns of known length
    project = pca(7.0 + scores @ basis.T, 3)
    np.testing.assert_allclose(np.abs(project(7.0 + scores @ basis.T)), np.abs(scores[:, :3]), atol=1e-12)
    fresh = rng.standard_normal((5, 6))
    np.testing.assert_allclose(np.abs(project(7.0 + fresh)), np.abs(fresh @ basis[:, :3]), atol=1e-12)


def test_pca_of_all_components_keeps_distances():
    flat = pixels()(IMAGES)[:, ::2]  # the two channels are equal
    out = pca(flat, 12)(flat)
    np.testing.assert_allclose(
        np.linalg.norm(out[:9] - out[9:18], axis=1), np.linalg.norm(flat[:9] - flat[9:18], axis=1)
    )


def test_extract_in_chunks_equals_one_call_for_any_callable():
    def network(x):
        return jnp.stack([x.sum((1, 2, 3)), x.max((1, 2, 3))], 1)

    np.testing.assert_array_equal(extract(network, IMAGES, chunk=7), np.asarray(network(IMAGES)))


@pytest.mark.parametrize(
    ("features", "images", "message"),
    [
        (pixels(), IMAGES[:0], "nothing empty"),
        (pixels(), np.where(IMAGES > 1, np.nan, IMAGES), "samples must be finite"),
        (lambda x: x, IMAGES, r"must have shape \(50, F\), got \(50, 4, 3, 2\)"),
        (lambda x: x[:3].reshape(3, -1), IMAGES, r"must have shape \(50, F\), got \(3, 24\)"),
        (lambda x: np.full((len(x), 2), np.nan), IMAGES, "features of samples must be finite"),
        (pca(IMAGES, 3), IMAGES[:, 1:], "24 values each"),
    ],
)
def test_mistakes_in_features(features, images, message):
    with pytest.raises(InputError, match=message):
        extract(features, images)
