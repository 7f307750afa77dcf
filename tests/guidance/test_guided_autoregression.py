"""Guidance of autoregressive models, on Markov chains of two states with labels: every law by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_toys import Counted

from jaxdiff import guidance, oracles
from jaxdiff.errors import InputError
from jaxdiff.numerics import partial
from jaxdiff.samplers import autoregressive

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


LENGTH = 5
SEQUENCES = np.stack(np.unravel_index(np.arange(2**LENGTH), (2,) * LENGTH), -1).astype(np.int32)
BOS = 2
"""What is read first; the chain knows nothing of it."""


def joint():
    """p(x, y) of two chains, told apart by how long they stay, (2,) * LENGTH + (2,)."""
    chains = [([0.7, 0.3], [[0.8, 0.2], [0.3, 0.7]]), ([0.4, 0.6], [[0.25, 0.75], [0.55, 0.45]])]
    laws = []
    for weight, (first, moves) in zip((0.35, 0.65), chains, strict=True):
        p = weight * np.array(first)
        for _ in range(LENGTH - 1):
            p = p[..., None] * np.array(moves)
        laws.append(p)
    return np.stack(laws, -1)


GIVEN, ALL = joint()[..., 0] / 0.35, joint().sum(-1)
SHARE = joint()[..., 0] / ALL
"""p(y = 0 | x)."""


def beginnings(p):
    """The probability of each beginning of a sequence by its number: 1 is none, 2 n + v is n and the token v."""
    sums = [p.sum(tuple(range(n, LENGTH))).reshape(-1) for n in range(LENGTH + 1)]
    return np.concatenate([[0], *sums])


def model(p):
    """The exact step of a law; its cache is the number of what it has read, at first 0, which bos makes 1."""
    all_, n = beginnings(p), np.arange(2**LENGTH)
    after = np.stack([all_[2 * n], all_[2 * n + 1]], -1)
    after[0] = 1
    return partial(_next, jnp.log(jnp.asarray(after / after.sum(-1, keepdims=True))))


def judge():
    """log p(y = 0 | tokens so far), exactly."""
    share = beginnings(GIVEN * 0.35)[1:] / beginnings(ALL)[1:]
    return partial(_told, jnp.log(jnp.asarray(np.append(1, share))))


def _next(table, token, n):
    n = jnp.where(n == 0, 1, 2 * n + token)
    return table[n], n


def _told(table, token, n):
    n = jnp.where(n == 0, 1, 2 * n + token)
    return table[n], n


@jax.jit
def log_law(step, cache):
    def log_p(x):
        def one(cache, pair):
            logits, cache = step(pair[0], cache)
            return cache, jax.nn.log_softmax(logits)[pair[1]]

        before = jnp.concatenate([jnp.array([BOS], x.dtype), x[:-1]])
        return jnp.sum(jax.lax.scan(one, cache, (before, x))[1])

    return jax.vmap(log_p)(jnp.asarray(SEQUENCES))


def law(step, cache):
    """p(x) of all sequences by the chain rule, (2,) * LENGTH."""
    return np.exp(np.asarray(log_law(partial(step), cache))).reshape((2,) * LENGTH)


def fresh():
    return jnp.int32(0)


def both():
    return fresh(), fresh()


def apart(p, q):
    return 0.5 * np.abs(p - q).sum()


def test_the_toy_is_what_the_oracle_says(x64):
    assert apart(law(model(ALL), fresh()), ALL) < 1e-12
    chains = [oracles.chain([0.7, 0.3], [[0.8, 0.2], [0.3, 0.7]], LENGTH)]
    chains += [oracles.chain([0.4, 0.6], [[0.25, 0.75], [0.55, 0.45]], LENGTH)]
    oracle = oracles.labelled(np.log([0.35, 0.65]), chains)
    x = jnp.array([0, 1, 1, 0, 1])
    label, after = jax.jit(lambda x: (oracle.log_labels(x, 3)[0], oracle.unlabelled.log_next(x, 3)))(x)
    np.testing.assert_allclose(label, judge()(1, 5)[0], rtol=1e-10)  # 0, 1, 1 is number 11 = 2 * 5 + 1
    np.testing.assert_allclose(after, model(ALL)(1, 5)[0], rtol=1e-10)
    assert apart(GIVEN, ALL) > 0.2  # guidance has something to do


def test_fudge_at_gamma_1_is_exact(x64):
    for chunk in (1, 256):
        assert apart(law(guidance.fudge(model(ALL), judge(), 1.0, chunk=chunk), both()), GIVEN) < 1e-12
    traced = jax.jit(lambda gamma: guidance.fudge(model(ALL), judge(), gamma)(BOS, both())[0])
    np.testing.assert_allclose(traced(1.0), model(GIVEN)(BOS, fresh())[0], rtol=1e-12)


def test_fudge_in_float32_is_exact_to_its_rounding():
    assert apart(law(guidance.fudge(model(ALL), judge(), 1.0), both()), GIVEN) < 1e-6


def test_fudge_weighs_each_token_by_the_judge(x64):
    for gamma in (-1.0, 0.0, 0.5, 3.0):
        got = law(guidance.fudge(model(ALL), judge(), gamma), both())
        expected = np.ones_like(ALL)
        for n in range(LENGTH):
            over = tuple(range(n + 1, LENGTH))
            begun = ALL.sum(over)
            after = begun * (joint()[..., 0].sum(over) / begun) ** gamma
            after = after / after.sum(-1, keepdims=True)
            expected = expected * after.reshape(after.shape + (1,) * (LENGTH - 1 - n))
        assert apart(got, expected) < 1e-12
    # gamma = 2 sharpens token by token, and so is not p(x) p(y | x)^2
    whole = ALL * SHARE**2
    bias = apart(law(guidance.fudge(model(ALL), judge(), 2.0), both()), whole / whole.sum())
    assert abs(bias - 0.108) < 5e-4


def test_fudge_keeps_the_k_likeliest():
    step = lambda token, cache: (jnp.array([0.1, 3.0, -1.0, 2.0]), cache + 1)  # noqa: E731
    told = lambda token, state: (jnp.log(jnp.array([0.9, 0.2, 0.9, 0.4]))[token], state + token)  # noqa: E731
    logits, cache = guidance.fudge(step, told, 1.0, k=2)(1, (0, 10))
    weights = np.array([0, np.exp(3) * 0.2, 0, np.exp(2) * 0.4])
    np.testing.assert_allclose(np.exp(logits), weights / weights.sum(), rtol=1e-6)
    assert cache == (1, 11)  # the judge has read the token, and no candidate
    greedy, _ = guidance.fudge(step, told, 5.0, k=1)(1, (0, 10))
    np.testing.assert_array_equal(np.exp(greedy), [0, 1, 0, 0])


def test_fudge_at_gamma_0_asks_nothing_and_is_the_model():
    step = lambda token, cache: (jnp.array([0.1, 3.0, -1.0]), cache)  # noqa: E731
    counted = Counted(lambda token, state: (jnp.float32(-1.0), state))
    logits, _ = guidance.fudge(step, counted, 0.0)(1, (0, 0))
    jax.effects_barrier()
    assert counted.calls == 0
    np.testing.assert_allclose(logits, jax.nn.log_softmax(step(1, 0)[0]), rtol=1e-6)
    traced = jax.jit(lambda gamma: guidance.fudge(step, counted, gamma)(1, (0, 0))[0])(0.0)
    np.testing.assert_allclose(traced, logits, rtol=1e-6)


def test_fudge_with_a_judge_of_impossible_tokens():
    step = lambda token, cache: (jnp.array([0.1, 3.0, -1.0]), cache)  # noqa: E731
    for said, expected in (([0.0, -np.inf, 0.0], [0.1, -np.inf, -1.0]), ([-np.inf] * 3, [0.1, 3.0, -1.0])):
        told = lambda token, state, said=said: (jnp.array(said)[token], state)  # noqa: E731
        logits, _ = guidance.fudge(step, told, 2.0)(1, (0, 0))
        np.testing.assert_allclose(np.exp(logits), jax.nn.softmax(jnp.array(expected)), rtol=1e-6)


def test_tempered_steps_are_tempered_token_by_token(x64):
    steps = model(GIVEN), model(ALL)
    for gamma, p in ((1.0, GIVEN), (0.0, ALL)):
        assert apart(law(guidance.tempered_step(*steps, gamma), both()), p) < 1e-12
    logits, _ = guidance.tempered_step(*steps, 2.5)(BOS, both())
    c, u = (p.reshape(2, -1).sum(1) for p in (GIVEN, ALL))
    np.testing.assert_allclose(np.exp(logits), c**2.5 * u**-1.5 / (c**2.5 * u**-1.5).sum(), rtol=1e-12)


@pytest.mark.parametrize(("gamma", "calls"), [(1, (1, 0)), (0.0, (0, 1)), (2.0, (1, 1))])
def test_a_known_gamma_of_1_or_0_calls_one_model_and_keeps_both_caches(gamma, calls):
    one, two = (Counted(lambda token, cache, v=v: (jnp.array([v, 0.0]), cache + v)) for v in (1.0, 2.0))
    logits, cache = jax.jit(lambda: guidance.tempered_step(one, two, gamma)(0, (jnp.zeros(()), jnp.zeros(()))))()
    jax.effects_barrier()
    assert (one.calls, two.calls) == calls
    assert cache == (calls[0] * 1.0, calls[1] * 2.0)
    np.testing.assert_allclose(logits[0] - logits[1], 2 - gamma, rtol=1e-6, atol=1e-6)


def test_guided_steps_generate(key):
    step = guidance.fudge(model(ALL), judge(), 4.0)
    generate = lambda key: autoregressive.generate(key, step, both(), BOS, LENGTH)  # noqa: E731
    drawn = jax.jit(jax.vmap(generate))(jax.random.split(key, 2000))
    counts = np.zeros((2,) * LENGTH)
    np.add.at(counts, tuple(np.asarray(drawn).T), 1)
    expected = 2000 * law(step, both())
    excess = ((counts - expected) ** 2 / expected).sum()
    assert abs(excess - 31) < 5 * np.sqrt(2 * 31)  # chi squared of 31 degrees


# The plug-and-play toy: the hidden state is the model's logits, and the classifier reads the mean odds of the classes
# under their law, linear in it; where the law is sure of a token it is log p(y = 0 | tokens so far, that token).


def linear_classifier(table, h, n):
    odds = table[2 * n + jnp.arange(2, dtype=n.dtype)]
    return jax.nn.log_sigmoid(jnp.sum(jax.nn.softmax(h) * odds))


def same(h):
    return h


def moved(**options):
    log_y = judge().args[0]
    log_prob = partial(linear_classifier, log_y - jnp.log1p(-jnp.exp(log_y)))
    return law(guidance.pplm(model(ALL), same, log_prob, **options), fresh())


def kl(p, q):
    return np.sum(p * np.log(p / q))


def test_pplm_raises_the_class_with_every_step_and_size(x64):
    start = (ALL * SHARE).sum()
    np.testing.assert_allclose(start, 0.35, rtol=1e-10)
    by_size = [moved(steps=2, step_size=size) for size in (0.05, 0.2, 0.8)]
    by_steps = [moved(steps=n, step_size=0.1) for n in (1, 4, 16)]
    for runs in (by_size, by_steps):
        shares = [start, *((q * SHARE).sum() for q in runs)]
        assert np.all(np.diff(shares) > 0.005), shares
        moves = [kl(ALL, q) for q in runs]
        assert np.all(np.diff(moves) > 0)
    assert (by_steps[-1] * SHARE).sum() > 0.55
    assert kl(ALL, by_size[0]) < 0.02


def test_pplm_stays_near_for_strength_and_fusion(x64):
    base = {"steps": 8, "step_size": 0.2}
    near = [moved(**base, strength=strength) for strength in (0.0, 1.0, 10.0)]
    assert kl(ALL, near[0]) > 2 * kl(ALL, near[1]) > 4 * kl(ALL, near[2])
    mixed = [moved(**base, fusion=fusion) for fusion in (0.0, 0.5, 1.0)]
    assert apart(mixed[0], ALL) < 1e-12
    shares = [(q * SHARE).sum() for q in mixed]
    assert shares[0] < shares[1] < shares[2]


def test_pplm_goes_a_step_along_the_normalised_gradient(x64):
    """On log p(y | h) = w . h without KL, delta is steps * step_size * w / |w|, over all leaves."""
    w = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    state = {"a": jnp.zeros(2), "b": jnp.zeros((1, 1)), "token": jnp.int32(3)}
    head = lambda h: jnp.concatenate([h["a"], h["b"][0], h["token"][None].astype(float) * 0])  # noqa: E731
    gain = lambda h, cache: jnp.sum(w["a"] * h["a"]) + jnp.sum(w["b"] * h["b"]) + cache  # noqa: E731
    step = guidance.pplm(lambda token, cache: (state, cache), head, gain, steps=5, step_size=0.1, strength=0.0)
    logits, cache = step(1, 7.0)
    assert cache == 7.0
    np.testing.assert_allclose(logits - logits[-1], [0.3, 0, 0.4, 0], rtol=1e-12, atol=1e-12)


def test_pplm_without_a_step_is_the_model_bit_for_bit(key):
    logits = jax.random.normal(key, (7,))
    guided = guidance.pplm(lambda token, cache: (logits, cache), jnp.tanh, lambda h, cache: jnp.sum(h), steps=0)
    np.testing.assert_array_equal(guided(1, ())[0], jnp.tanh(logits))


def test_pplm_with_nothing_to_climb_stays(key):
    logits = jax.random.normal(key, (7,))
    guided = guidance.pplm(lambda token, cache: (logits, cache), lambda h: h, lambda h, cache: jnp.zeros(()))
    np.testing.assert_allclose(guided(1, ())[0], jax.nn.log_softmax(logits), rtol=1e-5, atol=1e-6)


def test_guidance_made_anew_compiles_nothing():
    traces = 0

    @jax.jit
    def call(step, cache):
        nonlocal traces
        traces += 1
        return step(0, cache)

    step = lambda token, cache: (jnp.array([0.1, 0.2]), cache)  # noqa: E731
    told = lambda token, state: (jnp.float32(-1.0), state)  # noqa: E731
    free = lambda h, cache: jnp.sum(h)  # noqa: E731
    for gamma in (1.5, 2.5):
        call(guidance.tempered_step(guidance.fudge(step, told, gamma), step, gamma), ((0, 0), 0))
        call(guidance.pplm(step, jnp.tanh, free, step_size=gamma), 0)
    assert traces == 2


def test_mistakes():
    step = lambda token, cache: (jnp.zeros(3), cache)  # noqa: E731
    told = lambda token, state: (jnp.zeros(()), state)  # noqa: E731
    for guided in (guidance.fudge, guidance.tempered_step):
        with pytest.raises(InputError, match="gamma=nan, expected a finite number"):
            guided(step, told, np.nan)
    with pytest.raises(InputError, match="k=0, expected at least 1"):
        guidance.fudge(step, told, 1.0, k=0)
    with pytest.raises(InputError, match="chunk=0, expected at least 1"):
        guidance.fudge(step, told, 1.0, chunk=0)
    with pytest.raises(InputError, match="k=4, expected at most the 3 tokens"):
        guidance.fudge(step, told, 1.0, k=4)(0, ((), ()))
    for options, message in (
        ({"steps": -1}, "steps=-1, expected 0 or more"),
        ({"step_size": -0.1}, "step_size=-0.1"),
        ({"strength": np.inf}, "strength=inf"),
        ({"fusion": np.nan}, "fusion=nan"),
    ):
        with pytest.raises(InputError, match=f"pplm got {message}"):
            guidance.pplm(step, lambda h: h, lambda h, cache: 0.0, **options)
