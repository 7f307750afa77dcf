"""Accuracy, F1 and areas are scikit-learn's, p-values SciPy's, and errors what repeating shows."""

import sys

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

from jaxdiff.errors import InputError
from jaxdiff.metrics import classification

KEY = jax.random.key(0)


def blobs(rng, n, apart=1.5, classes=3):
    y = rng.integers(0, classes, n)
    return rng.standard_normal((n, 5)) * [1, 10, 0.1, 3, 1] + apart * np.eye(classes, 5)[y] * [1, 10, 0.1, 3, 1], y


def test_agreement_is_scikit_learns():
    rng = np.random.default_rng(0)
    for classes in (2, 4):
        asked = np.append(rng.integers(0, classes, 60), np.arange(classes))
        seen = np.where(rng.random(len(asked)) < 0.5, asked, rng.integers(0, classes, len(asked)))
        found = classification.agreement(asked, seen, classes)
        right = int((asked == seen).sum())
        assert found.accuracy.value == pytest.approx(accuracy_score(asked, seen))
        assert found.accuracy.stderr == pytest.approx(
            np.sqrt(found.accuracy.value * (1 - found.accuracy.value) / len(asked))
        )
        assert found.macro_f1 == pytest.approx(f1_score(asked, seen, average="macro"))
        np.testing.assert_array_equal(found.confusion, confusion_matrix(asked, seen))
        assert found.chance == np.bincount(asked).max() / len(asked)
        test = stats.binomtest(right, len(asked), found.chance, alternative="greater")
        assert found.p_value == pytest.approx(test.pvalue, rel=1e-12)


def test_a_class_that_is_neither_asked_nor_seen_has_no_f1():
    found = classification.agreement(np.array([0, 1]), np.array([0, 0]), 5)
    assert (
        found.macro_f1
        == pytest.approx(f1_score([0, 1], [0, 0], average="macro", zero_division=0))
        == pytest.approx(1 / 3)
    )
    assert classification.agreement(np.array([1, 1]), np.array([0, 0]), 2, chance=0.5).p_value == 1.0
    assert classification.agreement(np.array([1, 1]), np.array([1, 1]), 2, chance=0.5).p_value == pytest.approx(0.25)


def test_guesses_have_uniform_p_values():
    """At balanced classes asked at random the count is binomial whatever the judge answers."""
    rng = np.random.default_rng(1)
    p = [classification.agreement(rng.integers(0, 2, 50), np.ones(50, int), 2, chance=0.5).p_value for _ in range(2000)]
    for level in (0.05, 0.2, 0.5):
        exact = max(q for q in stats.binom.sf(np.arange(51) - 1, 50, 0.5) if q <= level)
        assert abs(np.mean(np.array(p) <= level) - exact) < 5 * np.sqrt(exact * (1 - exact) / 2000)


def test_the_area_is_scikit_learns_with_ties():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 70) * 1.0
    truth = roc_auc_score(np.repeat([1, 0], [40, 70]), np.concatenate([a, b]))
    assert classification.auroc(a, b).value == pytest.approx(truth, rel=1e-12)
    assert classification.auroc(b, a).value == pytest.approx(1 - truth)
    assert classification.auroc(a, b).stderr == pytest.approx(classification.auroc(b, a).stderr)
    assert classification.auroc([2.0, 3.0], [0.0, 1.0])[:2] == (1.0, 0.0)


def test_the_areas_error_is_its_spread_over_repetitions():
    rng = np.random.default_rng(3)
    found = np.array([classification.auroc(rng.normal(1, 1, 60), rng.normal(0, 1, 90))[:2] for _ in range(3000)])
    exact = stats.norm.cdf(1 / np.sqrt(2))  # P(a > b) of two normals one apart
    assert abs(found[:, 0].mean() - exact) < 5 * found[:, 0].std() / 3000**0.5
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(found[:, 0].std(), rel=5 / np.sqrt(6000) + 0.02)


def test_a_discriminator_sees_what_differs_and_nothing_else():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((600, 4)), rng.standard_normal((500, 4))
    same = classification.discriminator_auroc(a, b, key=KEY)
    assert abs(same.value - 0.5) < 5 * same.stderr
    moved = classification.discriminator_auroc(a + np.eye(4)[0], b, key=KEY)
    # the best judge's area is that of the one feature that differs
    assert abs(moved.value - stats.norm.cdf(1 / np.sqrt(2))) < 5 * moved.stderr
    assert 0.01 < same.stderr < 0.03
    assert classification.discriminator_auroc(a, b, key=KEY) == same


def test_samples_of_the_class_asked_for_are_recovered():
    rng = np.random.default_rng(5)
    train, heldout, (x, y) = blobs(rng, 600), blobs(rng, 300), blobs(rng, 200)
    found = classification.class_recovery(x, y, train, heldout, 3)
    assert found.samples.accuracy.value > 0.6
    assert found.samples.p_value < 1e-6
    assert abs(found.samples.accuracy.value - found.heldout.accuracy.value) < 5 * found.samples.accuracy.stderr
    assert found.heldout.accuracy.n == 300
    shuffled = classification.class_recovery(x, rng.permutation(y), train, heldout, 3)
    assert shuffled.samples.p_value > 1e-6
    np.testing.assert_array_equal(shuffled.heldout.confusion, found.heldout.confusion)


def test_a_judge_may_lack_a_class_and_meet_a_constant():
    x = np.column_stack([np.arange(20.0), np.ones(20)])
    judge = classification.logistic(x, np.repeat([0, 2], 10), 3)
    assert np.isneginf(judge.scores(x)[:, 1]).all()
    np.testing.assert_allclose(np.exp(judge.scores(x)).sum(1), 1)
    assert judge(x).tolist() == [0] * 10 + [2] * 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classification.agreement(np.array([0, 3]), np.array([0, 1]), 3),
            "asked run from 0 to 3; expected 0..2",
        ),
        (lambda: classification.agreement(np.array([0, 1]), np.array([-1, 1]), 3), "seen run from -1 to 1"),
        (lambda: classification.agreement(np.array([], int), np.array([], int), 3), "classes asked are none"),
        (lambda: classification.agreement(np.array([0, 1]), np.array([0]), 3), "seen must be 2 integer classes"),
        (lambda: classification.agreement(np.array([0.5]), np.array([0]), 3), "asked must be 1 integer classes"),
        (lambda: classification.agreement(np.array([1, 1]), np.array([0, 1]), 2), "the chance level is 1.0"),
        (lambda: classification.auroc([1.0], [2.0, 3.0]), "positive and negative scores must be 2"),
        (lambda: classification.auroc([1.0, np.nan], [2.0, 3.0]), "positive must be finite"),
        (
            lambda: classification.logistic(np.eye(2), np.array([1, 1]), 2),
            "labels run from 1 to 1; expected two or more",
        ),
        (lambda: classification.logistic(np.eye(2), np.array([0, 2]), 2), "labels run from 0 to 2"),
        (lambda: classification.discriminator_auroc(np.eye(9), np.eye(8), key=KEY), "the same features"),
        (lambda: classification.discriminator_auroc(np.eye(9), np.eye(9), key=KEY), "folds must be 2 to 4"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_missing_package_names_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(InputError, match=r"scikit-learn.*not installed.*pip install 'jaxdiff\[data\]'"):
        classification.logistic(np.eye(2), np.array([0, 1]), 2)
