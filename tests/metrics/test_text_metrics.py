"""Perplexity, entropy and repetition against closed forms, by hand and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxdiff.errors import InputError
from jaxdiff.metrics import text


def test_a_uniform_guess_has_the_perplexity_of_the_vocabulary():
    nats, letters = np.full(5, 40 * math.log(27)), 40
    assert text.perplexity(nats, letters) == pytest.approx((27, 0, 5), abs=1e-12)


def test_long_sequences_weigh_more():
    nats, letters = np.array([10.0, 90.0]), np.array([10, 30])
    assert text.perplexity(nats, letters).value == pytest.approx(math.exp(2.5))


def test_perplexitys_error_is_its_spread_over_repetitions():
    rng = np.random.default_rng(0)
    nats = 20 * 1.2 + 4 * rng.standard_normal((3000, 100))
    found = np.array([text.perplexity(row, 20)[:2] for row in nats])
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(found[:, 0].std(), rel=5 / np.sqrt(6000) + 0.01)
    assert np.mean(found[:, 1] / found[:, 0]) == pytest.approx(0.2 / 10, rel=0.02)  # of the exponent


def test_the_entropy_is_scipys_and_pooled():
    x = np.random.default_rng(1).integers(0, 5, (7, 30)) ** 2 % 6
    counts = np.bincount(x.ravel(), minlength=9)
    assert text.unigram_entropy(x, 9).value == pytest.approx(stats.entropy(counts, base=2))
    assert text.unigram_entropy(x, 9, base=math.e).value == pytest.approx(stats.entropy(counts))
    assert text.unigram_entropy(np.array([[0, 0], [1, 1]]), 2).value == pytest.approx(1)  # pooled: 0 in each
    assert text.unigram_entropy(np.zeros((3, 4), int), 2)[:2] == (0, 0)


def test_the_entropys_error_is_its_spread_over_repetitions():
    rng = np.random.default_rng(2)
    letters = np.cumsum([0.6, 0.3, 0.1])
    found = []
    for _ in range(1500):
        sequences = np.searchsorted(letters, rng.random((60, 5)))
        found.append(text.unigram_entropy(np.repeat(sequences, 4, axis=1), 3)[:2])  # letters come in fours
    value, stderr = np.array(found).T
    assert np.sqrt(np.mean(stderr**2)) == pytest.approx(value.std(), rel=5 / np.sqrt(3000) + 0.03)


def test_repetition_counts_ngrams_by_hand():
    rows = np.array([[0, 1, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5]])
    # 01 10 01 10 01: 2 different of 5; 010 101 010 101: 2 of 4; 0101 1010 0101: 2 of 3
    assert text.repetition(rows, 2).value == pytest.approx(0.6 / 2)
    assert text.repetition(rows, 3).value == pytest.approx(0.5 / 2)
    found = text.repetition_diversity(rows)
    assert found.value == pytest.approx((2 / 5 * 2 / 4 * 2 / 3 + 1) / 2)
    assert found.stderr == pytest.approx((1 - 2 / 15) / 2)
    assert text.repetition_diversity(rows, orders=(1,)).value == pytest.approx((2 / 6 + 1) / 2)
    assert text.repetition_diversity([np.arange(5), np.zeros(8, int)]).n == 2  # rows of different lengths
    assert text.repetition([np.zeros(8, int)], 2).value == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text.unigram_entropy(np.array([[0, 3]]), 3), "tokens from 0 to 3; expected 0..2"),
        (lambda: text.unigram_entropy(np.array([0, 1]), 3), r"shape \(2,\)"),
        (lambda: text.unigram_entropy(np.array([[0.5]]), 3), "got float64"),
        (lambda: text.repetition(np.array([[0, 1]]), 3), r"sequence 0 has shape \(2,\); expected a row of 3"),
        (lambda: text.repetition(np.array([[0, 1]]), 0), "n must be 1"),
        (lambda: text.repetition([], 2), "no sequences"),
        (lambda: text.repetition_diversity(np.zeros((1, 9), int), orders=()), "got no orders"),
        (lambda: text.perplexity([1.0, np.nan], 3), "must be finite"),
        (lambda: text.perplexity([1.0], [0]), "over positive counts"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
