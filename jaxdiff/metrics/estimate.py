"""A mean and how far it may be from the truth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.inputs import Table, numbers

Values = Table | Sequence[float]
"""(n,) numbers: an array or a list."""


class Estimate(NamedTuple):
    """A value, its standard error over independent draws (NaN for fewer than two), and how many they are."""

    value: float
    stderr: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.stderr:.2g}"


def mean(values: Values, name: str = "values") -> Estimate:
    """The mean of (n,) independent values, std / sqrt(n); NaN for none. InputError where one is not finite."""
    x = numbers(values, name).ravel()
    n = len(x)
    if n == 0:
        return Estimate(float("nan"), float("nan"), 0)
    stderr = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Estimate(float(x.mean()), stderr, n)


def fraction(count: int, n: int) -> Estimate:
    """The share count / n of independent successes, sqrt(p (1 - p) / n)."""
    if not 0 <= count <= n:
        raise InputError(f"got {count} of {n}; expected a count between 0 and {n}")
    p = count / n if n else float("nan")
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)) if n else float("nan"), n)


def ratio(above: Values, below: Values, name: str = "values") -> Estimate:
    """sum(above) / sum(below) over (n,) independent pairs, such as bits over characters; to first order in 1 / n

    stderr^2 = sum (a_i - r b_i)^2 / (n (n - 1)) / mean(b)^2.

    InputError for other shapes, or a sum below that is not positive."""
    a, b = numbers(above, name), numbers(below, f"the counts of {name}")
    a, b = np.broadcast_arrays(a, b)
    if a.ndim != 1 or len(a) < 1 or b.min() < 0 or not b.sum() > 0:
        raise InputError(f"{name} must be (n,) numbers over positive counts, got shape {a.shape}; give one for each")
    n, value = len(a), float(a.sum() / b.sum())
    if n < 2:
        return Estimate(value, float("nan"), n)
    return Estimate(value, float(np.sqrt(np.square(a - value * b).sum() / (n * (n - 1))) / b.mean()), n)
