"""Rate matrices for `processes.ctmc`: (vocab, vocab) NumPy arrays, rates off the diagonal and rows that sum to 0."""

import numpy as np

from jaxdiff.errors import InputError


def nearest(vocab: int) -> np.ndarray:
    """The rates of a walk on levels 0 .. vocab - 1 to the neighbours, 1 each."""
    return _generator(np.eye(vocab, k=1) + np.eye(vocab, k=-1))


def gaussian(vocab: int, width: float) -> np.ndarray:
    """Rates between levels i and j that fall as exp(-(i - j)^2 / (2 width^2)), scaled to be left at rate 1 on average
    (D3PM's discretised Gaussian as a chain; Campbell et al. 2022)."""
    if not width > 0:
        raise InputError(f"gaussian rates got width={width}, expected a number of levels above 0")
    levels = np.arange(vocab)
    off = np.exp(-((levels[:, None] - levels) ** 2) / (2 * width**2))
    np.fill_diagonal(off, 0)
    return _generator(off * vocab / off.sum())


def _generator(off):
    return off - np.diag(off.sum(1))
