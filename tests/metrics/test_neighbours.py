import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from jaxdiff.metrics import class_agreement, closer_fraction, knn_classifier, memorisation
from jaxdiff.metrics.distances import nearest


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("far", [0.0, 1e5])
def test_nearest_is_scikit_learns(k, far, monkeypatch):
    monkeypatch.setattr("jaxdiff.metrics.distances.BLOCK", 150)
    rng = np.random.default_rng(k)
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((33, 6))
    theirs = NearestNeighbors(n_neighbors=k, algorithm="kd_tree")
    distances, rows = nearest(x + far, y + far, k=k)
    expected, expected_rows = theirs.fit(y).kneighbors(x)
    np.testing.assert_allclose(distances, expected, rtol=1e-8)
    np.testing.assert_array_equal(rows, expected_rows)
    within, _ = nearest(y, y, k=k, skip_self=True)
    np.testing.assert_allclose(within, theirs.kneighbors()[0], rtol=1e-12)


def test_copies_are_at_distance_zero():
    x = 1e3 + np.random.default_rng(0).standard_normal((200, 64))
    distances, rows = nearest(x, x[::-1])
    assert (distances == 0).all()
    np.testing.assert_array_equal(rows[:, 0], np.arange(200)[::-1])


def test_a_law_learnt_is_half_closer_and_a_copy_is_closer():
    rng = np.random.default_rng(1)
    fair = np.array([closer_fraction(*rng.standard_normal((3, 40, 2))) for _ in range(400)])
    assert abs(fair.mean() - 0.5) < 5 * fair.std(ddof=1) / np.sqrt(len(fair))
    train, heldout = rng.standard_normal((2, 40, 2))
    assert closer_fraction(train, train, heldout) == 1.0
    assert closer_fraction(heldout, train, heldout) == 0.0
    assert closer_fraction(train, heldout, heldout[::-1]) == 0.5


def test_memorisation_of_copies_and_of_fresh_data_at_unequal_sizes(key):
    rng = np.random.default_rng(2)
    train, heldout, fresh = rng.standard_normal((900, 4)), rng.standard_normal((300, 4)), rng.standard_normal((600, 4))
    copy = memorisation(train[:500], train, heldout, key=key)
    assert copy.copied == 1.0
    assert (copy.samples == 0).all()
    assert abs(copy.closer - 2 / 3) < 0.05  # (1 + 300 / 900) / 2
    learnt = memorisation(fresh, train, heldout, key=key, level=0.2)
    assert abs(learnt.closer - 0.5) < 0.1  # a full train set would give 3/4
    assert abs(learnt.copied - 0.2) < 5 * np.sqrt(0.16 / 300 + 0.16 / 600)
    assert learnt.heldout.shape == (300,)
    np.testing.assert_array_equal(learnt.heldout, nearest(heldout, train)[0][:, 0])


def test_votes_by_hand_with_a_tie_for_the_nearest():
    reference, labels = np.array([[0.0], [1.0], [2.0], [3.5]]), np.array([4, 7, 7, 9])
    assert knn_classifier(reference, labels)(np.array([[0.1]])).tolist() == [7]  # 4, 7, 7
    assert knn_classifier(reference, np.array([9, 8, 3, 1]))(np.array([[0.1], [2.9]])).tolist() == [9, 1]  # all tied
    assert knn_classifier(reference, labels, k=1)(np.array([[0.1]])).tolist() == [4]


def test_real_digits_are_classified_as_well_as_scikit_learn_can():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    train, heldout = order[:1437], order[1437:]
    accuracy = class_agreement(images[heldout], labels[heldout], images[train], labels[train])
    print(f"3-NN on held-out digits: {accuracy:.4f}")
    assert accuracy > 0.97
    wrong = class_agreement(images[heldout], (labels[heldout] + 1) % 10, images[train], labels[train])
    assert wrong < 0.03


def test_the_same_key_repeats():
    x, y, z = (np.random.default_rng(i).standard_normal((n, 2)) for i, n in enumerate((50, 90, 20)))
    a, b, c = (memorisation(x, y, z, key=jax.random.key(i), draws=2).closer for i in (0, 0, 1))
    assert a == b != c
