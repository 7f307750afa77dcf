"""k-mers are counted as by hand, the divergence is SciPy's, and its floor is what sampling noise must make."""

import math

import jax
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from jaxdiff.errors import InputError
from jaxdiff.metrics import kmers

KEY = jax.random.key(0)


def draw(rng, n, length, vocab=4, stay=0.0):
    """Letters of uneven frequency that repeat the last with probability `stay`: words of one sequence depend."""
    fresh = rng.choice(vocab, (n, length), p=np.arange(1, vocab + 1) / (vocab * (vocab + 1) / 2))
    keep = rng.random((n, length)) < stay
    for i in range(1, length):
        fresh[:, i] = np.where(keep[:, i], fresh[:, i - 1], fresh[:, i])
    return fresh


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_words_are_counted_as_by_hand(k, monkeypatch):
    monkeypatch.setattr(kmers, "CHUNK", 1000)  # several blocks
    x = draw(np.random.default_rng(0), 9, 40)
    counts, names = kmers.kmer_counts(x, k), kmers.kmer_names(k)
    assert names == sorted(names)
    assert counts.shape == (9, 4**k)
    for row, letters in zip(counts, x, strict=True):
        text = "".join("ACGT"[i] for i in letters)
        assert row.tolist() == [sum(text[i : i + k] == name for i in range(41 - k)) for name in names]


def test_other_alphabets():
    assert kmers.kmer_counts(np.array([[0, 2, 1, 0]]), 2, vocab=3).tolist() == [[0, 0, 1, 1, 0, 0, 0, 1, 0]]
    assert kmers.kmer_names(2, "xy") == ["xx", "xy", "yx", "yy"]


@pytest.mark.parametrize("base", [math.e, 2.0, 10.0])
def test_the_distance_is_scipys(base):
    rng = np.random.default_rng(1)
    for _ in range(5):
        p, q = rng.dirichlet(np.full(64, 0.3), 2)
        p[:9] = 0
        found = kmers.jensen_shannon(p * 7, q * 1e4, base=base)
        assert found.distance == pytest.approx(jensenshannon(p, q, base=base), rel=1e-12)
        assert found.divergence == pytest.approx(found.distance**2)
        assert found.base == base


def test_the_ends_of_the_divergence():
    assert kmers.jensen_shannon([3, 5], [6, 10])[:2] == (0.0, 0.0)
    assert kmers.jensen_shannon([1, 0, 0], [0, 2, 1]).divergence == pytest.approx(math.log(2), rel=1e-14)
    assert kmers.jensen_shannon([1, 0, 0], [0, 2, 1], base=2).distance == pytest.approx(1, rel=1e-14)
    assert kmers.kmer_jensen_shannon(np.zeros((2, 9), int), np.ones((5, 7), int), 3).divergence == pytest.approx(
        math.log(2)
    )


def test_independent_letters_have_the_closed_form_floor():
    # single letters, all drawn alone: E JS = (V - 1) / 8 (1 / N + 1 / M) with N and M letters
    x = draw(np.random.default_rng(2), 20000, 25)
    closed = 3 / 8 * (1 / (300 * 25) + 1 / (500 * 25))
    assert kmers.expected_divergence(x, 1, 300, 500) == pytest.approx(closed, rel=5 * (2 / 3 / 20000) ** 0.5)
    assert kmers.expected_divergence(x, 1, 300, 500, base=2) == pytest.approx(closed / math.log(2), rel=0.03)


@pytest.mark.parametrize(("k", "stay"), [(1, 0.8), (2, 0.0), (2, 0.8)])
def test_the_expected_floor_is_the_mean_of_fresh_draws(k, stay):
    rng = np.random.default_rng(3)
    counts = kmers.kmer_counts(draw(rng, 300 * 500, 20, stay=stay), k).reshape(300, 500, -1)
    found = np.array([kmers.jensen_shannon(c[:200].sum(0), c[200:].sum(0)).divergence for c in counts])
    expected = kmers.expected_divergence(draw(rng, 20000, 20, stay=stay), k, 200, 300)
    stderr = found.std(ddof=1) / 300**0.5
    assert abs(found.mean() - expected) < 5 * stderr + 0.01 * expected  # second order is 1 / n of it
    independent = (4**k - 1) / 8 * (1 / 200 + 1 / 300) / (21 - k)
    assert (abs(found.mean() - independent) > 10 * stderr) == (stay > 0)  # words that depend are fewer


def test_the_floor_of_real_sequences():
    x = draw(np.random.default_rng(4), 600, 30, stay=0.5)
    floor = kmers.kmer_floor(x, 2, 200, 300, key=KEY, draws=50)
    assert (
        abs(floor.divergence - floor.expected_divergence) < 5 * floor.divergence_std / 50**0.5 + 0.02 * floor.divergence
    )
    assert floor.expected_divergence == pytest.approx(kmers.expected_divergence(x, 2, 200, 300))
    assert floor.distance == pytest.approx(floor.divergence**0.5, rel=0.1)
    assert (floor.counts, floor.base) == ((200, 300), math.e)
    assert kmers.kmer_floor(x, 2, 200, 300, key=KEY, draws=50) == floor
    assert kmers.kmer_floor(x, 2, 300, key=KEY, draws=2).counts == (300, 300)
    bits = kmers.kmer_floor(x, 2, 200, 300, key=KEY, draws=50, base=2)
    assert bits.divergence * math.log(2) == pytest.approx(floor.divergence)
    # sequences of another law are above it
    other = kmers.kmer_jensen_shannon(draw(np.random.default_rng(5), 200, 30), x[:300], 2).divergence
    assert other > floor.divergence + 5 * floor.divergence_std


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kmers.kmer_counts(np.array([[0, 4]]), 1), "tokens from 0 to 4; expected 0..3: let the sampler"),
        (lambda: kmers.kmer_counts(np.array([[0, -1]]), 1), "tokens from -1 to 0"),
        (lambda: kmers.kmer_counts(np.array([[0.0, 1.0]]), 1), "got float64"),
        (lambda: kmers.kmer_counts(np.array([0, 1]), 1), r"shape \(2,\)"),
        (lambda: kmers.kmer_counts(np.array([[0, 1]]), 3), "k must be 1 to 2"),
        (lambda: kmers.kmer_counts(np.zeros((1, 30), int), 12), "k must be 1 to 11"),
        (lambda: kmers.jensen_shannon([1, 2], [1, 2, 3]), "the same words, got 2 and 3"),
        (lambda: kmers.jensen_shannon([1, -2], [1, 2]), "p must be"),
        (lambda: kmers.jensen_shannon([1, 2], [0, 0]), "q must be"),
        (lambda: kmers.jensen_shannon([1, np.inf], [1, 2]), "p must be finite"),
        (lambda: kmers.jensen_shannon([1, 2], [1, 2], base=1.0), "the base is 1.0"),
        (lambda: kmers.kmer_floor(np.zeros((5, 4), int), 1, 3, key=KEY), "needs 6 held out, got 5"),
        (lambda: kmers.kmer_floor(np.zeros((5, 4), int), 1, 2, key=KEY, draws=1), "draws must be 2"),
        (lambda: kmers.expected_divergence(np.zeros((1, 4), int), 1, 3, 3), "number of sequences must be 2"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
