"""What generated text is worth without reading it: how even its letters are, how often it repeats itself, and, for a
model of it, perplexity; every mean with its standard error over sequences (`likelihood.bits_per_token` has the bits).

Low entropy and low perplexity together are the mark of text that repeats: print them side by side."""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np

from jaxdiff.errors import InputError
from jaxdiff.metrics.estimate import Estimate, Values, mean, ratio
from jaxdiff.metrics.inputs import Table, whole


def perplexity(nats: Values, tokens: Values) -> Estimate:
    """exp(sum(nats) / sum(tokens)) of (N,) negative log-likelihoods in nats, each of so many tokens; its standard error
    is, to first order, the perplexity times that of the exponent. InputError as `estimate.ratio`."""
    found = ratio(nats, tokens, "negative log-likelihoods")
    value = math.exp(found.value)
    return Estimate(value, value * found.stderr, found.n)


def unigram_entropy(sequences: Table, vocab: int, *, base: float = 2.0) -> Estimate:
    """The entropy H = - sum_v p_v log p_v of single tokens pooled over (N, L) sequences, in bits unless `base` says.

    Too low by about (tokens seen - 1) / (2 N L) nats, as every plug-in entropy. Its standard error is that of the mean
    over sequences of - log p, to first order. InputError for tokens outside the vocabulary."""
    tokens = _tokens(sequences, vocab)
    counts = np.bincount(tokens.ravel(), minlength=vocab)
    with np.errstate(divide="ignore"):
        surprise = -np.log(counts / counts.sum()) / math.log(base)
    return mean(surprise[tokens].mean(1), "surprise")


def repetition(sequences: Table | Sequence[np.ndarray], n: int) -> Estimate:
    """The mean over sequences of 1 - (different n-grams) / (n-grams): 0 where none comes twice.

    Sequences are (N, L) tokens, or a list of rows of any lengths of at least n. InputError for a shorter one."""
    return mean(_repetitions(sequences, n), f"rep-{n}")


def repetition_diversity(sequences: Table | Sequence[np.ndarray], orders: Sequence[int] = (2, 3, 4)) -> Estimate:
    """The mean over sequences of prod_n (1 - rep-n), with n = 2, 3, 4 unless `orders` says (Su et al. 2022): 1 where no
    n-gram comes twice. It falls with length, and letters repeat
    where words do not: compare with real text of equal length. InputError as `repetition`."""
    if not orders:
        raise InputError("got no orders; expected lengths of n-grams such as (2, 3, 4)")
    return mean(reduce(np.multiply, [1 - _repetitions(sequences, n) for n in orders]), "diversity")


def _repetitions(sequences, n: int) -> np.ndarray:
    whole(n, "n", 1, 1 << 20, "the length of an n-gram")
    rows = [np.asarray(row) for row in sequences]
    if not rows:
        raise InputError("there are no sequences; expected one or more")
    out = np.empty(len(rows))
    for i, row in enumerate(rows):
        if row.ndim != 1 or len(row) < n:
            raise InputError(f"sequence {i} has shape {row.shape}; expected a row of {n} tokens or more")
        grams = np.lib.stride_tricks.sliding_window_view(row, n)
        out[i] = 1 - len(np.unique(grams, axis=0)) / len(grams)
    return out


def _tokens(sequences, vocab: int) -> np.ndarray:
    tokens = np.asarray(sequences)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or 0 in tokens.shape:
        raise InputError(f"sequences must be (N, L) whole numbers, got {tokens.dtype} of shape {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= vocab:
        raise InputError(f"sequences hold tokens from {tokens.min()} to {tokens.max()}; expected 0..{vocab - 1}")
    return tokens
