"""The empirical oracle in chunks: the same numbers as all at once and as NumPy's enumeration, in one chunk's memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxdiff import oracles, processes
from jaxdiff.errors import InputError

pytestmark = pytest.mark.claim("the empirical denoiser's memory is bounded by its chunk")


N, DIM = 23, 3
RNG = np.random.default_rng(3)
DATA = RNG.normal(size=(N, DIM))
WEIGHTS = RNG.uniform(0.5, 2, N) * (RNG.permutation(N) % 4 > 0)  # a quarter excluded
WEIGHTS[5:10] = 0  # whole chunks of 5 and of 1 too
WEIGHTS /= WEIGHTS.sum()
LABELS = np.arange(N) % 3
POINTS = np.array([[0.3, -0.6, 0.2], [2.0, 2.0, -1.0], DATA[-1] + 1e-3])


def enumerate_(data, weights, alpha, sigma, x):
    """E[x0 | x_t = x] and log p(x_t = x), every example by hand in float64."""
    data = np.asarray(data, np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(weights) - np.sum((x - alpha * data) ** 2, 1) / (2 * sigma**2)
    evidence = logsumexp(logs)
    volume = data.shape[1] / 2 * np.log(2 * np.pi * sigma**2)
    return np.exp(logs - evidence) @ data, evidence - volume


@jax.jit
def answers(oracle, x, t):
    return jax.vmap(lambda x: (oracle.denoise(x, t), oracle.log_prob(x, t)))(x)


@pytest.mark.parametrize(
    ("chunk", "weights"),
    [(None, WEIGHTS), (1, WEIGHTS), (5, WEIGHTS), (5, None), (22, None)],
    ids=["all, weighted", "1, weighted", "5, weighted", "5", "22"],
)
def test_every_chunk_gives_the_enumeration(chunk, weights, x64):
    """Sorted towards a point and away from it: the least distance falls at every chunk, or at none."""
    process, t = processes.vp(), 0.05  # sigma / alpha = .17
    alpha, sigma = (float(v) for v in process.scales(t))
    nearer = np.argsort(-np.sum((DATA - POINTS[0]) ** 2, 1))
    for order in (nearer, nearer[::-1]):
        own = None if weights is None else weights[order]
        oracle = oracles.empirical(process, DATA[order], weights=own, chunk=chunk)
        got, log = answers(oracle, jnp.asarray(POINTS), t)
        for i, x in enumerate(POINTS):
            belief, evidence = enumerate_(DATA[order], np.full(N, 1 / N) if own is None else own, alpha, sigma, x)
            np.testing.assert_allclose(got[i], belief, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(log[i], evidence, rtol=1e-12)


@pytest.mark.parametrize("chunk", [None, 4])
def test_float32_keeps_the_digits_of_close_examples(chunk):
    """784 pixels, sigma = .01, two examples 3 sigma apart: the logits are differences of numbers near 400, which
    |x|^2 - 2 x x_i + |x_i|^2 would have as differences of numbers near 2.6 million."""
    rng = np.random.default_rng(0)
    data = rng.uniform(-1, 1, (11, 784)).astype(np.float32)
    data[-1] = data[2] + np.float32(0.03 / 28) * rng.choice([-1, 1], 784)
    process, t = processes.edm(), 0.01 / 80
    x = (data[2] + 0.01 * rng.normal(size=784)).astype(np.float32)
    oracle = oracles.empirical(process, data, chunk=chunk)
    got, log = answers(oracle, jnp.asarray(x)[None], jnp.float32(t))
    sigma = float(process.scales(jnp.float32(t))[1])
    belief, evidence = enumerate_(data, np.full(11, 1 / 11), 1.0, sigma, x.astype(np.float64))
    share = [(np.asarray(v, np.float64) - data[2]) @ (data[-1] - data[2]) for v in (got[0], belief)]
    share = np.array(share) / np.sum((data[-1] - data[2]) ** 2, dtype=np.float64)
    assert 1e-3 < share[1] < 0.999  # both examples count
    np.testing.assert_allclose(share[0], share[1], rtol=2e-3)
    np.testing.assert_allclose(log[0], evidence, rtol=1e-6)


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_without_noise_ties_share_by_weight_and_without_signal_all_do(chunk):
    process = processes.flow()
    data = np.array([[5.0], [0.0], [9.0], [1.0], [0.0]])
    weights = np.array([0.1, 0.3, 0.1, 0.1, 0.4])
    oracle = oracles.empirical(process, data, weights=weights, chunk=chunk)
    got, _ = answers(oracle, jnp.array([[0.5], [-3.0], [4.0]]), 0.0)
    np.testing.assert_allclose(got, [[0.1 / 0.8], [0.0], [5.0]], rtol=1e-6)
    got, _ = answers(oracle, jnp.array([[0.5]]), 1.0)  # alpha = 0
    np.testing.assert_allclose(got, [weights @ data], rtol=1e-6)
    nearest_is_excluded = oracles.empirical(process, data, weights=[0.5, 0, 0.5, 0, 0], chunk=chunk)
    np.testing.assert_allclose(answers(nearest_is_excluded, jnp.array([[0.5]]), 0.0)[0], [[5.0]])
    # sigma^2 rounds to 0 before sigma does
    np.testing.assert_allclose(answers(oracle, jnp.array([[0.6]]), 1e-30)[0], [[1.0]])


def test_duplicates_are_one_example_of_twice_the_weight(x64):
    process, x = processes.vp(), jnp.asarray(POINTS)
    twice = oracles.empirical(process, DATA[[0, 1, 0, 2]], chunk=2)
    once = oracles.empirical(process, DATA[:3], weights=[0.5, 0.25, 0.25])
    for t in (0.0, 0.1, 0.7):
        for one, two in zip(answers(twice, x, t), answers(once, x, t), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12)


def test_derivatives_are_the_posteriors_also_at_a_tie(x64):
    """grad log q = (alpha D - x) / sigma^2, dD/dx = alpha / sigma^2 Cov(x0 | x), and by t finite differences."""
    process, t = processes.vp(), 0.1
    alpha, sigma = (float(v) for v in process.scales(t))
    data = np.concatenate([DATA, -DATA])  # x = 0 is as far from each as from its mirror image
    oracle = oracles.empirical(process, data, weights=np.concatenate([WEIGHTS, WEIGHTS]) / 2, chunk=5)
    for x in (jnp.zeros(DIM), jnp.asarray(POINTS[0])):
        score, slope, by_t = jax.jit(
            lambda x: (
                jax.grad(oracle.log_prob)(x, t),
                jax.jacfwd(oracle.denoise)(x, t),
                jax.grad(oracle.log_prob, 1)(x, t),
            )
        )(x)
        logs = np.log(np.maximum(oracle.weights, 1e-300)) - np.sum((x - alpha * data) ** 2, 1) / (2 * sigma**2)
        share = np.exp(logs - logsumexp(logs))
        mean = share @ data
        cov = (data * share[:, None]).T @ data - np.outer(mean, mean)
        np.testing.assert_allclose(score, (alpha * mean - x) / sigma**2, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(slope, alpha / sigma**2 * cov, rtol=1e-9, atol=1e-9)
        up, down = (oracle.log_prob(x, t + step) for step in (1e-6, -1e-6))
        np.testing.assert_allclose(by_t, (up - down) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
def test_memory_is_bounded_by_the_chunk(gradient):
    """As the compiled program counts it, for a batch of 8 and examples of 784 numbers."""

    def beyond(n):
        data = jax.ShapeDtypeStruct((n, 784), jnp.float32)

        def believe(data, x):
            oracle = oracles.empirical(processes.edm(), data, chunk=256)
            one = (lambda x: jax.grad(oracle.log_prob)(x, 0.1)) if gradient else (lambda x: oracle.denoise(x, 0.1))
            return jax.vmap(one)(x)

        compiled = jax.jit(believe).lower(data, jax.ShapeDtypeStruct((8, 784), jnp.float32)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = beyond(1 << 12), beyond(1 << 15)
    per_chunk = 8 * 256 * 784 * 4
    assert few < 6 * per_chunk  # without fusion there are a few such arrays
    # A gradient keeps the sums before each chunk; the weights are a number an example.
    assert many - few < 8 * (1 << 15) * 4 + gradient * 3 * 8 * 784 * 4 * (1 << 7)
    assert many < 8 * (1 << 15) * 784 * 4 / 10  # of what all at once would take


def test_a_class_is_its_own_examples(x64):
    process, x = processes.vp(), jnp.asarray(POINTS)
    oracle = oracles.empirical(process, DATA, weights=WEIGHTS, labels=LABELS, chunk=4)
    mapped = jax.jit(
        jax.vmap(
            lambda label: (*answers(oracle.given(label), x, 0.2), jax.vmap(oracle.denoiser(label), (0, None))(x, 0.2))
        )
    )(jnp.arange(3))
    for label in range(3):
        own = label == LABELS
        alone = oracles.empirical(process, DATA[own], weights=WEIGHTS[own] / WEIGHTS[own].sum())
        belief, log = answers(alone, x, 0.2)
        for got in (mapped[0][label], mapped[2][label], answers(oracle.given(label), x, 0.2)[0]):
            np.testing.assert_allclose(got, belief, rtol=1e-12)
        np.testing.assert_allclose(mapped[1][label], log, rtol=1e-12)
    assert oracle.given(None) is oracle


def test_examples_are_drawn_by_weight(key):
    n = 20_000
    oracle = oracles.empirical(processes.vp(), jnp.arange(N), weights=WEIGHTS)
    drawn = np.bincount(np.asarray(oracle.sample(key, n)).astype(int), minlength=N) / n
    assert np.all(drawn[WEIGHTS == 0] == 0)
    assert np.all(abs(drawn - WEIGHTS) <= 5 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / n))


def test_examples_of_no_weight_are_never_drawn_from_many(key):
    """Where a sum of 100,000 weights rounds, too."""
    odd = np.arange(100_000) % 2
    oracle = oracles.empirical(processes.vp(), odd, weights=odd / odd.sum())
    assert np.all(oracle.sample(key, 200_000) == 1)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (DATA, {"weights": np.full(N - 1, 1 / (N - 1))}, r"weights of shape \(22,\), expected \(23,\)"),
        (DATA, {"weights": np.full(N, 1.0)}, "no distribution"),
        (DATA, {"weights": np.array([-1.0, 2.0] + [0.0] * (N - 2))}, "no distribution"),
        (DATA, {"weights": np.full(N, np.nan)}, "no distribution"),
        (np.where(np.arange(N)[:, None] == 4, np.nan, DATA), {}, "not all finite"),
        (np.where(np.arange(N)[:, None] == 4, np.inf, DATA), {}, "not all finite"),
        (DATA, {"chunk": 0}, "at least 1 example at a time"),
        (DATA, {"labels": LABELS[:5]}, r"labels int\d+ of shape \(5,\), expected integers of shape \(23,\)"),
        (DATA, {"labels": LABELS * 1.0}, "expected integers"),
        (np.zeros((0, 2)), {"chunk": 3}, "at least one example"),
    ],
)
def test_mistakes_in_examples(data, options, words):
    with pytest.raises(InputError, match=words):
        oracles.empirical(processes.vp(), data, **options)


def test_mistakes_in_questions():
    oracle = oracles.empirical(processes.vp(), DATA, labels=LABELS)
    with pytest.raises(InputError, match=r"x of shape \(1,\) for examples of shape \(3,\)"):
        oracle.denoise(jnp.zeros(1), 0.3)  # would broadcast
    with pytest.raises(InputError, match="no example has the label 3"):
        oracle.given(3)
    with pytest.raises(InputError, match="no example has the label 0, or any weight"):
        oracles.empirical(processes.vp(), np.eye(3), weights=[0, 0.5, 0.5], labels=[0, 1, 1]).given(0)
    with pytest.raises(InputError, match="without labels"):
        oracles.empirical(processes.vp(), DATA).given(0)
