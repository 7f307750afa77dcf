"""Drawn tokens have the exact law of their sampler, by chi-squared against matrices; and rare tokens the right
frequency in float32, by the share of all random words that draw them: a generator that gives back the words in its key
makes every draw a function of them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl
from toys import LAW, ORACLE, PROCESSES, N, p_value

from jaxdiff import beliefs, oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.numerics.picks import happens
from jaxdiff.samplers import categorical

pytestmark = pytest.mark.claim(
    "each sampler's law converges at first order; draws have it, rare tokens too; the cache changes no bit"
)


TS = jnp.linspace(1.0, 0.0, 6)
COUNT = 10_000

# A draw sees the logs of a kernel alone, whose own proof is elsewhere: those with a mask and those without; x0 knows
# the process (masks together with uniform noise are in the next test).
CASES = [
    ("absorbing", "remask", beliefs.Posterior),
    ("absorbing", "x0_then_posterior", beliefs.Posterior),
    ("uniform", "ancestral", beliefs.LeaveOneOut),
    ("uniform", "x0_then_posterior", beliefs.LeaveOneOut),
    ("ctmc", "x0_then_posterior", beliefs.Score),
]


def kernel_of(kind, process):
    if kind == "remask":
        return categorical.remask(process, categorical.rescale(0.5))
    return getattr(categorical, kind)(process)


@functools.cache
def exact(name, kind, meaning):
    process = PROCESSES[name]()
    denoise = ORACLE().denoiser(process, meaning)
    return process, denoise, oracles.law(kernel_of(kind, process), denoise, process, TS, 2)


@eqx.filter_jit
def many(key, stepper, process, denoise, ts=TS):
    def one(key):
        start, walk = jax.random.split(key)
        return samplers.sample(walk, stepper, denoise, process.prior(start, (2,)), ts)

    return jax.vmap(one)(jax.random.split(key, COUNT))


@pytest.mark.parametrize(("name", "kind", "meaning"), CASES)
def test_draws_have_the_exact_law(name, kind, meaning, key):
    by_x0 = kind == "x0_then_posterior"
    process, denoise, law = exact(name, "ancestral" if by_x0 else kind, meaning)
    stepper = categorical.x0_then_posterior(process) if by_x0 else categorical.draw(kernel_of(kind, process))
    drawn = many(key, stepper, process, denoise)
    assert drawn.dtype == jnp.int32
    assert p_value(drawn, law) > 1e-6
    assert float(oracles.total_variation(law[:N, :N], jnp.asarray(LAW))) > 0.01  # of the walk, not of the data


def test_the_first_draw_of_x0_stops_at_an_intermediate_time_too(key):
    process, ts = processes.gidd(N), jnp.asarray([0.9, 0.6, 0.3])
    denoise = ORACLE().denoiser(process, beliefs.Posterior)
    law = oracles.law(categorical.ancestral(process), denoise, process, ts, 2)
    assert p_value(many(key, categorical.x0_then_posterior(process), process, denoise, ts), law) > 1e-6


def test_greedy_takes_the_likeliest(key):
    process, denoise = processes.uniform(N), ORACLE().denoiser(processes.uniform(N))
    kernel, z = categorical.ancestral(process), jnp.asarray([2, 1], jnp.int32)

    @eqx.filter_jit
    def both(kernel, denoise):
        return categorical.greedy(kernel).step(key, denoise, (), z, 0.5, 0.0)[0], kernel(denoise, z, 0.5, 0.0)

    got, logs = both(kernel, denoise)
    assert got.tolist() == np.argmax(logs, -1).tolist()


# -- rare tokens ---------------------------------------------------------------------------------------------------

WORDS = 8
BITS = 23  # of float32's uniform numbers


ECHO = define_prng_impl(
    key_shape=(WORDS,),
    seed=lambda seed: jnp.full(WORDS, seed, jnp.uint32),
    split=lambda words, shape: jnp.stack([words, jnp.roll(words, -2)]).reshape(*shape, WORDS),
    fold_in=lambda words, data: words,
    random_bits=lambda words, width, shape: words[: int(np.prod(shape))].reshape(shape),
    name="echo",
    tag="echo",
)


def of_words(words):
    """A key whose random numbers are these words (8,), and of a split, the words and the same from the third on."""
    return jax.random.wrap_key_data(words, impl=ECHO)


def fraction(m, bits):
    """The word or words whose uniform number is m / 2^bits, (..., bits / 23)."""
    return np.stack([(m >> (bits - BITS * i) & (2**BITS - 1)) << (32 - BITS) for i in range(1, bits // BITS + 1)], -1)


def share(event, cases, bits, least=True):
    """For each case the share of the 2^bits uniform numbers, the least (or greatest), at which `event` holds."""
    low, high = np.zeros(cases, np.int64), np.full(cases, 2**bits, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        at = middle if least else 2**bits - 1 - middle
        holds = np.asarray(event(fraction(at, bits)))
        low, high = np.where(holds, np.minimum(middle + 1, high), low), np.where(holds, high, middle)
    return low / 2.0**bits


@jax.jit
def event(words, log_yes, log_no):
    return jax.vmap(lambda words: happens(of_words(words), log_yes, log_no))(words)


@pytest.mark.parametrize("p", [0.3, 1e-9])
def test_a_rare_event_happens_as_often_as_it_should(p):
    log_p, log_rest = jnp.log(jnp.float32(p)), jnp.log1p(-jnp.float32(p))

    def of(yes, no):
        return lambda words: event(jnp.asarray(np.pad(words, ((0, 0), (0, WORDS - 2))), jnp.uint32), yes, no)

    assert share(of(log_p, log_rest), 1, 2 * BITS)[0] == pytest.approx(p, rel=max(2e-6, 2.0**-45 / p))
    # ... and its opposite as often less: the words on which it does not happen
    seldom = share(lambda words: ~np.asarray(of(log_rest, log_p)(words)), 1, 2 * BITS)[0]
    assert seldom == pytest.approx(p, rel=max(2e-6, 2.0**-45 / p))


def strata(n):
    """The middles of n equal parts of (0, 1), as words for one uniform number."""
    return fraction(((np.arange(n) + 0.5) / n * 2**BITS).astype(np.int64), BITS)[:, 0]


@pytest.mark.parametrize("p", [1e-3, 1e-9])
def test_a_rare_token_is_picked_as_often_as_it_should(p):
    """Two tokens race; given the other's time e, the rare one wins where its own is below e p / (1 - p)."""
    logs = jnp.log(jnp.asarray([1 - p, p], jnp.float32))
    n = 20
    others = strata(n)

    def wins(words):
        four = np.stack([others, words[:, 0], np.zeros(n, np.int64), words[:, 1]], -1)  # high words, then low
        return draw(jnp.asarray(np.pad(four, ((0, 0), (0, WORDS - 4))), jnp.uint32)) == 1

    draw = jax.jit(jax.vmap(lambda words: categorical.pick(of_words(words), logs)))
    e = -np.log1p(-(np.arange(n) + 0.5) / n)
    np.testing.assert_allclose(share(wins, n, 2 * BITS), -np.expm1(-e * p / (1 - p)), rtol=2e-6, atol=2**-45)


def test_a_thousand_steps_draw_a_rare_token_as_often_as_it_is_and_plain_draws_do_not():
    """An absorbing walk of 1,000 steps on tokens of probability 3e-5. In a step from t = k / 1,000 a masked token turns
    into the rare one with probability 3e-5 / k: summed over all steps, times the share that is still masked, 3e-5."""
    rare, mask = 3e-5, 2
    kernel = categorical.ancestral(processes.absorbing(2))
    belief = beliefs.LeaveOneOut(jnp.log(jnp.asarray([1 - rare, rare])))
    ks = np.asarray([1000, 900, 700, 500, 300, 200, 100, 50, 20, 10, 5, 2])
    law = jax.jit(jax.vmap(lambda t, s: kernel(lambda z, t: belief, jnp.asarray(mask), t, s)))
    logs = law(*(jnp.asarray(k / 1000, jnp.float32) for k in (ks, ks - 1)))
    n = 8
    grid = np.stack(np.meshgrid(strata(n), strata(n), indexing="ij"), -1).reshape(-1, 2)
    cases = len(ks) * len(grid)
    each, first, other = np.repeat(logs, len(grid), 0), *np.tile(grid, (len(ks), 1)).T
    zero = np.zeros(cases, np.int64)

    # Ours: the share of words by which the token leaves, times that by which it then goes to the rare one.
    ours = jax.jit(jax.vmap(lambda logs, words: categorical.move(of_words(words), logs, jnp.asarray(mask, jnp.int32))))

    def leaves(words):
        return ours(each, jnp.asarray(np.concatenate([words, np.zeros((cases, 6), np.int64)], -1), jnp.uint32)) != mask

    def goes(words):
        six = np.stack([first, words[:, 0], other, zero, words[:, 1], zero], -1)
        return ours(each, jnp.asarray(np.concatenate([np.zeros((cases, 2), np.int64), six], -1), jnp.uint32)) == 1

    got = (share(leaves, cases, 2 * BITS) * share(goes, cases, 2 * BITS)).reshape(len(ks), -1).mean(1)
    # (The mean of -log(1 - u) over the middles of 8 strata is .957, not 1.)
    middles = -np.log1p(-(np.arange(n) + 0.5) / n).mean()
    np.testing.assert_allclose(got * ks / middles, rare, rtol=2e-3)

    # Plainly: one Gumbel number a state.
    plain = jax.jit(jax.vmap(lambda logs, words: jax.random.categorical(of_words(words), logs)))

    def wins(words):
        three = np.stack([first, words[:, 0], other], -1)
        return plain(each, jnp.asarray(np.pad(three, ((0, 0), (0, WORDS - 3))), jnp.uint32)) == 1

    plainly = share(wins, cases, BITS, least=False).reshape(len(ks), -1).mean(1) * ks
    assert plainly[:6].max() < 0.75 * rare
    assert plainly[0] < 0.2 * rare


def test_a_state_that_is_no_tokens_and_a_kernel_that_is_no_law_are_refused(key):
    stepper = categorical.draw(categorical.ancestral(processes.uniform(N)))
    with pytest.raises(InputError, match="a sampler of tokens got a state of float32"):
        stepper.step(key, lambda z, t: None, (), jnp.zeros(2), 0.5, 0.4)
    wrong = categorical.draw(lambda denoise, z, t, s: jnp.zeros(3))
    with pytest.raises(InputError, match="expected log-probabilities of each"):
        wrong.step(key, lambda z, t: None, (), jnp.zeros(2, jnp.int32), 0.5, 0.4)
