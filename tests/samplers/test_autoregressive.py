"""Autoregressive draws have the law of the model, and `log_prob` is its logarithm: on Markov chains, whose every
sequence is counted."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.errors import InputError
from jaxdiff.samplers import autoregressive

BOS = 3
MOVES = jnp.log(
    jnp.asarray([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.8, 0.0], [0.25, 0.7, 0.05, 0.0], [0.2, 0.3, 0.5, 0.0]], jnp.float32)
)
COUNT = 10_000


def step(moves, token, cache):
    """The cache counts the tokens that were read, and every third changes the law: it must be carried."""
    read = cache + 1
    return jnp.where(read % 3 == 0, moves[token][::-1], moves[token]) + 0.7, read


def make(moves=MOVES):
    return jax.tree_util.Partial(step, moves)


def apply(inputs):
    """The same model, in one pass."""
    return jax.vmap(lambda token, read: step(MOVES, token, read)[0])(inputs, jnp.arange(len(inputs), dtype=jnp.int32))


@functools.cache
def logits_after(token, place):
    return np.asarray(step(MOVES, token, place)[0])


def law(start, length, row=lambda logits: logits, stop=None):
    """{sequence: probability}, by counting."""
    found = {}
    for tokens in itertools.product(range(4), repeat=length):
        p, read, over = 1.0, [*start, *tokens], False
        for i, token in enumerate(tokens):
            if over:
                p *= token == stop
                continue
            place = len(start) - 1 + i
            logits = np.asarray(row(logits_after(read[place], place)), np.float64)
            p *= np.exp(logits[token]) / np.exp(logits).sum()
            over = token == stop
        found[tokens] = p
    return found


def p_value(drawn, law):
    counts = dict.fromkeys(law, 0)
    for tokens in map(tuple, np.asarray(drawn).tolist()):
        counts[tokens] += 1
    assert all(counts[tokens] == 0 for tokens, p in law.items() if p == 0)
    expected = {tokens: COUNT * p for tokens, p in law.items()}
    large = [tokens for tokens in law if expected[tokens] >= 5]
    rest = COUNT - sum(expected[tokens] for tokens in large)
    observed = [counts[tokens] for tokens in large]
    if rest > 1e-3:
        return stats.chisquare([*observed, COUNT - sum(observed)], [*(expected[t] for t in large), rest]).pvalue
    return stats.chisquare(observed, [expected[t] for t in large], sum_check=False).pvalue


CASES = {
    "prompt": ({}, (BOS, 1, 2), {}),
    "top_k": (
        {"logits_filter": autoregressive.top_k(2)},
        (BOS,),
        {"row": lambda logits: np.where(logits >= np.sort(logits)[-2], logits, -np.inf)},
    ),
    "stop": ({"stop": 1}, (BOS,), {"stop": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_law_of_the_model(name, key):
    options, start, changed = CASES[name]

    @jax.jit
    def many(keys):
        return jax.vmap(lambda k: autoregressive.generate(k, make(), jnp.asarray(0), jnp.asarray(start), 4, **options))(
            keys
        )

    drawn = many(jax.random.split(key, COUNT))
    assert drawn.shape == (COUNT, 4)
    assert drawn.dtype == jnp.int32
    exact = law(start, 4, **changed)
    assert sum(exact.values()) == pytest.approx(1, abs=1e-6)
    assert p_value(drawn, exact) > 1e-6


@pytest.mark.parametrize(("start", "stop"), [((BOS, 1, 2), None), ((BOS,), 1)])
def test_the_likelihood_is_the_law(start, stop, x64):
    exact = law(start, 3, stop=stop)
    tokens = jnp.asarray(list(exact), jnp.int32)
    logs = jax.jit(jax.vmap(lambda x: autoregressive.log_prob(apply, x, jnp.asarray(start), stop=stop)))(tokens)
    got = np.exp(np.asarray(logs))
    if stop is not None:  # of what `generate` can write
        stops = np.asarray(tokens == stop, int)
        after = np.cumsum(stops, 1) > stops
        got = np.where((after & (tokens != stop)).any(1), 0, got)
    np.testing.assert_allclose(got, list(exact.values()), atol=1e-6)
    assert got.sum() == pytest.approx(1, abs=1e-6)


def test_filters():
    logits = jnp.asarray([1.0, 3.0, 2.0, 2.0])
    assert autoregressive.top_k(1)(logits).tolist() == [-np.inf, 3, -np.inf, -np.inf]
    assert autoregressive.top_k(2)(logits).tolist() == [-np.inf, 3, 2, 2]  # a tie stays
    assert (autoregressive.top_k(4)(logits) == logits).all()
    np.testing.assert_allclose(autoregressive.temperature(2.0)(logits), logits / 2)


def test_nothing_retraces_and_the_program_does_not_grow(key):
    traces = []

    def counting(moves, token, cache):
        traces.append(1)
        return step(moves, token, cache)

    def run(v, length=16):
        sharper = autoregressive.temperature(v)
        return autoregressive.generate(
            key, jax.tree_util.Partial(counting, v * MOVES), jnp.asarray(0), BOS, length, logits_filter=sharper
        )

    def size_of(*args):  # of the program, which is traced and not compiled
        return str(jax.make_jaxpr(lambda: run(*args))()).count("\n")

    few = size_of(0.5)
    once = len(traces)
    size_of(0.7)
    assert len(traces) == once > 0
    assert few == size_of(0.5, 256) > 5


def test_mistakes(key):
    for start in (jnp.zeros(0, jnp.int32), jnp.zeros((2, 2), jnp.int32), jnp.asarray(0.5)):
        with pytest.raises(InputError, match="expected one token or a row of at least one"):
            autoregressive.generate(key, make(), 0, start, 4)
    with pytest.raises(InputError, match="length=0"):
        autoregressive.generate(key, make(), 0, BOS, 0)
    with pytest.raises(InputError, match="above 0"):
        autoregressive.temperature(0.0)
    with pytest.raises(InputError, match="k=0"):
        autoregressive.top_k(0)
    with pytest.raises(InputError, match="k=9 of 4 tokens"):
        autoregressive.top_k(9)(jnp.zeros(4))
    with pytest.raises(InputError, match="one row after each token"):
        autoregressive.log_prob(lambda x: jnp.zeros((1, 4)), jnp.zeros(3, jnp.int32), BOS)
