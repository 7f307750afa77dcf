"""Classifier-based guidance of tokens: Bayes by enumeration, exact laws of samplers, and when first order is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_toys import (
    Counted,
    brute_classifier,
    brute_step,
    class_0,
    denoisers,
    distances,
    given,
    laws,
    two_tokens,
)

from jaxdiff import guidance, processes
from jaxdiff.errors import InputError
from jaxdiff.samplers.categorical import ancestral

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


T, S = 0.7, 0.4


def flat(denoise, z, t, s, states=5):
    """A kernel that knows nothing."""
    return jnp.full((*z.shape, states), -np.log(states), getattr(t, "dtype", float))


def linear(key, places, states, size=1.0, dtype=jnp.float32):
    """Weights (classes, places, states) of a classifier that is linear in one-hots."""
    return size * jax.random.normal(key, (3, places, states), dtype)


def affine(weights):
    return jax.tree_util.Partial(lambda w, x, t: jnp.sum(w[0] * x) - 2.0, weights)


def softmax_linear(weights, label=0):
    classify = jax.tree_util.Partial(lambda w, x, t: jnp.sum(w * x, (1, 2)), weights)
    return guidance.log_prob_of(classify, label)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("when", ["t", "s"])
def test_a_step_is_bayes_with_every_candidate(masked, when, x64):
    law = two_tokens()
    process = processes.absorbing(3) if masked else processes.uniform(3)
    _, null = denoisers(process, law)

    @jax.jit
    def step(gamma, z):
        kernel = guidance.classifier_based(
            ancestral(process), class_0(process, law), gamma, classifier_time=when, chunk=3
        )
        return kernel(null, z, T, S)

    for gamma in (-1.0, 0.0, 1.0, 2.5):
        for z in ((0, 2), (process.states - 1, 1), (process.states - 1, process.states - 1)):
            expected = brute_step(law, z, T, S, masked).sum(-1)
            for place, state in np.ndindex(*expected.shape):
                moved = tuple(state if i == place else v for i, v in enumerate(z))
                at = {"t": T, "s": S}[when]
                if expected[place, state] > 0:
                    expected[place, state] *= brute_classifier(law, moved, at, masked)[0] ** gamma
            got = np.exp(step(gamma, jnp.array(z)))
            np.testing.assert_allclose(got, expected / expected.sum(-1, keepdims=True), rtol=1e-10)
            if masked:  # what is shown stays
                for place, token in enumerate(z):
                    assert token == 3 or got[place, token] == 1


@pytest.mark.parametrize(
    ("when", "figures"), [("t", (0.0803, 0.0218, 0.0056, 0.0014)), ("s", (0.0304, 0.0083, 0.0021, 0.0005))]
)
def test_at_gamma_1_the_law_tends_to_that_of_the_label(when, figures, x64):
    law, process = two_tokens(), processes.uniform(3)
    _, null = denoisers(process, law)
    kernel = guidance.classifier_based(ancestral(process), class_0(process, law), 1.0, classifier_time=when)
    found = distances(kernel, null, process, law, (8, 32, 128, 512), given(law))
    np.testing.assert_allclose(found, figures, rtol=0, atol=6e-5)


def test_absorbed_tokens_are_shown_faster_or_slower(x64):
    """Unlike under tempered_belief: where the label is likelier with the token shown, it is shown more often."""
    law, process = two_tokens(), processes.absorbing(3)
    _, null = denoisers(process, law)
    kernel = guidance.classifier_based(ancestral(process), class_0(process, law), 2.0)
    stays = np.exp(jax.jit(lambda z: kernel(null, z, 0.8, 0.6))(jnp.array([3, 1])))[0, 3]
    assert abs(stays - 0.75) > 0.01


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-9)])
def test_first_order_is_exact_for_what_is_affine_in_one_hots(dtype, tolerance, key, x64):
    log_prob, z = affine(linear(key, 4, 5, 1.0, dtype)), jnp.array([0, 4, 2, 2])
    kernels = [guidance.classifier_based(flat, log_prob, 1.5, method=method) for method in ("exact", "first_order")]
    both = jax.jit(lambda z, t, s: [jnp.exp(kernel(None, z, t, s)) for kernel in kernels])(z, dtype(T), dtype(S))
    np.testing.assert_allclose(both[1], both[0], rtol=0, atol=tolerance)
    assert abs(both[0] - 0.2).max() > 0.1
    assert both[1].dtype == dtype


def test_first_order_errs_by_the_square_of_a_softmax_classifiers_weights(key, x64):
    """And by .2 in probability where they are N(0, 1)."""
    weights, z = linear(key, 4, 5, 1.0, jnp.float64), jnp.array([0, 4, 2, 2])

    @jax.jit
    def error(size):
        log_prob = softmax_linear(size * weights)
        exact, first = (
            guidance.classifier_based(flat, log_prob, 1.5, method=method)(None, z, T, S)
            for method in ("exact", "first_order")
        )
        return jnp.abs(jnp.exp(exact) - jnp.exp(first)).max()

    errors = [float(error(size)) for size in (0.02, 0.01, 0.005)]
    np.testing.assert_allclose(np.log2(errors[:-1] / np.array(errors[1:])), 2, atol=0.05)
    assert 0.05 < error(1.0) < 0.5


def test_first_order_asks_once_and_exactly_chunk_by_chunk():
    weights = jnp.arange(15.0).reshape(1, 3, 5) / 10
    counted, z = Counted(lambda x, t: jnp.sum(weights * x)), jnp.array([0, 4, 2])
    for method, calls in (("first_order", 1), ("exact", 4)):
        counted.calls = 0
        kernel = guidance.classifier_based(flat, counted, 1.0, method=method, chunk=4)
        jax.block_until_ready(jax.jit(lambda z, kernel=kernel: kernel(None, z, T, S))(z))
        jax.effects_barrier()
        assert counted.calls == calls


def test_chunks_change_nothing_but_memory(key):
    process, states = processes.uniform(8), 8
    z = jax.random.randint(key, (32,), 0, states)
    wide = jax.random.normal(key, (states, 64))

    def program(chunk):
        log_prob = lambda x, t: jnp.sum(jnp.tanh(x @ wide)) * 0.01 + x[0, 0] * x[1, 1]  # noqa: E731
        kernel = guidance.classifier_based(lambda d, z, t, s: flat(d, z, t, s, states), log_prob, 1.0, chunk=chunk)
        return jax.jit(lambda z: kernel(None, z, T, S)).lower(z).compile()

    few, many = program(4), program(256)
    np.testing.assert_allclose(few(z), many(z), rtol=1e-5)
    np.testing.assert_allclose(program(3)(z), many(z), rtol=1e-5)  # no divisor of the 256 candidates
    assert few.memory_analysis().temp_size_in_bytes < 0.2 * many.memory_analysis().temp_size_in_bytes
    assert process.states == states


def test_padding_is_left_to_the_kernel(key):
    mask, z = jnp.array([True, False, True]), jnp.array([0, 4, 2])
    log_prob = affine(linear(key, 3, 5))
    guided = guidance.classifier_based(flat, log_prob, 2.0)(None, z, T, S)
    held = guidance.classifier_based(flat, log_prob, 2.0, mask=mask)(None, z, T, S)
    np.testing.assert_array_equal(held[1], flat(None, z, T, S)[1])
    np.testing.assert_array_equal(held[::2], guided[::2])
    assert abs(guided[1] - held[1]).max() > 0.1


def test_what_the_classifier_holds_impossible_is_not_drawn(x64):
    never = lambda x, t: jnp.where(x[0, 1] > 0, -jnp.inf, 0.0)  # noqa: E731
    guided = jax.jit(lambda gamma: guidance.classifier_based(flat, never, gamma)(None, jnp.array([0, 0]), T, S))
    for gamma in (-1.0, 0.5, 2.0):
        np.testing.assert_allclose(np.exp(guided(gamma)), [[0.25, 0, 0.25, 0.25, 0.25], [0.2] * 5], rtol=1e-12)
    np.testing.assert_allclose(np.exp(guided(0.0)), 0.2, rtol=1e-12)
    nowhere = lambda x, t: -jnp.inf + 0 * x[0, 0]  # noqa: E731
    got = guidance.classifier_based(flat, nowhere, 1.0)(None, jnp.array([0, 0]), T, S)
    np.testing.assert_allclose(np.exp(got), 0.2)


def test_gamma_0_is_the_kernel_and_asks_nothing(key):
    counted, z = Counted(affine(linear(key, 2, 5))), jnp.array([0, 3])
    kernel = guidance.classifier_based(flat, counted, 0.0)
    np.testing.assert_array_equal(kernel(None, z, T, S), flat(None, z, T, S))
    jax.effects_barrier()
    assert counted.calls == 0
    traced = jax.jit(lambda gamma: guidance.classifier_based(flat, counted, gamma)(None, z, T, S))(0.0)
    np.testing.assert_allclose(traced, flat(None, z, T, S), rtol=1e-6)


def test_every_state_space_is_guided_to_the_last_step():
    law = two_tokens().astype(np.float32)
    for make in (processes.absorbing, processes.hybrid):
        process = make(3)
        _, null = denoisers(process, law)
        kernel = guidance.classifier_based(ancestral(process), class_0(process, law), 1.5, classifier_time="s")
        (found,) = laws(kernel, null, process, 2, (16,))
        assert not np.isnan(found).any()
        assert abs(found[:3, :3].sum() - 1) < 1e-4  # no mask is left


def test_a_label_is_read_off_the_log_softmax(key):
    weights, x = linear(key, 2, 5), jax.nn.one_hot(jnp.array([1, 4]), 5)
    logits = jnp.sum(weights * x, (1, 2))
    probs = [np.exp(softmax_linear(weights, label)(x, T)) for label in range(3)]
    np.testing.assert_allclose(probs, jax.nn.softmax(logits), rtol=1e-6)
    np.testing.assert_allclose(np.exp(softmax_linear(weights, jnp.array(2))(x, T)), probs[2], rtol=1e-6)


def test_guidance_made_anew_compiles_nothing(key):
    traces = 0

    @jax.jit
    def call(kernel, z):
        nonlocal traces
        traces += 1
        return kernel(None, z, T, S)

    weights, classify = linear(key, 2, 5), lambda w, x, t: jnp.sum(w * x, (1, 2))
    for gamma, label in ((1.0, 0), (2.0, 2)):
        log_prob = guidance.log_prob_of(jax.tree_util.Partial(classify, gamma * weights), label)
        call(guidance.classifier_based(flat, log_prob, gamma), jnp.array([0, 1]))
    assert traces == 1


def test_mistakes_in_classifiers(key):
    z, weights = jnp.array([0, 3]), linear(key, 2, 4)
    for other in (softmax_linear(weights), affine(weights)):  # of 4 states, where the kernel has 5
        with pytest.raises(InputError, match=r"does not read one-hots of shape \(2, 5\).*is it of another vocabulary"):
            guidance.classifier_based(flat, other, 1.0)(None, z, T, S)
    whole = jax.tree_util.Partial(lambda w, x, t: jnp.sum(w * x, (1, 2)), linear(key, 2, 5))
    with pytest.raises(InputError, match=r"returned \(3,\) for one example.*guidance\.log_prob_of"):
        guidance.classifier_based(flat, whole, 1.0)(None, z, T, S)
    for label in (3, 7):
        with pytest.raises(InputError, match=rf"a label is {label}, expected one of the 3 classes, 0 to 2"):
            guidance.classifier_based(flat, guidance.log_prob_of(whole, label), 1.0)(None, z, T, S)
    for label in (-1, 1.0, jnp.array([1])):
        with pytest.raises(InputError, match="expected one whole number from 0 on"):
            guidance.log_prob_of(whole, label)
    # A traced label that there is not has no probability: NaN, never that of another class.
    assert jnp.isnan(jax.jit(lambda y: guidance.log_prob_of(whole, y)(jnp.zeros((2, 5)), T))(5))
    with pytest.raises(InputError, match=r"returned shape \(\), expected \(classes,\)"):
        guidance.log_prob_of(lambda x, t: jnp.sum(x), 0)(jnp.zeros((2, 5)), T)


def test_mistakes_in_options(key):
    log_prob = affine(linear(key, 2, 5))
    for options, message in (
        ({"method": "second_order"}, "method='second_order', expected 'exact' or 'first_order'"),
        ({"classifier_time": "0"}, "classifier_time='0', expected 't' or 's'"),
        ({"chunk": 0}, "chunk=0, expected at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            guidance.classifier_based(flat, log_prob, 1.0, **options)
    with pytest.raises(InputError, match="gamma=nan, expected a finite number"):
        guidance.classifier_based(flat, log_prob, np.nan)
    process = processes.uniform(3)
    with pytest.raises(InputError, match="a classifier of whole numbers, which has no gradient"):
        guidance.classifier_based(ancestral(process), class_0(process, two_tokens()), 1.0, method="first_order")
