"""Is a sample new, and is it what was asked for? Both are questions to its nearest real neighbours.

A generator that copies has samples nearer to training data than held-out data are. "Closer to train than to held-out"
is 1/2 for a generator that knows the law and not the training set, *if* both sets have the same size: a larger set is
nearer to everything. (Cutting the larger set down costs power, so `copied` keeps it whole.)"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float64

from jaxdiff.errors import InputError
from jaxdiff.metrics.distances import TIE, nearest
from jaxdiff.metrics.inputs import Labels, Table, classes, generator, pair, table, whole
from jaxdiff.types import PRNGKey


class Memorisation(NamedTuple):
    """Distances to the nearest training example, of samples and of held-out data, and two fractions of them."""

    samples: Float64[np.ndarray, " n"]
    heldout: Float64[np.ndarray, " h"]
    closer: float
    """Samples closer to train than to held-out, at equal set sizes: 1/2 for a law learnt and not copied; about
    (1 + H / M) / 2 for copies of M > H training examples, since a subset of H holds only H / M of their originals."""
    copied: float
    """Samples closer to train than all but `level` of the held-out data are: `level` for a law learnt, 1 for copies."""


def memorisation(
    samples: Table, train: Table, heldout: Table, *, key: PRNGKey, draws: int = 8, level: float = 0.01
) -> Memorisation:
    """Compare each sample's nearest training example with what held-out data get, for (N, F), (M, F), (H, F) features.

    `closer` counts ties half and averages over `draws` random subsets of the larger real set, of the smaller's size.
    `copied` uses the `level` quantile of the H held-out distances, so it says little where level H < 5. Raises
    InputError for different features, no draws, or a level outside (0, 1)."""
    samples, train = pair(samples, train, ("samples", "train"))
    samples, heldout = pair(samples, heldout, ("samples", "heldout"))
    whole(draws, "draws", 1, 1 << 20, "random subsets")
    if not 0.0 < level < 1.0:
        raise InputError(f"level must be between 0 and 1, got {level}; 0.01 takes the nearest hundredth.")
    rng, size = generator(key), min(len(train), len(heldout))
    fractions = [closer_fraction(samples, _some(rng, train, size), _some(rng, heldout, size)) for _ in range(draws)]
    near, usual = nearest(samples, train)[0][:, 0], nearest(heldout, train)[0][:, 0]
    copied = float(np.mean(near < np.quantile(usual, level)))
    return Memorisation(near, usual, float(np.mean(fractions)), copied)


def closer_fraction(samples: Table, first: Table, second: Table) -> float:
    """The fraction of samples nearer to the set `first` than to `second`, ties counting half.

    1/2 in expectation where both sets are draws of the same size and law, independent of the samples. Raises InputError
    for different features."""
    a, b = nearest(samples, first)[0][:, 0], nearest(samples, second)[0][:, 0]
    tie = np.abs(a - b) <= TIE * np.maximum(a, b)
    return float(np.mean(np.where(tie, 0.5, a < b)))


def knn_classifier(reference: Table, labels: Labels, *, k: int = 3) -> Callable[[Any], Any]:
    """A k-nearest-neighbour classifier: features (N, F) -> classes (N,), by majority of the `k` nearest of (M, F).

    A tied vote goes to the tied class that has the nearest neighbour. Raises InputError for labels that aren't M
    integers, or k > M."""
    reference = table(reference, "reference")
    labels = classes(labels, "labels", len(reference))
    whole(k, "k", 1, len(reference), "the number of reference examples")
    return Partial(_classify, reference, labels, k)


def class_agreement(samples: Table, requested: Labels, real: Table, real_labels: Labels, *, k: int = 3) -> float:
    """The fraction of (N, F) samples that a k-nearest-neighbour classifier of real data puts in their requested class.

    Compare it with the classifier's own accuracy on held-out real data, its ceiling for an honest generator. Raises
    InputError for different features or labels of another count."""
    samples, real = pair(samples, real, ("samples", "real"))
    requested = classes(requested, "requested", len(samples))
    return float(np.mean(knn_classifier(real, real_labels, k=k)(samples) == requested))


def _classify(reference, labels, k, x):
    _, rows = nearest(x, reference, k=k)
    votes = labels[rows]  # nearest first
    counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
    return np.take_along_axis(votes, counts.argmax(1)[:, None], 1)[
        :, 0
    ]  # argmax takes the first, the nearest, of a tie


def _some(rng, x, size):
    return x if len(x) == size else x[rng.choice(len(x), size, replace=False)]
