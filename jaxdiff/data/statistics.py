"""What a noise schedule needs to know about the data: its spread, its spectrum, and at which noise there is anything
to learn.

Let l_i be the eigenvalues of the data's covariance, m their mean, d their number. Of all denoisers that are linear in
x, the best has the mean square error

    MMSE(sigma) = sum_i l_i sigma^2 / (l_i + sigma^2),

exact for Gaussian data and an upper bound for any other with this covariance. Knowing the variance m alone, as EDM's
preconditioning does, leaves d m sigma^2 / (m + sigma^2). The fraction that the spectrum saves,

    gain(sigma) = 1 - MMSE(sigma) (m + sigma^2) / (d m sigma^2),

goes to 0 at little noise (the noise cannot be known) and at much noise (the answer is the mean). We read it as a
density over log sigma; its mean and standard deviation are the suggested P_mean and P_std. They need no quadrature:

    gain = sum_i (m - l_i)^2 / (d m) * t / ((l_i + t) (m + t)),    t = sigma^2,

and each term is, over log t, a uniform law from log l_i to log m plus a logistic one, of mass (m - l_i) log(m / l_i),
mean log(l_i m) / 2 and variance pi^2 / 3 + log(m / l_i)^2 / 12. For two eigenvalues a and b, half each, that makes

    P_mean = log(a b) / 4,    P_std^2 = (pi^2 + w^2) / 12,    w = log(a / b) / 2.

Data scaled by c move P_mean by log c and leave P_std, which is never below pi / sqrt(12) = 0.907, the value of one
variance.

At sigma_max the sampler begins from N(0, sigma^2 I): `prior_gap` says how many nats that is from the noised data, which
no later step can make larger (data processing inequality).

Arrays of any kind may stand for `Images`: floating point, (N, ..., C), in the units that the model will see."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxdiff.data.philox import permutation
from jaxdiff.data.pixels import Images, to_model
from jaxdiff.errors import InputError

CHUNK = 2**22  # values held in float64 at once
WIDEST = 4096  # values of one example up to which its whole covariance is kept
EXAMPLES = 2**15  # examples that the spectrum of a larger set is read from
FAR = 4096  # examples among which the largest distance is sought
NATS = 0.01  # of error that the sampler's start may add


@dataclass(frozen=True)
class Spread:
    """Root mean square spreads in model units: `overall`, the standard deviation of all values (EDM's sigma_data);
    `per_channel` (C,), of each channel about its own `channel_means` (C,); `about_mean_image`, of each value about
    its own mean over examples, which is what remains for a model that knows the mean image."""

    overall: float
    per_channel: tuple[float, ...]
    channel_means: tuple[float, ...]
    about_mean_image: float


@dataclass(frozen=True)
class Advice:
    """A suggested number, and why in one sentence."""

    value: float
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """EDM's five numbers for one data set: noise levels, and log sigma ~ N(P_mean, P_std^2) in training; prints as a
    table."""

    sigma_data: Advice
    sigma_min: Advice
    sigma_max: Advice
    P_mean: Advice
    P_std: Advice

    def __str__(self) -> str:
        rows = ((row.name, getattr(self, row.name)) for row in fields(self))
        return "\n".join(f"{name:<10} {advice.value:>8.4f}   {advice.reason}" for name, advice in rows)


def sigma_data(images: Images | np.ndarray) -> Spread:
    """The spread of a data set about its mean, in model units, read twice in chunks and summed in float64.

    InputError if an array is not floating point (N, ..., C), or is not finite."""
    mean, n, shape = _mean(images)
    inside = np.zeros_like(mean)
    for rows in _chunks(images):
        inside += np.square(rows - mean).sum(0)
    inside = (inside / n).reshape(-1, shape[-1])  # variance of each value about the mean image
    image = mean.reshape(-1, shape[-1])
    means = image.mean(0)
    channels = inside.mean(0) + np.square(image - means).mean(0)
    overall = channels.mean() + np.square(means - means.mean()).mean()
    return Spread(
        overall=math.sqrt(overall),
        per_channel=tuple(np.sqrt(channels).tolist()),
        channel_means=tuple(means.tolist()),
        about_mean_image=math.sqrt(inside.mean()),
    )


def spectrum(images: Images | np.ndarray) -> Float64[np.ndarray, " k"]:
    """The eigenvalues of the data's covariance (divided by N), largest first, k = min(N, d) of them, in model units
    squared.

    Sets of more than 32768 examples are read at random ones; above d = 4096 values an example, at 4096 of them, and the
    directions that so few cannot show are left out. InputError as for `sigma_data`."""
    n, d = len(images), math.prod(images.shape if isinstance(images, Images) else images.shape[1:])
    limit = EXAMPLES if d <= WIDEST else WIDEST
    if n > limit:
        rows = np.sort(permutation(n, seed=0)[:limit])
        images = images.take(rows) if isinstance(images, Images) else images[rows]
        n = limit
    mean, _, _ = _mean(images)
    if n < d:
        centred = np.concatenate([rows - mean for rows in _chunks(images)])
        matrix = centred @ centred.T
    else:
        matrix = np.zeros((d, d))
        for rows in _chunks(images):
            centred = rows - mean
            matrix += centred.T @ centred
    return np.maximum(np.linalg.eigvalsh(matrix / n)[::-1], 0)


def gaussian_mmse(eigenvalues: Any, sigma: Any) -> Float64[np.ndarray, "..."]:
    """The mean square error of the best linear denoiser, summed over directions: sum l sigma^2 / (l + sigma^2) for each
    positive sigma, of any shape; exact for Gaussian data with this covariance."""
    values, square = np.asarray(eigenvalues, np.float64), np.square(np.asarray(sigma, np.float64))[..., None]
    return np.asarray((values * square / (values + square)).sum(-1))


def prior_gap(mean: Any, eigenvalues: Any, sigma: float) -> float:
    """KL(N(mean, C + sigma^2 I) || N(0, sigma^2 I)) in nats, for a covariance C with these eigenvalues: how wrong it
    is to begin from pure noise, (|mean|^2 / sigma^2 + sum [l / sigma^2 - log(1 + l / sigma^2)]) / 2."""
    ratio = np.asarray(eigenvalues, np.float64) / sigma**2
    shift = np.square(np.asarray(mean, np.float64)).sum() / sigma**2
    return float((shift + (ratio - np.log1p(ratio)).sum()) / 2)


def diameter(images: Images | np.ndarray) -> float:
    """The largest Euclidean distance between two examples, in model units; above 4096 examples, between two of the 4096
    that lie farthest from the mean. InputError as for `sigma_data`."""
    mean, n, _ = _mean(images)
    radius = np.concatenate([np.square(rows - mean).sum(1) for rows in _chunks(images)])
    keep = np.sort(np.argsort(-radius, kind="stable")[:FAR]) if n > FAR else np.arange(n)
    far = np.concatenate([_rows(images, keep[i : i + 512]) - mean for i in range(0, len(keep), 512)])
    square, best = np.square(far).sum(1), 0.0
    for i in range(0, len(far), 512):
        block = square[i : i + 512, None] + square - 2 * far[i : i + 512] @ far.T
        best = max(best, float(block.max()))
    return math.sqrt(best)


def suggest(images: Images | np.ndarray) -> Suggestions:
    """EDM's sigma_data, sigma_min, sigma_max, P_mean and P_std for this data set, each with its reason.

    sigma_min: a quarter of the step between grey levels (for arrays: where the error left is 1 % of the spread).
    sigma_max: the largest distance between examples (Song & Ermon 2020, technique 1), or more until `prior_gap` is
    0.01 nats. P_mean, P_std: the mean and spread of the gain over log sigma (see the module). InputError as for
    `sigma_data`, and if all examples are equal."""
    spread, eigenvalues, (mean, n, _) = sigma_data(images), spectrum(images), _mean(images)
    step = 2 / (images.levels - 1) if isinstance(images, Images) else None
    floor = max(1e-6 * eigenvalues[0], step**2 / 12 if step else 0)
    if spread.about_mean_image <= 1e-6 * math.sqrt(np.square(mean).mean()):
        raise InputError(f"All {n} examples are equal; expected data that vary; check how they were read.")
    varying = eigenvalues[eigenvalues > floor] if eigenvalues[0] > floor else eigenvalues[:1]
    centre, width = _lognormal(varying)
    apart = diameter(images)
    start = _bisect(lambda sigma: prior_gap(mean, eigenvalues, sigma) - NATS, 1e-3 * apart, 1e4 * apart)
    return Suggestions(
        sigma_data=Advice(
            spread.overall,
            f"standard deviation of all values; {spread.about_mean_image:.4f} about the mean image",
        ),
        sigma_min=_least(step, varying),
        sigma_max=Advice(
            max(apart, start),
            f"the largest distance between two examples is {apart:.4g}; pure noise is within {NATS} nats of the noised "
            f"data from {start:.4g}; the larger of the two",
        ),
        P_mean=Advice(
            centre,
            f"learning gains most about sigma = {math.exp(centre):.4g}, from {len(varying)} of {len(mean)} directions "
            f"that vary in {n} examples",
        ),
        P_std=Advice(
            width,
            f"spread of that gain over log sigma: most of it lies in [{math.exp(centre - 2 * width):.2g}, "
            f"{math.exp(centre + 2 * width):.2g}]",
        ),
    )


def _least(step: float | None, varying: np.ndarray) -> Advice:
    if step is not None:
        return Advice(
            step / 4,
            f"a quarter of the step {step:.4g} between grey levels: 95 % of pixels then round to their own level",
        )
    goal = 1e-4 * varying.sum()  # the error is 1 % of the spread
    value = _bisect(
        lambda sigma: goal - float(gaussian_mmse(varying, sigma)), 1e-8 * varying[0] ** 0.5, varying[0] ** 0.5
    )
    return Advice(value, "the error that is left after one denoising from here is 1 % of the data's spread")


def _lognormal(eigenvalues: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over log sigma of the gain: see the module."""
    m = eigenvalues.mean()
    mass = (m - eigenvalues) * np.log(m / eigenvalues)
    if not mass.sum() > 0:  # one variance: the limit of the law of two
        return 0.5 * math.log(m), math.pi / math.sqrt(12)
    mass = mass / mass.sum()
    centres = np.log(eigenvalues * m) / 4
    variances = (math.pi**2 + np.log(m / eigenvalues) ** 2 / 4) / 12
    centre = mass @ centres
    return float(centre), math.sqrt(mass @ (variances + np.square(centres - centre)))


def _bisect(falling: Any, low: float, high: float) -> float:
    """Where a decreasing function of sigma crosses 0, in log sigma; an end of the range if it does not."""
    low, high = math.log(low), math.log(high)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(math.exp(middle)) > 0 else (low, middle)
    return math.exp(high)


def _shape(images: Images | np.ndarray) -> tuple[int, ...]:
    if isinstance(images, Images):
        return images.shape
    if not np.issubdtype(images.dtype, np.floating) or images.ndim < 2 or 0 in images.shape:
        raise InputError(
            f"The data are {images.dtype} of shape {images.shape}; expected floating point (N, ..., C), none of them "
            "0; give jaxdiff.data.Images for grey levels, or the array in the units that the model will see."
        )
    return images.shape[1:]


def _rows(images: Images | np.ndarray, rows: Any) -> np.ndarray:
    """These examples as float64 (n, d) in model units."""
    part = to_model(images.pixels[rows], images.levels) if isinstance(images, Images) else images[rows]
    return part.reshape(len(part), -1).astype(np.float64)


def _chunks(images: Images | np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, CHUNK // math.prod(_shape(images)))
    for i in range(0, len(images), size):
        yield _rows(images, slice(i, i + size))


def _mean(images: Images | np.ndarray) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """The mean example (d,), the number of examples, and an example's shape."""
    shape, n = _shape(images), len(images)
    mean = np.zeros(math.prod(shape))
    with np.errstate(invalid="ignore"):  # infinities are reported below
        for rows in _chunks(images):
            mean += rows.sum(0)
    if not np.isfinite(mean).all():
        raise InputError(
            "The data hold NaN or infinite values; expected finite numbers; remove or repair those examples first."
        )
    return mean / n, n, shape
