"""No figure without the figure that real data get. Every metric here is biased, noisy or both at a finite number of
samples, so `evaluate` puts beside each value its **floor**: the same metric between real data and real data.

What makes the floor honest:
- **Equal counts.** All comparisons use `compared` = min(samples, held-out) rows against one number of reference rows
  (the training set's). With more generated samples the value is a mean over subsets of that size that use them all:
  precise, but with the bias of the floor.
- **A null law, not one split.** The pool of train and held-out data is split again at random in each draw; the mean and
  standard deviation of those figures are the metric's law under "the samples are fresh real data". Subsets of one
  held-out set would share it, and their spread would shrink to nothing at full size.
- **A finite pool.** m rows out of a pool of P vary by 1 - m / P less in their mean than fresh rows do, and its
  mean is itself off. So `floor_std` carries the factor sqrt((P + m) / (P - m)): right for metrics that are means over
  samples (class agreement, nearest), too careful for those that gain as much spread from the reference.
- **The actual split beside it.** The metric of the held-out data as given stands in `heldout`. Far from the floor, the
  split was not random (other writers, other days), and `caveats` says so.
- **Two-sided.** A copy of the training set beats the floor. So a good generator is *at* the floor, |z| of order 1, and
  better than real is as suspect as worse.

Everything, memorisation and class agreement too, is measured in the one feature space given."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.coverage import density_coverage, precision_recall
from jaxdiff.metrics.features import Features, extract
from jaxdiff.metrics.frechet import frechet_distance, moments
from jaxdiff.metrics.inputs import Images, Labels, classes, generator, whole
from jaxdiff.metrics.kernel import kernel_distance, median_distance, rbf
from jaxdiff.metrics.neighbours import class_agreement, closer_fraction, nearest
from jaxdiff.metrics.sliced import sliced_wasserstein
from jaxdiff.types import PRNGKey

Report = dict[str, dict[str, float]]
"""metric -> {value, floor, floor_std, heldout, z, direction}, and "counts" -> the sizes they were made at."""

DIRECTION = {
    "frechet": -1.0,
    "kernel": -1.0,
    "rbf": -1.0,
    "sliced": -1.0,
    "precision": 1.0,
    "recall": 1.0,
    "density": 1.0,
    "coverage": 1.0,
    "nearest": 0.0,
    "closer_to_train": 0.0,
    "class_agreement": 1.0,
}
"""1: higher is better, -1: lower is better, 0: the floor is best (`nearest` below it: copies; above: off the data)."""

FEWEST = 8  # rows: k-nearest-neighbour balls with k = 5 and a covariance need a few more than five points


def evaluate(
    samples: Images,
    train: Images,
    heldout: Images,
    *,
    features: Features,
    labels: tuple[Labels, Labels, Labels] | None = None,
    key: PRNGKey,
    draws: int = 16,
    most: int = 5000,
) -> Report:
    """Every metric of samples (N, ...) against train (M, ...), beside what real data get at equal counts.

    Rows are {value, floor, floor_std, heldout, z, direction}, plain floats: z = (value - floor) / floor_std, direction
    as in `DIRECTION`; `report["counts"]` holds the sizes. `heldout` (H, ...) is real data that the generator never saw.
    `labels` = (requested classes of the samples, train's, held-out's) adds `class_agreement`. At most `most` rows of
    each set are used, drawn by `key`. Cost: about `draws` + N / min(N, H) comparisons of min(N, H) with M rows.
    In `closer_to_train`, `heldout` is held-out data between two disjoint training subsets.

    Raises InputError for NaN, empty sets, features that don't match, fewer than 8 rows in a set or than 2 draws."""
    whole(draws, "draws", 2, 1 << 20, "a standard deviation needs two")
    whole(most, "most", FEWEST, 1 << 40, "rows of each set")
    names = ("samples", "train", "heldout")
    tables = [extract(features, x, name=name) for x, name in zip((samples, train, heldout), names, strict=True)]
    for x, name in zip(tables, names, strict=True):
        if len(x) < FEWEST or x.shape[1] != tables[1].shape[1]:
            raise InputError(
                f"{name} must have at least {FEWEST} rows of {tables[1].shape[1]} features, as train has, got "
                f"{x.shape}; give more data of the same shape."
            )
    tags = _tags(labels, [len(x) for x in tables], names)
    rng = generator(key)
    picks = [_pick(rng, len(x), most) for x in tables]
    (fake, real, held), (asked, real_tags, held_tags) = (
        [x[p] for x, p in zip(group, picks, strict=True)] for group in (tables, tags)
    )

    pool, pool_tags = np.concatenate([real, held]), np.concatenate([real_tags, held_tags])
    count, size = min(len(fake), len(held)), len(real)
    half = min(len(held), size // 2)  # two disjoint real sets of this size, for closer_to_train
    spread = rng.permutation(pool)
    width = median_distance(spread[::2], spread[1::2])
    directions = [_key(rng) for _ in range(draws)]  # draw d projects all three on the same directions

    def one(d, x, x_tags, ref, ref_tags, near, far):
        return _measure(x, ref, near, far, width, directions[d], None if labels is None else (x_tags, ref_tags))

    def halves(x):  # two disjoint real sets
        order = rng.permutation(len(x))
        return x[order[:half]], x[order[half : 2 * half]]

    value, given, floor = [], [], []
    for d, i in enumerate(_pieces(rng, len(fake), count, draws)):
        near, far = real[_pick(rng, size, half)], held[_pick(rng, len(held), half)]
        value.append(one(d, fake[i], asked[i], real, real_tags, near, far))
    for d, i in enumerate(_pieces(rng, len(held), count, draws)):
        given.append(one(d, held[i], held_tags[i], real, real_tags, *halves(real)))
    for d in range(draws):
        order = rng.permutation(len(pool))
        i, rest = order[:count], order[count : count + size]
        floor.append(one(d, pool[i], pool_tags[i], pool[rest], pool_tags[rest], *halves(pool[rest])))

    finite = np.sqrt((len(pool) + count) / (len(pool) - count))
    report = {
        name: _row(name, finite, *(np.array([r[name] for r in runs]) for runs in (value, floor, given)))
        for name in value[0]
    }
    report["counts"] = {
        "samples": float(len(tables[0])),
        "train": float(len(tables[1])),
        "heldout": float(len(tables[2])),
        "compared": float(count),
        "reference": float(size),
        "features": float(pool.shape[1]),
        "rank": float(np.linalg.matrix_rank(pool - pool.mean(0))),
        "draws": float(draws),
    }
    return report


def caveats(report: Report) -> list[str]:
    """What the figures of a report are not worth, one sentence each; an empty list where nothing is amiss."""
    counts, said = report["counts"], []
    compared, rank = int(counts["compared"]), int(counts["rank"])
    if compared <= rank:
        said.append(
            f"frechet: {compared} samples give a covariance of rank {compared - 1} and the features span {rank} "
            "directions, so the estimate is rank-deficient and too high by an unknown amount: compare it with its "
            "floor at this count and with nothing else, or use `kernel` and `rbf`, which have no bias."
        )
    if compared < 100:
        said.append(f"all: {compared} samples are compared, so only gross errors can be seen: give more samples.")
    if counts["heldout"] < counts["samples"] / 10:
        said.append(
            f"all: {int(counts['heldout'])} held-out examples limit the comparison to that size for "
            f"{int(counts['samples'])} samples: hold out more data."
        )
    apart = [
        n for n, r in report.items() if n != "counts" and abs(r["heldout"] - r["floor"]) > 5.0 * r["floor_std"] > 0.0
    ]
    if apart:
        said.append(
            f"{', '.join(apart)}: the held-out data as given are over 5 standard deviations from random splits of the "
            "same real data, so the split is not random, and no floor speaks for both parts: shuffle before you split."
        )
    better = [n for n, r in report.items() if n != "counts" and r["direction"] * r["z"] > 5.0]
    if better:
        said.append(
            f"{', '.join(better)}: better than real data by over 5 standard deviations; truncation, guidance and "
            "copying all do that, and `closer_to_train` tells copying apart."
        )
    if report["closer_to_train"]["z"] > 5.0:
        said.append(
            "closer_to_train: samples are nearer to training data than to equally many held-out data by over 5 "
            "standard deviations, so they repeat it: look at their nearest training examples with `memorisation`."
        )
    return said


def flat(report: Report) -> dict[str, float]:
    """The report as {"frechet/value": ..., "frechet/floor": ...}, for loggers."""
    return {f"{name}/{field}": number for name, row in report.items() for field, number in row.items()}


def as_text(report: Report) -> str:
    """The report as a table of aligned columns, and its caveats below."""
    sign = {1.0: "higher", -1.0: "lower", 0.0: "at floor"}
    lines = [f"{'metric':<16}{'value':>11}{'floor':>11}{'+-':>10}{'heldout':>11}{'z':>8}  better"]
    for name, r in report.items():
        if name != "counts":
            lines.append(
                f"{name:<16}{r['value']:>11.4g}{r['floor']:>11.4g}{r['floor_std']:>10.2g}{r['heldout']:>11.4g}"
                f"{r['z']:>8.1f}  {sign[r['direction']]}"
            )
    lines.append(", ".join(f"{name} {int(count)}" for name, count in report["counts"].items()))
    return "\n".join(lines + caveats(report))


def _measure(x, ref, near, far, width, key, tags) -> Mapping[str, Any]:
    """All metrics of the table `x` against `ref`; `near` and `far` are real sets of one size for closer_to_train."""
    precision, recall = precision_recall(x, ref, k=3)
    density, coverage = density_coverage(x, ref, k=5)
    out = {
        "frechet": frechet_distance(moments(x), moments(ref)),
        "kernel": kernel_distance(x, ref, blocks=1).value,
        "rbf": kernel_distance(x, ref, kernel=rbf(width), blocks=1).value,
        "sliced": sliced_wasserstein(x, ref, key=key, projections=128),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "nearest": float(np.median(nearest(x, ref)[0])),
        "closer_to_train": closer_fraction(x, near, far),
    }
    if tags is not None:
        out["class_agreement"] = class_agreement(x, tags[0], ref, tags[1])
    return out


def _row(name, finite, value, floor, given):
    mean, std, middle = float(value.mean()), float(floor.std(ddof=1) * finite), float(floor.mean())
    gap = mean - middle
    z = gap / std if std > 0.0 else (0.0 if gap == 0.0 else float(np.copysign(np.inf, gap)))
    return {
        "value": mean,
        "floor": middle,
        "floor_std": std,
        "heldout": float(given.mean()),
        "z": z,
        "direction": DIRECTION[name],
    }


def _tags(labels, counts, names):
    if labels is None:
        return [np.zeros(n, np.int64) for n in counts]
    return [classes(y, f"labels of {name}", n) for y, n, name in zip(labels, counts, names, strict=True)]


def _pick(rng, n, size):
    return rng.permutation(n)[:size]


def _pieces(rng, n, size, most):
    """Rows of ceil(n / size) subsets of one size, at most `most`, that use every row where they can; the last wraps."""
    order = rng.permutation(n)
    return [order[(np.arange(size) + i * size) % n] for i in range(min(-(-n // size), most))]


def _key(rng):
    return jax.random.key(int(rng.integers(1 << 31)))
