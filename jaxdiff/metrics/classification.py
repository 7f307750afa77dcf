"""Whether samples of a class are of that class, and whether samples can be told from real data, by judges that never
saw the samples: the judge is trained on real data (or on one part of both) and asked about the rest.

The judge here is logistic regression on a table of features, such as `kmer_counts`; for any other, give its answers to
`agreement` and its scores to `auroc`. A judge is worth what it does on held-out real data: print that beside it."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from jaxdiff.errors import InputError
from jaxdiff.metrics.estimate import Estimate, Values, fraction
from jaxdiff.metrics.inputs import Labels, Table, classes, generator, numbers, pair, table, whole
from jaxdiff.types import PRNGKey


class Agreement(NamedTuple):
    """How often the class that is seen is the one that was asked for.

    `chance` is the accuracy to beat and `p_value` the exact binomial chance of at least so many right answers at it
    (0 where it is below 1e-308); `confusion[i, j]` counts class i asked and j seen."""

    accuracy: Estimate
    macro_f1: float
    chance: float
    p_value: float
    confusion: Int64[np.ndarray, "classes classes"]


class Recovery(NamedTuple):
    """The judge's `Agreement` on samples, and on held-out real data, where it is as good as it gets."""

    samples: Agreement
    heldout: Agreement


def agreement(asked: Labels, seen: Labels, num_classes: int, *, chance: float | None = None) -> Agreement:
    """Accuracy, macro-F1 and the p-value of the accuracy, of (N,) classes seen against (N,) classes asked for.

    `chance` defaults to the share of the commonest class asked for: no answer that ignores the sample does better on
    average, so P(Binomial(N, chance) >= right) is exact for balanced classes and careful for others. F1 of class c is
    2 right / (asked + seen), 0 where it is neither; macro-F1 is its mean over the classes asked for or seen.
    InputError for no samples, labels outside the classes, or a chance outside (0, 1)."""
    from scipy.stats import binom

    asked = classes(asked, "asked", len(np.asarray(asked)))
    seen, n = classes(seen, "seen", len(asked)), len(asked)
    for name, labels in (("asked", asked), ("seen", seen)):
        if n == 0 or labels.min() < 0 or labels.max() >= num_classes:
            what = f"run from {labels.min()} to {labels.max()}" if n else "are none"
            raise InputError(f"classes {name} {what}; expected 0..{num_classes - 1} for {num_classes} classes")
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (asked.astype(np.int64), seen.astype(np.int64)), 1)
    right, total = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    chance = float(confusion.sum(1).max() / n) if chance is None else chance
    if not 0 < chance < 1:
        raise InputError(f"the chance level is {chance}; expected one in (0, 1): ask for two classes or more")
    some = total > 0
    p_value = float(binom.sf(right.sum() - 1, n, chance))
    return Agreement(
        fraction(int(right.sum()), n),
        float((2 * right / np.maximum(total, 1))[some].mean()),
        chance,
        p_value,
        confusion,
    )


def auroc(positive: Values, negative: Values) -> Estimate:
    """The chance that a positive's score is above a negative's, ties half: the area under the ROC curve.

    Its standard error is that of DeLong et al. (1988): with V_i the share of negatives below positive i, and W_j the
    share of positives above negative j, Var(V) / n + Var(W) / m. InputError for fewer than two of either, or scores
    that are not finite."""
    a, b = numbers(positive, "positive").ravel(), numbers(negative, "negative").ravel()
    whole(min(len(a), len(b)), "positive and negative scores", 2, 1 << 40, "an error needs two of each")
    above, below = _below(b, a), 1 - _below(a, b)
    stderr = np.sqrt(above.var(ddof=1) / len(a) + below.var(ddof=1) / len(b))
    return Estimate(float(above.mean()), float(stderr), len(a) + len(b))


def discriminator_auroc(
    samples: Table, reference: Table, *, key: PRNGKey, folds: int = 5, penalty: float = 1.0
) -> Estimate:
    """How well logistic regression tells (N, F) samples from (M, F) real features: .5 is not at all, 1 always.

    Each fold of both is scored by a judge that was trained on the other folds; the estimate is the mean of the folds'
    `auroc`, its error theirs combined. `penalty` is `logistic`'s.
    Equal numbers of both, and the floor of held-out against training data, make it comparable. InputError for
    different features, or fewer than 2 rows of either in a fold."""
    a, b = pair(samples, reference, ("samples", "reference"))
    whole(folds, "folds", 2, min(len(a), len(b)) // 2, "each needs two rows of either set")
    rng = generator(key)
    fold = [rng.permutation(len(x)) % folds for x in (a, b)]
    found = []
    for i in range(folds):
        rows = np.concatenate([a[fold[0] != i], b[fold[1] != i]])
        truth = np.repeat([1, 0], [int((f != i).sum()) for f in fold])
        judge = logistic(rows, truth, 2, penalty=penalty)
        found.append(auroc(judge.scores(a[fold[0] == i])[:, 1], judge.scores(b[fold[1] == i])[:, 1]))
    stderr = float(np.sqrt(sum(row.stderr**2 for row in found)) / folds)
    return Estimate(float(np.mean([row.value for row in found])), stderr, len(a) + len(b))


class Judge(NamedTuple):
    """A classifier of (N, F) features that `logistic` trained."""

    mean: Float64[np.ndarray, " f"]
    scale: Float64[np.ndarray, " f"]
    model: Any
    num_classes: int

    def scores(self, features: Table) -> Float64[np.ndarray, "n classes"]:
        """The log-probability of each class, with -inf for a class that was not in training."""
        x = table(features, "features")
        out = np.full((len(x), self.num_classes), -np.inf)
        out[:, self.model.classes_] = self.model.predict_log_proba((x - self.mean) / self.scale)
        return out

    def __call__(self, features: Table) -> Int64[np.ndarray, " n"]:
        """The likeliest class of each row."""
        return self.scores(features).argmax(1)


def logistic(features: Table, labels: Labels, num_classes: int, *, penalty: float = 1.0) -> Judge:
    """Logistic regression on standardised (N, F) features, minimising sum of losses + penalty |w|^2 / 2.

    InputError for labels outside the classes or of one class only, or without scikit-learn."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise InputError(
            "A classifier needs scikit-learn, which is not installed; expected scikit-learn 1.7 or newer; "
            "run: pip install 'jaxdiff[data]'."
        ) from error
    x = table(features, "features")
    y = classes(labels, "labels", len(x))
    if y.min() < 0 or y.max() >= num_classes or y.min() == y.max():
        raise InputError(f"labels run from {y.min()} to {y.max()}; expected two or more of 0..{num_classes - 1}")
    middle, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    model = LogisticRegression(C=1 / penalty, max_iter=2000, tol=1e-4).fit((x - middle) / scale, y)
    return Judge(middle, scale, model, num_classes)


def class_recovery(
    samples: Table,
    asked: Labels,
    train: tuple[Table, Labels],
    heldout: tuple[Table, Labels],
    num_classes: int,
    *,
    penalty: float = 1.0,
) -> Recovery:
    """Train a judge on real (features, labels), and ask it which class each sample is of, and each held-out row.

    InputError as `logistic` and `agreement`."""
    judge = logistic(*train, num_classes, penalty=penalty)
    return Recovery(
        agreement(asked, judge(samples), num_classes), agreement(heldout[1], judge(heldout[0]), num_classes)
    )


def _below(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, " n"]:
    """For each of `b` the share of `a` that is below it, ties half."""
    a = np.sort(a)
    return (np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")) / (2 * len(a))
