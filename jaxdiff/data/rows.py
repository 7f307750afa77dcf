"""What every data set does with its rows: check a class for each, and divide them into two sets that share classes in
the same proportions."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from jaxdiff.data.philox import SPLIT, check_seed, permutation
from jaxdiff.errors import InputError


def checked_labels(name: str, labels: Any, n: int, num_classes: int, what: str) -> Int32[np.ndarray, " n"]:
    """`labels` as int32 (n,) in [0, num_classes); InputError, in terms of `what` the rows are, if they are not."""
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{name}: labels have dtype {labels.dtype}; expected whole numbers 0..{num_classes - 1}; convert them with "
            "labels.astype(np.int32)."
        )
    if labels.shape != (n,):
        raise InputError(
            f"{name}: labels have shape {labels.shape}; expected ({n},), one for each {what}; for one-hot rows give "
            "labels.argmax(1)."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"{name}: labels run from {low} to {high}; expected 0..{num_classes - 1} for num_classes={num_classes}; "
            "renumber them from 0 or give the true number of classes."
        )
    return labels.astype(np.int32)


def check_classes(name: str, labels: Any, num_classes: int, class_names: tuple[str, ...], what: str) -> None:
    """Raise InputError for classes without labels, or names of other classes than there are."""
    if labels is None and num_classes:
        raise InputError(
            f"{name}: got {num_classes} classes but no labels; expected num_classes=0 for unlabelled {what}s; give "
            f"labels, one whole number for each {what}."
        )
    if class_names and len(class_names) != num_classes:
        raise InputError(
            f"{name}: got {len(class_names)} class names; expected {num_classes}, one for each class, or none at all; "
            "make the two agree."
        )


def held_out_rows(
    name: str, labels: np.ndarray | None, n: int, held_out: float, seed: int, what: str
) -> Bool[np.ndarray, " n"]:
    """Which of `n` rows are held out: a fraction in (0, 1) (a float) or a number in [1, n) (an int) of them, the same
    for the same seed; every class gives its share, rounded so that the total is exact. InputError if either set would
    be empty."""
    check_seed(seed)
    whole = float(held_out).is_integer() and not isinstance(held_out, (bool, float, np.floating))
    count = int(held_out) if whole else round(float(held_out) * n) if 0 < held_out < 1 else 0
    if not 1 <= count < n:
        raise InputError(
            f"{name}: cannot hold out {held_out!r} of {n} {what}s; expected a fraction in (0, 1) or a whole number "
            f"from 1 to {n - 1} that leaves both sets one; give one such as 0.1."
        )
    classes = np.zeros(n, np.int64) if labels is None else labels.astype(np.int64)
    sizes = np.bincount(classes)
    quota, rest = np.divmod(count * sizes, n)
    quota[np.argsort(-rest, kind="stable")[: count - quota.sum()]] += 1  # largest remainders make the total exact
    order = permutation(n, seed=seed, purpose=SPLIT)
    by_class = order[np.argsort(classes[order], kind="stable")]  # random within each class
    rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = np.zeros(n, bool)
    out[by_class] = rank < np.repeat(quota, sizes)
    return out


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
