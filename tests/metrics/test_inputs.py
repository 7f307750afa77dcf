"""Every metric refuses what it can't measure, with one sentence that names it."""

import jax
import numpy as np
import pytest

from jaxdiff import metrics
from jaxdiff.errors import InputError

GOOD = np.random.default_rng(0).standard_normal((20, 3))
NAN = np.where(np.arange(60).reshape(20, 3) == 7, np.nan, GOOD)

TWO_TABLES = {
    "frechet": lambda a, b: metrics.frechet_distance(metrics.moments(a), metrics.moments(b)),
    "kernel": metrics.kernel_distance,
    "precision": metrics.precision_recall,
    "density": metrics.density_coverage,
    "sliced": lambda a, b: metrics.sliced_wasserstein(a, b, key=jax.random.key(0)),
    "closer": lambda a, b: metrics.closer_fraction(a, b, b),
    "memorisation": lambda a, b: metrics.memorisation(a, b, b, key=jax.random.key(0)),
    "agreement": lambda a, b: metrics.class_agreement(a, np.zeros(len(a), int), b, np.zeros(len(b), int)),
    "median": metrics.median_distance,
}
BAD = {
    "nan": (NAN, "must be finite, got 1 NaN"),
    "infinite": (np.where(np.isnan(NAN), np.inf, NAN), "must be finite"),
    "images": (GOOD.reshape(20, 3, 1), r"must be a table .* got shape \(20, 3, 1\)"),
    "vector": (GOOD[:, 0], r"must be a table .* got shape \(20,\)"),
    "empty": (GOOD[:0], "at least"),
    "no features": (GOOD[:, :0], "at least"),
    "other features": (GOOD[:, :2], "same features"),
    "complex": (GOOD + 0j, "real numbers"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("metric", TWO_TABLES)
def test_mistakes_in_tables(metric, bad):
    table, message = BAD[bad]
    with pytest.raises(InputError, match=message):
        TWO_TABLES[metric](table, GOOD)
    with pytest.raises(InputError, match=message):
        TWO_TABLES[metric](GOOD, table)


@pytest.mark.parametrize("metric", TWO_TABLES)
def test_jax_and_numpy_and_integers_agree(metric):
    a, b = np.round(8 * GOOD), np.round(8 * np.random.default_rng(1).standard_normal((25, 3)))
    expected = TWO_TABLES[metric](a, b)
    same = TWO_TABLES[metric](jax.numpy.asarray(a, jax.numpy.float32), b.astype(np.int8))
    jax.tree.map(np.testing.assert_array_equal, expected, same)


CALLS = {
    "k above the points": lambda: metrics.density_coverage(GOOD, GOOD, k=20),
    "k of recall above the samples": lambda: metrics.precision_recall(GOOD[:3], GOOD, k=3),
    "k zero": lambda: metrics.precision_recall(GOOD, GOOD, k=0),
    "k of expected coverage": lambda: metrics.expected_coverage(5, 5, 5),
    "votes": lambda: metrics.knn_classifier(GOOD[:2], np.arange(2), k=3),
    "label count": lambda: metrics.knn_classifier(GOOD, np.arange(19)),
    "one-hot labels": lambda: metrics.knn_classifier(GOOD, np.eye(20, dtype=int)),
    "float labels": lambda: metrics.class_agreement(GOOD, np.zeros(20), GOOD, np.zeros(20, int)),
    "bandwidth": lambda: metrics.rbf(0.0),
    "order": lambda: metrics.sliced_wasserstein(GOOD, GOOD, key=jax.random.key(0), order=0.5),
    "projections": lambda: metrics.sliced_wasserstein(GOOD, GOOD, key=jax.random.key(0), projections=0),
    "one sample": lambda: metrics.kernel_distance(GOOD[:1], GOOD),
    "one covariance": lambda: metrics.frechet_distance(metrics.moments(GOOD[:1]), metrics.moments(GOOD)),
    "level": lambda: metrics.memorisation(GOOD, GOOD, GOOD, key=jax.random.key(0), level=1.0),
    "components": lambda: metrics.pca(GOOD, 4),
    "components of few": lambda: metrics.pca(GOOD[:3], 3),
    "nothing to stream": lambda: metrics.stream([]),
    "few rows": lambda: metrics.evaluate(GOOD[:7], GOOD, GOOD, features=metrics.pixels(), key=jax.random.key(0)),
    "one draw": lambda: metrics.evaluate(GOOD, GOOD, GOOD, features=metrics.pixels(), key=jax.random.key(0), draws=1),
    "shapes": lambda: metrics.evaluate(GOOD, GOOD, GOOD[:, :2], features=metrics.pixels(), key=jax.random.key(0)),
}


@pytest.mark.parametrize("call", CALLS)
def test_mistakes_in_options(call):
    with pytest.raises(InputError):
        CALLS[call]()
