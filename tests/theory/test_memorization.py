"""Densities against numerical integration and 600-digit arithmetic; null distributions against every split."""

import itertools
import math
import tracemalloc
from decimal import Decimal, localcontext

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from jaxdiff import oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.metrics import distances
from jaxdiff.theory.memorization import (
    Delta,
    agreement,
    closer,
    copies,
    delta,
    distinct,
    gaussian,
    kde,
    log_distance,
    log_overlap,
    probability,
    relabelled,
    spread,
    summary,
)

pytestmark = pytest.mark.claim("the linear one-step model: closed forms, the pole at n = d, P(Delta > 0)")


def kernel_density(points, scale):
    """The density that the definition names, as a function of (..., d)."""
    n, d = points.shape
    width = scale * n ** (-1 / d)
    return lambda x: np.mean([multivariate_normal(p, width**2 * np.eye(d)).pdf(x) for p in points], axis=0)


def squared_distance(p, q, d):
    """int (p - q)^2 by the trapezoid rule, which for densities this smooth is exact to rounding."""
    axis = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(*[axis] * d), -1)
    return np.sum((p(grid) - q(grid)) ** 2) * (axis[1] - axis[0]) ** d


@pytest.mark.parametrize("d", [1, 2])
def test_delta_is_the_difference_of_two_integrals(d):
    rng = np.random.default_rng(d)
    train, fresh, drawn = rng.standard_normal((5, d)), rng.standard_normal((9, d)), rng.standard_normal((4, d))
    scale, root = 0.8, rng.standard_normal((d, d))
    mean, cov = rng.standard_normal(d), root @ root.T
    of_train, of_fresh = kernel_density(train, scale), kernel_density(fresh, scale)
    for generated, law in (
        (gaussian(mean, cov), multivariate_normal(mean, cov).pdf),
        (drawn, kernel_density(drawn, scale)),
    ):
        to_train, to_fresh = squared_distance(law, of_train, d), squared_distance(law, of_fresh, d)
        found = delta(generated, train, fresh, scale=scale)
        np.testing.assert_allclose(found.sign * math.exp(found.log_abs), to_train - to_fresh, rtol=1e-6)
        density = kde(generated, scale=scale) if isinstance(generated, np.ndarray) else generated
        np.testing.assert_allclose(math.exp(log_distance(density, kde(train, scale=scale))), to_train, rtol=1e-6)
        size = sum(squared_distance(law, lambda x, p=p: -p(x), d) for p in (of_train, of_fresh))
        size -= 2 * squared_distance(law, lambda x: 0, d)
        np.testing.assert_allclose(found.relative, (to_train - to_fresh) / size, rtol=1e-6)


def test_784_dimensions_against_arithmetic_of_600_digits():
    """All of int KDE^2 but e^-230 of it leaves Delta: float64 would see nothing, were it not left out exactly."""
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((n, 784)) for n in (4, 3, 2)]  # train, fresh, generated
    scale = 1.25

    def overlap(a, b):
        terms = Decimal(0)
        variances = [Decimal(scale) ** 2 * (Decimal(len(x)).ln() * Decimal(-2) / 784).exp() for x in (a, b)]
        total = sum(variances)
        for x, y in itertools.product(a, b):
            square = sum((Decimal(float(i)) - Decimal(float(j))) ** 2 for i, j in zip(x, y, strict=True))
            terms += (-square / (2 * total)).exp()
        two_pi = Decimal(
            "6.28318530717958647692528676655900576839433879875021164194988918461563281257241799725606965068"
        )
        return terms / (len(a) * len(b)) * (-392 * (two_pi * total).ln()).exp()

    with localcontext() as context:
        context.prec = 600
        train, fresh, generated = sets
        # The circle constant is the same in every term, so its digits matter to no comparison of them.
        exact = overlap(train, train) - 2 * overlap(generated, train)
        exact -= overlap(fresh, fresh) - 2 * overlap(generated, fresh)
        found = delta(generated, train, fresh, scale=scale)
        assert found.sign == (1 if exact > 0 else -1)
        assert abs(found.log_abs - float(abs(exact).ln())) < 1e-9
        assert found.log_abs < found.train - 200


def test_copies_are_nearer_to_train_and_fresh_draws_to_the_law():
    rng = np.random.default_rng(1)
    train, fresh = rng.standard_normal((2, 40, 784))
    assert delta(train, train, fresh).sign == -1
    assert delta(fresh, train, fresh).sign == 1
    one, other = delta(train[:7], train, fresh, scale=1.0), delta(train[:7], fresh, train, scale=1.0)
    assert one.log_abs == other.log_abs
    assert one.sign == -other.sign
    same = delta(fresh[:5], train, train[::-1])
    assert (same.sign, same.log_abs) == (0, -math.inf)
    assert abs(delta(kde(train, scale=1.0), train, fresh + 50, scale=1.0).relative + 0.5) < 1e-4


def test_at_equal_counts_the_sign_of_what_knows_nothing_is_a_fair_coin():
    """Whatever is generated, of the law or not, and however it is given."""
    rng = np.random.default_rng(8)
    sets = [(rng.standard_normal((2, 6, 3)), rng.standard_normal((9, 3)) ** 2) for _ in range(200)]
    found = [probability([delta(draw(x), *pair, scale=1.0) for pair, x in sets]) for draw in (lambda x: x, law_of)]
    for estimate in found:
        assert abs(estimate.value - 0.5) < 5 * 0.5 / math.sqrt(200)
    copied = probability([delta(law_of(pair[0]), *pair, scale=1.0) for pair, _ in sets[:50]])
    fresh = probability([delta(law_of(pair[1]), *pair, scale=1.0) for pair, _ in sets[:50]])
    assert copied.value < 0.2 < 0.8 < fresh.value


def law_of(x):
    return gaussian(x.mean(0), np.cov(x.T))


def test_pairs_in_blocks_give_the_sum_of_all_pairs(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((600, 3)), rng.standard_normal((70, 3))
    p, q = kde(x, scale=1.0), kde(y, scale=1.0)
    every = np.exp(-cdist(x, x, "sqeuclidean") / (4 * p.cov)).mean() / (4 * math.pi * p.cov) ** 1.5
    np.testing.assert_allclose(math.exp(p.log_square), every, rtol=1e-12)
    between = np.exp(-cdist(x, y, "sqeuclidean") / (2 * (p.cov + q.cov))).mean()
    between /= (2 * math.pi * (p.cov + q.cov)) ** 1.5
    for block in (1 << 22, 1 << 10):
        monkeypatch.setattr(distances, "BLOCK", block)
        np.testing.assert_allclose(math.exp(log_overlap(p, q)), between, rtol=1e-12)


def test_memory_is_that_of_a_block(monkeypatch):
    monkeypatch.setattr(distances, "BLOCK", 1 << 16)
    x, y = np.random.default_rng(3).standard_normal((2, 2500, 2))  # a matrix of all pairs would be 50 MB
    tracemalloc.start()
    delta(x[:100], x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6


def test_the_share_of_positive_deltas():
    found = [Delta(sign, 0.0, 0.0, 0.0, 0.0, 0.0) for sign in (1, 1, 1, -1, 0)]
    assert probability(found)[0::2] == (0.6, 5)
    assert abs(probability(found).stderr - math.sqrt(0.24 / 5)) < 1e-15


def test_the_null_of_closer_is_that_of_every_split():
    rng = np.random.default_rng(4)
    pool, samples = rng.standard_normal((7, 2)), 3 + 2 * rng.standard_normal((20, 2))  # of no law of the pool's
    found = []
    for rows in itertools.combinations(range(7), 3):
        rest = [i for i in range(7) if i not in rows]
        found.append(closer(samples, pool[list(rows)], pool[rest]))
    fractions = np.array([f.fraction for f in found])
    np.testing.assert_allclose([f.null for f in found], fractions.mean())
    np.testing.assert_allclose([f.null_std for f in found], fractions.std())
    assert found[0].null == 3 / 7
    by_hand = cdist(samples, pool).argmin(1)
    assert found[0].fraction == np.mean(by_hand < 3)
    drawn = relabelled(jax.random.key(0), found[0], 4000)
    assert abs(drawn.mean() - 3 / 7) < 5 * drawn.std() / math.sqrt(4000)
    assert set(np.round(drawn, 9)) <= set(np.round(fractions, 9))


def test_copies_exceed_and_examples_in_both_sets_share_a_sample():
    rng = np.random.default_rng(5)
    train, held_out = rng.standard_normal((30, 4)), rng.standard_normal((90, 4))
    copied = closer(train[:11], train, held_out)
    assert (copied.fraction, copied.excess, copied.null) == (1.0, 1.0, 0.25)
    assert copied.repeats == 0
    assert closer(held_out, train, held_out).fraction == 0
    shared = closer(train, train, np.concatenate([train, train]))
    assert (shared.repeats, shared.train) == (60, 30)
    np.testing.assert_allclose(shared.fraction, 1 / 3)
    np.testing.assert_allclose(shared.excess, 0, atol=1e-12)


def test_copies_by_the_ratio_of_distances_by_hand():
    train = np.array([[0.0], [4.0], [4.0], [4.0]])
    samples, held_out = np.array([[0.9], [1.1], [4.0], [-2.1]]), np.array([[2.0], [4.5]])
    found = copies(samples, train, held_out)
    assert found.fraction[0] == 0.5  # .9 / 3.1 and 0 / 4; not 1.1 / 2.9 nor 2.1 / 6.1
    assert found.null[0] == 0.5
    assert found.repeats == 2  # without which 4.0 would be its own second nearest
    assert copies(samples, train, held_out, ratio=0.9).fraction[0] == 1.0


def test_agreement_of_gaussians_of_known_correlation():
    rng = np.random.default_rng(6)
    mix = np.diag([1.0, 2.0, 0.5])
    found = []
    for _ in range(200):
        a, other = rng.standard_normal((2, 60, 3)) @ mix
        found.append(agreement(5 + a, 0.9 * a + math.sqrt(0.19) * other))
    values = np.array([f.correlation[0] for f in found])
    stderrs = np.array([f.correlation[1] for f in found])
    assert abs(values.mean() - 0.9) < 5 * values.std() / math.sqrt(200) + 0.9 * 0.19 / 60  # and its bias, of order 1/n
    assert abs(stderrs.mean() / values.std(ddof=1) - 1) < 5 / math.sqrt(2 * 200)
    a, b = rng.standard_normal((2, 30, 3))
    every, pairs = cdist(a, b), np.linalg.norm(a - b, axis=1)
    found = agreement(a, b)
    np.testing.assert_allclose(found.distance[0], pairs.mean())
    np.testing.assert_allclose(found.unpaired, (every.sum() - pairs.sum()) / (30 * 29))
    assert abs(found.correlation[0]) < 5 * found.correlation[1]
    alike = agreement(a, a + 2)
    np.testing.assert_allclose((alike.correlation[0], alike.distance[0]), (1, 2 * math.sqrt(3)))


def test_the_empirical_denoiser_draws_its_training_examples(key):
    law = oracles.mixture(processes.edm(), [0.5, 0.5], [[-1.0] * 5, [1.0] * 5], [0.3, 0.1])
    train, held_out, fresh = (np.asarray(law.sample(jax.random.fold_in(key, i), 40)) for i in range(3))
    process = processes.edm(sigma_max=20.0)
    memory = oracles.empirical(process, train)
    drawn = samplers.draw(key, 50, lambda _: memory.denoise, samplers.edm(process, steps=12), (5,))
    assert closer(drawn, train, held_out).fraction == 1
    assert copies(drawn, train, held_out).fraction[0] == 1
    assert delta(drawn, train, fresh).sign == -1
    learnt = closer(fresh, train, held_out)
    assert abs(learnt.excess) < 5 * learnt.null_std / (1 - learnt.null)


def test_the_summary_leaves_repeats_out_and_has_equal_counts():
    rng = np.random.default_rng(9)
    train, held_out = rng.standard_normal((20, 3)), rng.standard_normal((12, 3))
    found = summary(train[:8], np.concatenate([train, train[:2]]), held_out)
    assert (found["closer"], found["excess"], found["copies"], found["repeats"]) == (1, 1, 1, 2)
    assert found["null"] == 20 / 32
    expected = delta(train[:8], train[:12], held_out)
    assert (found["delta_sign"], found["delta_relative"]) == (expected.sign, expected.relative)


def test_distinct_points_and_their_spread():
    rows, repeats = distinct(np.array([[1.0, -0.0], [2.0, 3.0], [1.0, 0.0], [2.0, 3.0]]))
    assert rows.tolist() == [[1, 0], [2, 3]]
    assert repeats == 2
    np.testing.assert_allclose(spread(np.array([[0.0, 1.0], [2.0, 1.0]])), 1)


ZERO = np.zeros(2)
X, Y = np.random.default_rng(7).standard_normal((2, 6, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: delta(X, X[:1], Y), "points must have at least 2 samples"),
        (lambda: delta(X, Y, X[:1]), "reference must have at least 2 samples"),
        (lambda: delta(X, np.concatenate([X, X[:2]]), Y), "train repeats 2 of its 8 points.*distinct"),
        (lambda: delta(X, X, np.concatenate([Y, Y])), "reference repeats 6 of its 12 points"),
        (lambda: delta(X, X, Y, scale=0.0), r"width 0.0 N\^\(-1/d\), expected a positive scale"),
        (lambda: delta(X, X, Y, scale=math.inf), "width inf"),
        (lambda: delta(X, X, np.ones((5, 2))), r"width 0.0 N.*all the same"),
        (lambda: delta(X[:, :1], X, Y), "one dimension, got 1 and 2"),
        (lambda: delta(X, X, np.where(Y > 0, np.nan, Y)), "reference must be finite"),
        (lambda: delta(X, X.reshape(3, 2, 2), Y), "must be a table"),
        (lambda: gaussian(ZERO, np.eye(3)), r"mean of shape \(2,\), a covariance of \(3, 3\)"),
        (lambda: gaussian(ZERO, [[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (lambda: gaussian(ZERO, [[1.0, 2.0], [2.0, 1.0]]), "eigenvalues of 0 or more"),
        (lambda: log_overlap(gaussian(ZERO, 0.0), gaussian(ZERO + 1, 0.0)), "without width"),
        (lambda: log_overlap(*[gaussian(ZERO, np.diag([1.0, 0.0]))] * 2), "two singular Gaussians"),
        (lambda: probability([]), "deltas must be 1"),
        (lambda: closer(X, X[:1], Y), "train must have at least 2"),
        (lambda: closer(X, X, Y[:, :1]), "same features, got 2 and 1"),
        (lambda: relabelled(jax.random.key(0), closer(X, X, Y), 0), "draws must be 1"),
        (lambda: copies(X, np.ones((4, 2)), Y), "one example over and over"),
        (lambda: copies(X, X, Y, ratio=1.0), "between 0 and 1, got 1.0"),
        (lambda: agreement(X, Y[:3]), "got 6 and 3"),
        (lambda: agreement(X[:1], Y[:1]), "a must have at least 2"),
        (lambda: agreement(X, np.ones((6, 2))), "samples of a model are the same"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
