"""How close generated samples are to real data, and how close real data are to themselves.

Every metric takes a table of features (N, F) (`features`), samples first and reference second, in float64 NumPy.
`evaluate` puts each beside its floor: read that before any figure. Distances here are named by what they are and the
features they used; none is comparable with a published figure computed on another network's features.

Sequences have rooms of their own: `molecules` (SMILES), `kmers` (DNA), `text`, and `classification` (was the class that
was asked for drawn, and can samples be told from real data)."""

from jaxdiff.metrics import classification, kmers, molecules, text
from jaxdiff.metrics.coverage import density_coverage, expected_coverage, precision_recall
from jaxdiff.metrics.estimate import Estimate
from jaxdiff.metrics.features import extract, name_of, named, pca, pixels
from jaxdiff.metrics.frechet import (
    Moments,
    frechet_distance,
    load_moments,
    merge,
    moments,
    same_features,
    save_moments,
    statistics,
    stream,
)
from jaxdiff.metrics.kernel import KernelDistance, cubic, kernel_distance, median_distance, rbf
from jaxdiff.metrics.neighbours import Memorisation, class_agreement, closer_fraction, knn_classifier, memorisation
from jaxdiff.metrics.reference import OverSeeds, gaussian_floor, over_seeds, worth
from jaxdiff.metrics.report import as_text, caveats, evaluate, flat
from jaxdiff.metrics.sliced import sliced_wasserstein

__all__ = [
    "Estimate",
    "KernelDistance",
    "Memorisation",
    "Moments",
    "OverSeeds",
    "as_text",
    "caveats",
    "class_agreement",
    "classification",
    "closer_fraction",
    "cubic",
    "density_coverage",
    "evaluate",
    "expected_coverage",
    "extract",
    "flat",
    "frechet_distance",
    "gaussian_floor",
    "kernel_distance",
    "kmers",
    "knn_classifier",
    "load_moments",
    "median_distance",
    "memorisation",
    "merge",
    "molecules",
    "moments",
    "name_of",
    "named",
    "over_seeds",
    "pca",
    "pixels",
    "precision_recall",
    "rbf",
    "same_features",
    "save_moments",
    "sliced_wasserstein",
    "statistics",
    "stream",
    "text",
    "worth",
]
