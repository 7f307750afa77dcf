"""Are samples nearer to the training set than to the law that it came from?

The first is of densities. With D2(p, q) = int (p - q)^2 and kernel density estimates of width s N^(-1/d), of n training
points and of N fresh draws of the law,

    Delta = D2(generated, KDE of train) - D2(generated, KDE of fresh draws),

and P(Delta > 0) over training sets is near 0 for a model that memorises (Halder 2024, arXiv 2411.17807). What it is for
one that does not hangs on N: at N = n the two sets change places, so it is 1/2 where samples know nothing of which is
which; with N far above n it tends to 1.

Every term of Delta is an overlap int p q of mixtures of Gaussians: a sum of Gaussian densities. With this width the
kernels' overlaps with themselves, (4 pi s^2)^(-d/2) in all, don't hang on N and leave Delta exactly; the rest may be
e^-400 of them. So sums stay in logarithms, in float64, and Delta is a sign and a logarithm.

`closer` and `copies` are for samples of real models, each with what a model that knows no training example would get;
`agreement` compares two models trained apart. The extreme that memorises is `oracles.empirical`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxdiff.errors import InputError
from jaxdiff.metrics import Estimate
from jaxdiff.metrics.distances import TIE, nearest, squared_blocks
from jaxdiff.metrics.estimate import fraction, mean
from jaxdiff.metrics.inputs import Table, generator, numbers, pair, table, whole
from jaxdiff.types import PRNGKey

ROUNDING = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Density:
    """The mean of n Gaussians N(centre_i, cov): a kernel density estimate, or with n = 1 a Gaussian.

    `cov` is a variance or a matrix; `log_peak` is the part of log int p^2 that is of each Gaussian with itself."""

    centres: Float64[np.ndarray, "n d"]
    cov: Any
    log_peak: float

    @cached_property
    def log_rest(self) -> float:
        """log of the part of int p^2 that is of different Gaussians."""
        return _log_rest(self)

    @cached_property
    def repeats(self) -> int:
        """How many centres are copies of an earlier one."""
        return distinct(self.centres)[1]

    @property
    def log_square(self) -> float:
        """log int p^2."""
        return float(np.logaddexp(self.log_peak, self.log_rest))


def kde(points: Table, *, scale: float | None = None) -> Density:
    """The Gaussian kernel density estimate of (N, d) points, of width `scale` N^(-1/d).

    `scale` is by default the root of the features' mean variance. Raises InputError for fewer than two points, numbers
    that are not finite, or a scale that is not positive."""
    x = table(points, "points", 2)
    n, d = x.shape
    log_scale = math.log(_positive(spread(x) if scale is None else scale))
    variance = math.exp(2 * (log_scale - math.log(n) / d))
    return Density(x, variance, -d * (log_scale + 0.5 * math.log(4 * math.pi)))  # n times the peak, over n^2


def gaussian(mean: Table, cov: Any) -> Density:
    """N(mean, cov) of (d,) and (d, d), or one variance; it may be singular, as a generated law. InputError for other
    shapes, or a covariance that is not one."""
    m, c = numbers(mean, "the mean"), numbers(cov, "the covariance")
    if m.ndim != 1 or c.shape not in ((), (len(m), len(m))):
        raise InputError(f"a Gaussian got a mean of shape {m.shape}, a covariance of {c.shape}; expected (d,), (d, d)")
    values = np.linalg.eigvalsh(c) if c.ndim else np.full(len(m), c)
    if values.min() < -1e-5 * abs(values).max() or (c.ndim and not np.allclose(c, c.T, atol=1e-5 * abs(values).max())):
        raise InputError("the covariance is not symmetric with eigenvalues of 0 or more; expected W W', not W")
    with np.errstate(divide="ignore"):
        log_det = float(np.log(np.maximum(values, 0)).sum())
    return Density(m[None], c if c.ndim else float(c), -0.5 * (log_det + len(m) * math.log(4 * math.pi)))


def log_overlap(p: Density, q: Density) -> float:
    """log int p q = log mean_ij N(p_i - q_j; 0, cov_p + cov_q), in blocks of pairs (32 MB for 10^4 x 10^4).

    Raises InputError for different dimensions, or where the sum of the covariances is singular."""
    (n, d), (m, other) = p.centres.shape, q.centres.shape
    if other != d:
        raise InputError(f"two densities must have one dimension, got {d} and {other}; flatten both the same way")
    x, y, log_det = _whitened(p, q)
    total = _log_sum(block for _, block in squared_blocks(x, y))
    return total - math.log(n) - math.log(m) - 0.5 * (d * math.log(2 * math.pi) + log_det)


def log_distance(p: Density, q: Density) -> float:
    """log D2(p, q) = log int (p - q)^2; -inf where they are equal to rounding."""
    terms = [(1, p.log_peak), (1, p.log_rest), (1, q.log_peak), (1, q.log_rest), (-2, log_overlap(p, q))]
    return _signed(terms)[1]


class Delta(NamedTuple):
    """Delta = sign e^log_abs, and the logarithms of the four overlaps that it is of."""

    sign: int
    """1 is nearer to the law, -1 nearer to the training set, 0 equal to rounding."""
    log_abs: float
    generated_train: float
    generated_reference: float
    train: float
    reference: float

    @property
    def relative(self) -> float:
        """Delta over the sum of its terms' sizes, in [-1, 1]: about 0 for a law far from both sets, -1/2 for the KDE of
        train itself and 1/2 for that of the reference where these don't overlap."""
        pairs = np.log(2) + np.array([self.generated_train, self.generated_reference])
        return self.sign * math.exp(self.log_abs - float(np.logaddexp.reduce([*pairs, self.train, self.reference])))


def delta(
    generated: Density | Table, train: Density | Table, reference: Density | Table, *, scale: float | None = None
) -> Delta:
    """D2(generated, KDE of train) - D2(generated, KDE of reference), for a law (`gaussian`) or samples (K, d).

    `reference` (N, d) are fresh draws of the law that `train` (n, d) came from; each set is a `kde` of its own width
    with one `scale`, by default the reference's. The sign hangs on N too: N = n is what has a null, P(Delta > 0) = 1/2;
    any other N, keep while comparing n. Raises InputError for fewer than two points, different dimensions, NaN, a scale
    that is not positive, or training or reference sets that repeat a point: a KDE would have a peak there that is not
    the law's, so pass `distinct(points)[0]`."""
    if scale is None:
        scale = spread(reference.centres if isinstance(reference, Density) else table(reference, "reference", 2))
    q, t, r = (x if isinstance(x, Density) else kde(x, scale=scale) for x in (generated, train, reference))
    for name, density in (("train", t), ("reference", r)):
        if density.repeats:
            raise InputError(
                f"{name} repeats {density.repeats} of its {len(density.centres)} points, and a KDE would "
                "have a peak there that is not the law's; pass memorization.distinct(points)[0]"
            )
    with_train, with_reference = log_overlap(q, t), log_overlap(q, r)
    terms = [(-2, with_train), (1, t.log_rest), (2, with_reference), (-1, r.log_rest)]
    if t.log_peak != r.log_peak:  # equal for kernel density estimates of one scale
        terms += [(1, t.log_peak), (-1, r.log_peak)]
    return Delta(*_signed(terms), with_train, with_reference, t.log_square, r.log_square)


def probability(deltas: Iterable[Delta]) -> Estimate:
    """P(Delta > 0) over independent training sets, with its binomial standard error. InputError for none."""
    signs = [d.sign for d in deltas]
    whole(len(signs), "deltas", 1, 1 << 40, "independent training sets")
    return fraction(sum(s > 0 for s in signs), len(signs))


class Closer(NamedTuple):
    """The fraction of samples that have a training example as their nearest of train and held-out data together."""

    fraction: float
    null: float
    """n / (n + m), its mean for samples that know nothing of which of the n + m is a training example."""
    null_std: float
    weights: Float64[np.ndarray, " n_plus_m"]
    """The share of samples that each example is nearest to, training examples first."""
    train: int
    repeats: int
    """Examples that are copies of an earlier one, in train and held-out data together: they share a sample."""

    @property
    def excess(self) -> float:
        """(fraction - null) / (1 - null): 1 for copies, 0 on average for samples that know nothing of the split."""
        return (self.fraction - self.null) / (1 - self.null)

    @property
    def excess_std(self) -> float:
        """The standard deviation of `excess` under the null."""
        return self.null_std / (1 - self.null)


def closer(samples: Table, train: Table, held_out: Table) -> Closer:
    """Compare (K, d) samples with (n, d) training and (m, d) held-out examples of one law, each set whole.

    If the samples don't depend on which n of the n + m examples were trained on, every choice of n is as likely. So the
    null distribution is exact for any generator, good or bad, given the samples and the examples: mean n / (n + m) and,
    where example j is nearest to the share w_j of samples, variance

        n m / (n + m)^2 ((n + m) sum w_j^2 - 1) / (n + m - 1).

    (`metrics.closer_fraction` cuts sets to one size; this keeps what they know.) Raises InputError for fewer than two
    examples of each or different features."""
    samples, train = pair(samples, train, ("samples", "train"), (1, 2))
    samples, held_out = pair(samples, held_out, ("samples", "held_out"), (1, 2))
    pool = np.concatenate([train, held_out])
    n, total = len(train), len(pool)
    weights = np.zeros(total)
    for _, block in squared_blocks(samples, pool):
        near = block <= block.min(1, keepdims=True) * (1 + TIE)
        weights += (near / near.sum(1, keepdims=True)).sum(0)
    weights /= len(samples)
    null = n / total
    variance = null * (1 - null) * (total * np.sum(weights**2) - 1) / (total - 1)
    std = math.sqrt(max(variance, 0.0))
    return Closer(float(weights[:n].sum()), null, std, weights, n, distinct(pool)[1])


def relabelled(key: PRNGKey, found: Closer, draws: int = 1000) -> Float64[np.ndarray, " draws"]:
    """Draws of `found.fraction` under its null distribution: the same samples, the n training examples chosen anew."""
    whole(draws, "draws", 1, 1 << 30, "choices of the training examples")
    rng = generator(key)
    return np.array([rng.permutation(found.weights)[: found.train].sum() for _ in range(draws)])


class Copies(NamedTuple):
    """The fraction of samples that are copies by the ratio of distances, and that of held-out data."""

    fraction: Estimate
    null: Estimate
    repeats: int
    """Training examples left out as copies of an earlier one."""


def copies(samples: Table, train: Table, held_out: Table, *, ratio: float = 1 / 3) -> Copies:
    """A copy is nearer to its nearest training example than `ratio` times the distance to the second nearest.

    What fresh draws of the law would give is what `held_out` gives. A training example that is there twice counts once
    (`repeats` says how many): it would hide its copies. Raises InputError for fewer than two different examples,
    different features, or a ratio outside (0, 1)."""
    if not 0 < ratio < 1:
        raise InputError(f"ratio must be between 0 and 1, got {ratio}; 1/3 is usual.")
    samples, train = pair(samples, train, ("samples", "train"), (1, 2))
    samples, held_out = pair(samples, held_out, ("samples", "held_out"))
    kept, repeats = distinct(train)
    if len(kept) < 2:
        raise InputError("train is one example over and over; expected at least two different ones")

    def share(x):
        near = nearest(x, kept, k=2)[0]
        return fraction(int(np.sum(near[:, 0] < ratio * near[:, 1])), len(x))

    return Copies(share(samples), share(held_out), repeats)


class Agreement(NamedTuple):
    """How alike two models' samples from the same noise are."""

    distance: Estimate
    """The mean of |a_i - b_i|."""
    unpaired: float
    """The mean of |a_i - b_j| over i != j: what `distance` is for models that have only their law in common."""
    correlation: Estimate
    """tr Cov(a, b) / sqrt(tr Cov(a) tr Cov(b)): 1 where they agree, 0 where the noise says nothing in common."""


def agreement(a: Table, b: Table) -> Agreement:
    """Compare (K, d) samples of two models, row i of each from the same noise by the same deterministic sampler.

    Models trained on disjoint halves agree when they have learnt the law, and differ when each has learnt its half.
    Raises InputError for different shapes, fewer than two samples, or samples that are all the same."""
    a, b = pair(a, b, ("a", "b"), (2, 2))
    if a.shape != b.shape:
        raise InputError(
            f"a and b must be samples from the same noise, got {len(a)} and {len(b)}; draw as many of each"
        )
    n = len(a)
    between = sum(float(np.sqrt(block).sum()) for _, block in squared_blocks(a, b))
    paired = np.sqrt(np.sum((a - b) ** 2, 1))
    x, y = a - a.mean(0), b - b.mean(0)
    products, first, second = (np.einsum("nd,nd->n", *v) for v in ((x, y), (x, x), (y, y)))
    if not first.mean() > 0 < second.mean():
        raise InputError("all samples of a model are the same; expected samples that vary with the noise")
    size = math.sqrt(first.mean() * second.mean())
    rho = products.mean() / size
    # To first order in 1 / n: the influence of each sample on rho.
    influence = products / size - rho / 2 * (first / first.mean() + second / second.mean())
    correlation = Estimate(float(rho), float(influence.std(ddof=1) / math.sqrt(n)), n)
    return Agreement(mean(paired, "distances"), (between - float(paired.sum())) / (n * (n - 1)), correlation)


def summary(samples: Table, train: Table, held_out: Table) -> dict[str, float]:
    """`closer`, `copies` and `delta` of (K, d) samples as plain numbers for a report, repeated examples left out.

    `delta_sign` is of as many examples of both sets, the first ones, so that it is 1 as often as -1 where nothing is
    memorised. `repeats` counts what was left out."""
    train, repeats = distinct(train)
    held_out, others = distinct(held_out)
    near, copied = closer(samples, train, held_out), copies(samples, train, held_out)
    same = min(len(train), len(held_out))
    moved = delta(samples, train[:same], held_out[:same])
    return {
        "closer": near.fraction,
        "null": near.null,
        "excess": near.excess,
        "excess_std": near.null_std / (1 - near.null),
        "copies": copied.fraction.value,
        "copies_null": copied.null.value,
        "delta_sign": moved.sign,
        "delta_relative": moved.relative,
        "repeats": repeats + others,
    }


def distinct(points: Table) -> tuple[Float64[np.ndarray, "n d"], int]:
    """(the points without copies of an earlier one, how many those are)."""
    x = table(points, "points")
    _, first = np.unique(x + 0.0, axis=0, return_index=True)  # + 0.0: -0 is 0
    return x[np.sort(first)], len(x) - len(first)


def spread(points: Table) -> float:
    """The root of the features' mean variance: the scale s of a kernel width."""
    x = table(points, "points", 2)
    return math.sqrt(float(x.var(0, ddof=1).mean()))


def _positive(scale):
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(
            f"the kernels have width {scale} N^(-1/d), expected a positive scale; points that are all the same have "
            "none, so give `scale`"
        )
    return scale


def _log_rest(p):
    """log of the part of int p^2 that is of different Gaussians."""
    n, d = p.centres.shape
    x, _, log_det = _whitened(p, p)
    total = _log_sum(_above_diagonal(x))
    return math.log(2) + total - 2 * math.log(n) - 0.5 * (d * math.log(2 * math.pi) + log_det)


def _above_diagonal(x, rows=256):
    """Squared distances of rows i < j, inf elsewhere: half the work, in blocks that a cache holds."""
    for start in range(0, len(x) - 1, rows):
        for part, block in squared_blocks(x[start : start + rows], x[start:]):
            block[np.tri(*block.shape, k=part.start, dtype=bool)] = math.inf
            yield block


def _log_sum(blocks):
    """log sum e^(-s / 2) over the blocks of s, which are overwritten."""
    top, total = -math.inf, 0.0
    for block in blocks:
        block *= -0.5
        peak = float(block.max())
        if peak > top:
            top, total = peak, total * math.exp(top - peak)
        if top > -math.inf:
            block -= top
            total += float(np.exp(block, out=block).sum())
    return top + math.log(total) if total else -math.inf


def _whitened(p, q):
    """Both centres in units of the sum of the covariances, and log det of that sum."""
    d = p.centres.shape[1]
    if np.ndim(p.cov) == np.ndim(q.cov) == 0:
        variance = p.cov + q.cov
        if not variance > 0:
            raise InputError("the overlap of two densities without width is not defined; give one a positive width")
        return p.centres / math.sqrt(variance), q.centres / math.sqrt(variance), d * math.log(variance)
    cov = sum(c if np.ndim(c) else c * np.eye(d) for c in (p.cov, q.cov))
    values, vectors = np.linalg.eigh(cov)
    if not values[0] > ROUNDING * values[-1]:
        raise InputError("the overlap of two singular Gaussians is not defined; give one a positive width")
    root = vectors / np.sqrt(values)
    return p.centres @ root, q.centres @ root, float(np.log(values).sum())


def _signed(terms):
    """(sign, log |sum|) of sum of c e^l over (c, l) in `terms`; 0 and -inf where it is the terms' rounding."""
    top = max(value for _, value in terms)
    if not math.isfinite(top):
        return 0, -math.inf
    parts = [c * math.exp(value - top) for c, value in terms]
    total = math.fsum(parts)
    if abs(total) <= ROUNDING * (1 + abs(top)) * sum(map(abs, parts)):
        return 0, -math.inf
    return (1 if total > 0 else -1), top + math.log(abs(total))
