"""Several sets of samples against the published or stored statistics of a data set, and what the figure is worth.

A Frechet distance of n samples is too high even for a perfect generator: its mean is off by about tr(S) / n, and its
covariance by more, without bound as n falls to the number of features. That **floor** is known where the law is: n
draws of the Gaussian that has the reference's own moments. For other laws it is of the same size, not exact.

Published figures are the least of three sets (Karras et al. 2022), lower than their mean by about .85 standard
deviations: so all of them stand here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.frechet import Moments, frechet_distance, moments, symmetric_root
from jaxdiff.metrics.inputs import generator, whole
from jaxdiff.types import PRNGKey


class OverSeeds(NamedTuple):
    """The distance of each set, and their minimum, mean and standard deviation (None for one set)."""

    each: tuple[float, ...]
    min: float
    mean: float
    std: float | None


def over_seeds(samples: Sequence[Moments], reference: Moments) -> OverSeeds:
    """The Frechet distance of each set of samples to the reference, and their summary.

    Raises InputError for no set, or other features."""
    if not samples:
        raise InputError("over_seeds got no set of samples, expected one for each seed; draw at least one.")
    each = tuple(frechet_distance(one, reference) for one in samples)
    return OverSeeds(each, min(each), float(np.mean(each)), float(np.std(each, ddof=1)) if len(each) > 1 else None)


def gaussian_floor(reference: Moments, n: int, *, key: PRNGKey, draws: int = 4) -> float:
    """The mean Frechet distance to `reference` of n draws from the Gaussian with its moments, over `draws` such sets.

    At one feature of variance s^2 its expectation is s^2 / n + 2 s^2 (1 - c_4(n)), with E s_n = c_4(n) s. Raises
    InputError for fewer than 2 samples."""
    whole(n, "n", 2, 1 << 40, "a covariance needs two")
    whole(draws, "draws", 1, 1 << 20, "sets of samples")
    rng, root = generator(key), symmetric_root(reference.sigma)
    sets = (moments(reference.mu + rng.standard_normal((n, len(root))) @ root) for _ in range(draws))
    return float(np.mean([frechet_distance(one, reference) for one in sets]))


def worth(samples: Moments, reference: Moments, floor: float | None = None) -> list[str]:
    """What a Frechet distance of these is not worth, one sentence each; an empty list where nothing is amiss.

    `floor` is `gaussian_floor` at the samples' count, to be said where it is known."""
    size, said = len(reference.mu), []
    if not samples.full_rank:
        said.append(
            f"frechet: {samples.n} samples of {size} features give a covariance of rank {_rank(samples)}, so the "
            "distance is too high by an amount that hangs on the count"
            + (f" (a perfect Gaussian generator gets {floor:.4g} here)" if floor is not None else "")
            + f": compare it at this count alone, or draw more than {size} samples."
        )
    if not reference.full_rank:
        said.append(
            f"frechet: the reference itself is {reference.n} examples of {size} features, a covariance of rank "
            f"{_rank(reference)}, so no number of samples brings the distance of a good generator to 0."
        )
    return said


def _rank(m):
    return min(m.n - 1, len(m.mu))
