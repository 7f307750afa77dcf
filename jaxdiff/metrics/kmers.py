"""How far the k-mers of generated sequences are from those of real ones: the Jensen-Shannon divergence

    JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2,   m = (p + q) / 2,

of the frequencies of all k-letter words, and its square root, a distance (Endres & Schindelin 2003). SciPy's
`jensenshannon` and some papers print the distance: a row here holds both, and their base.

Two finite draws of one law are never at 0. For n and m sequences, with f the frequencies in one sequence and p
their mean, the expansion JS = sum_w (p_w - q_w)^2 / (8 p_w) + ... in nats gives

    E JS = (1/n + 1/m) sum_w Var(f_w) / (8 p_w) + o(1/n),

with the variance between sequences, because overlapping words of one sequence are no independent draws; if they were,
the sum would be (V^k - 1) / (8 words)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jaxdiff.errors import InputError
from jaxdiff.metrics.estimate import Values
from jaxdiff.metrics.inputs import Table, generator, numbers, whole
from jaxdiff.types import PRNGKey

CHUNK = 1 << 24  # counts at a time


class JensenShannon(NamedTuple):
    """The divergence and its square root, in units of log `base`: in [0, log_base 2]."""

    divergence: float
    distance: float
    base: float


class Floor(NamedTuple):
    """Two random sets of one law: the mean and standard deviation of their divergence and their distance over `draws`
    splits, and the divergence that sampling noise alone makes to first order."""

    divergence: float
    divergence_std: float
    distance: float
    distance_std: float
    expected_divergence: float
    base: float
    counts: tuple[int, int]


def kmer_counts(sequences: Table, k: int, vocab: int = 4) -> Int64[np.ndarray, "n words"]:
    """How often each of the vocab^k words stands in each of (N, L) sequences of tokens, overlaps included; the word's
    number reads its letters as digits, the first the highest.

    InputError for tokens outside the vocabulary, k > L, or more than 2^22 words."""
    tokens = np.asarray(sequences)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or 0 in tokens.shape:
        raise InputError(f"sequences must be (N, L) whole numbers, got {tokens.dtype} of shape {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= vocab:
        raise InputError(
            f"sequences hold tokens from {tokens.min()} to {tokens.max()}; expected 0..{vocab - 1}: let the sampler "
            "remove all masks first"
        )
    whole(k, "k", 1, min(tokens.shape[1], int(22 / math.log2(max(vocab, 2)))), "a word fits in a sequence and a table")
    n, words = len(tokens), vocab**k
    ids = np.zeros((n, tokens.shape[1] - k + 1), np.int64)
    for i in range(k):
        ids = ids * vocab + tokens[:, i : tokens.shape[1] - k + 1 + i]
    out = np.empty((n, words), np.int64)
    step = max(1, CHUNK // words)
    for i in range(0, n, step):
        part = ids[i : i + step]
        shifted = part + words * np.arange(len(part))[:, None]
        out[i : i + step] = np.bincount(shifted.ravel(), minlength=words * len(part)).reshape(-1, words)
    return out


def kmer_names(k: int, letters: str = "ACGT") -> list[str]:
    """The words in the order of `kmer_counts`."""
    return [
        "".join(letters[i // len(letters) ** (k - 1 - j) % len(letters)] for j in range(k))
        for i in range(len(letters) ** k)
    ]


def jensen_shannon(p: Values, q: Values, *, base: float = math.e) -> JensenShannon:
    """The divergence and distance of two (W,) tables of counts or frequencies, each normalised first; base e is nats,
    base 2 bits. InputError for other shapes, negative entries, an empty table, or a base that is not above 1."""
    p, q = (_law(x, name) for x, name in ((p, "p"), (q, "q")))
    if p.shape != q.shape:
        raise InputError(f"p and q must have the same words, got {len(p)} and {len(q)}; count both with one k")
    if not 1 < base < math.inf:
        raise InputError(f"the base is {base}; expected one above 1, such as 2 or math.e")
    middle = (p + q) / 2
    divergence = max((_relative(p, middle) + _relative(q, middle)) / 2 / math.log(base), 0.0)
    return JensenShannon(divergence, math.sqrt(divergence), float(base))


def kmer_jensen_shannon(
    samples: Table, reference: Table, k: int, *, vocab: int = 4, base: float = math.e
) -> JensenShannon:
    """`jensen_shannon` of the pooled k-mers of sequences (N, L) and (M, L'); InputError as `kmer_counts`."""
    p, q = (kmer_counts(x, k, vocab).sum(0) for x in (samples, reference))
    return jensen_shannon(p, q, base=base)


def expected_divergence(sequences: Table, k: int, n: int, m: int, *, vocab: int = 4, base: float = math.e) -> float:
    """The mean Jensen-Shannon divergence of the k-mers of `n` and of `m` sequences drawn from one law, to first order
    in 1/n and 1/m (see the module), with the variances and means of these `sequences`, two or more.

    Words seen nowhere count nothing, so it is low where k-mers are rare: look at it beside `kmer_floor`."""
    return _expected(kmer_counts(sequences, k, vocab), n, m, base)


def kmer_floor(
    heldout: Table,
    k: int,
    n: int,
    m: int | None = None,
    *,
    key: PRNGKey,
    draws: int = 16,
    vocab: int = 4,
    base: float = math.e,
) -> Floor:
    """What real sequences get: `draws` random splits of the held-out ones into disjoint sets of `n` and of `m` (default
    `n`), to stand beside `n` samples against `m` real sequences; n = m = half of them uses all.

    InputError as `kmer_counts`, for fewer than 2 draws, or n + m above the number held out."""
    whole(draws, "draws", 2, 1 << 20, "a standard deviation needs two")
    counts = kmer_counts(heldout, k, vocab)
    m = n if m is None else m
    if n < 1 or m < 1 or n + m > len(counts):
        raise InputError(
            f"a floor of {n} against {m} sequences needs {n + m} held out, got {len(counts)}; give fewer, such as "
            f"{len(counts) // 2} and {len(counts) // 2}"
        )
    rng, found = generator(key), []
    for _ in range(draws):
        order = rng.permutation(len(counts))
        found.append(jensen_shannon(counts[order[:n]].sum(0), counts[order[n : n + m]].sum(0), base=base)[:2])
    (divergence, distance), (spread, wide) = np.mean(found, 0), np.std(found, 0, ddof=1)
    expected = _expected(counts, n, m, base)
    return Floor(float(divergence), float(spread), float(distance), float(wide), expected, float(base), (n, m))


def _expected(counts: Int64[np.ndarray, "s words"], n: int, m: int, base: float) -> float:
    whole(len(counts), "the number of sequences", 2, 1 << 40, "a variance needs two")
    whole(min(n, m), "n and m", 1, 1 << 40, "sequences in each set")
    shares = counts / counts.sum(1, keepdims=True)
    p, variance = shares.mean(0), shares.var(0, ddof=1)
    seen = p > 0
    return float((1 / n + 1 / m) * (variance[seen] / p[seen]).sum() / 8 / math.log(base))


def _relative(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats, where q > 0 wherever p > 0."""
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def _law(x: Values, name: str) -> Float64[np.ndarray, " words"]:
    x = numbers(x, name)
    if x.ndim != 1 or (x < 0).any() or not x.sum() > 0:
        raise InputError(f"{name} must be (words,) counts, 0 or more and not all 0, got shape {x.shape}")
    return x / x.sum()
