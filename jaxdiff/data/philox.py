"""Randomness of the data side: NumPy's counter-based Philox, keyed by (seed, epoch) and counted by purpose.

Its raw 64-bit words are frozen by NumPy's compatibility policy (`Generator.permutation` is not), so a seed names the
same order of examples in every version, on every machine and in every process."""

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from jaxdiff.errors import InputError

SHUFFLE, FLIP, SPLIT = 0, 1, 2  # purposes: each has 2^192 counters of its own


def words(n: int, *, seed: int, epoch: int = 0, purpose: int = SHUFFLE) -> UInt64[np.ndarray, " n"]:
    """`n` independent uniform 64-bit words for this (seed, epoch, purpose)."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, purpose], np.uint64)).random_raw(n)


@lru_cache(maxsize=4)
def permutation(n: int, *, seed: int, epoch: int = 0, purpose: int = SHUFFLE) -> Int64[np.ndarray, " n"]:
    """The numbers 0..n-1 in random order: the sorting order of random words (read-only; the last four are kept)."""
    order = np.argsort(words(n, seed=seed, epoch=epoch, purpose=purpose), kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


@lru_cache(maxsize=4)
def coins(n: int, *, seed: int, epoch: int = 0, purpose: int = FLIP) -> Bool[np.ndarray, " n"]:
    """`n` fair coins, the top bits of random words (read-only; the last four are kept)."""
    heads = words(n, seed=seed, epoch=epoch, purpose=purpose) >> np.uint64(63) == 1
    heads.flags.writeable = False
    return heads


def check_seed(seed: int) -> None:
    """Raise InputError unless `seed` is a whole number in [0, 2^64)."""
    if isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise InputError(f"The data seed is {seed!r}; expected a whole number from 0 to 2^64 - 1; give one such as 0.")
