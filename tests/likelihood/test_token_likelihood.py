"""The bound on a sequence with all its constants, and bits per token: against the exact log p(x0) of a chain, by hand,
and with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff import alphas, beliefs, grids, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.likelihood import bits_per_token, nelbo

CHAIN = np.random.default_rng(0).dirichlet(np.ones(4), 4)
X = jnp.array([1, 3, 0, 0, 2, 1], jnp.int32)


def oracle(length=6):
    return oracles.chain(CHAIN.mean(0), CHAIN, length)


CASES = {
    "absorbing": (lambda: processes.absorbing(4, alphas.cosine()), {}),
    "absorbing, from t0": (lambda: processes.absorbing(4), {"t0": 0.03}),
    "absorbing, log(1 - alpha)": (lambda: processes.absorbing(4), {"t0": 0.01, "times": grids.log_rest_times}),
    "uniform": (lambda: processes.uniform(4), {"t0": 0.02}),
    "uniform that keeps a tenth": (lambda: processes.uniform(4, alphas.log_linear(0.1)), {"t0": 0.02}),
    "uniform that starts noisy": (lambda: processes.uniform(4, alphas.geometric(0.05)), {}),
    "hybrid": (lambda: processes.hybrid(4, 0.3), {"t0": 0.02}),
    "gidd": (lambda: processes.gidd(4), {"t0": 1e-4, "times": grids.log_times}),
    "a gaussian chain": (
        lambda: processes.ctmc(processes.rates.gaussian(4, 1.0)),
        {"t0": 0.002, "times": grids.log_times},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_with_the_exact_belief_all_terms_make_up_log_p(name, key):
    """From a small t0, too, where the tokens are drawn side by side: that is another law by little."""
    make, options = CASES[name]
    process = make()
    found = nelbo(key, process, oracle().denoiser(process), X, n_times=64, draws=64, **options)
    exact = float(oracle().log_prob(X))
    print(f"{name}: {found.value:.3f} +- {found.stderr:.3f}, log p {exact:.3f}; {found.terms}")
    assert set(found.terms) == {"prior", "diffusion", "reconstruction"}
    np.testing.assert_allclose(sum(found.terms.values()), found.value, rtol=1e-4)
    assert abs(found.value - exact) < 5 * found.stderr + 0.02
    noisy = "t0" in options or "noisy" in name
    assert (found.terms["reconstruction"] < 0) == (found.stderrs["reconstruction"] > 0) == noisy


def test_the_prior_term_by_hand(key):
    """KL of .1 x0 + .9 / 4 from 1 / 4, a token; and only of those that count."""
    process = processes.uniform(4, alphas.log_linear(0.1))
    q = np.array([0.1 + 0.225, 0.225, 0.225, 0.225])
    each = np.sum(q * np.log(4 * q))
    denoise = oracle().denoiser(process)
    found = nelbo(key, process, denoise, X, n_times=2, draws=2)
    np.testing.assert_allclose(found.terms["prior"], -6 * each, rtol=1e-4)
    mask = jnp.arange(6) < 2
    np.testing.assert_allclose(
        nelbo(key, process, denoise, X, n_times=2, mask=mask).terms["prior"], -2 * each, rtol=1e-4
    )
    assert nelbo(key, processes.absorbing(4), denoise, X, n_times=2, draws=2).terms["prior"] == 0


def _at_low(key, process, n, *, low):
    return grids.Times(jnp.full(n, low), jnp.ones(n))


def test_the_integral_starts_at_t0(key):
    """Of a law that asks there alone: a belief that knows nothing costs log 4 / t0 for each masked token."""
    found = nelbo(key, processes.absorbing(4), fixed, X, times=_at_low, t0=0.5, n_times=1, draws=1)
    for name, each in (("diffusion", np.log(4) / 0.5), ("reconstruction", np.log(4))):
        count = -float(found.terms[name]) / each
        assert count == pytest.approx(round(count), abs=1e-5)
        assert 0 < count <= 6


@pytest.mark.parametrize("make", [processes.absorbing, processes.uniform])
def test_in_one_step_it_is_independent_tokens(make, key):
    """T = 1: all noise at once, so the bound is the sum of the tokens' marginal log-probabilities, without variance."""
    process = make(4)
    found = nelbo(key, process, oracle().denoiser(process), X, steps=1, n_times=4, draws=4)
    margins = [CHAIN.mean(0)]
    for _ in range(5):
        margins.append(margins[-1] @ CHAIN)
    exact = sum(np.log(margin[x]) for margin, x in zip(margins, X, strict=True))
    np.testing.assert_allclose(found.value, exact, rtol=1e-5)
    assert found.stderr < 1e-5


def test_more_steps_are_a_better_bound_on_average(key):
    """Over data; for one x0 it may lie above log p, which is not the p of a sampler in steps."""
    process, law = processes.uniform(4), oracle()
    x = law.sample(key, 512)
    exact = np.asarray(jax.vmap(law.log_prob)(x), float)
    short = {}
    for steps in (1, 4, 16):
        ask = jax.vmap(
            lambda k, x, s=steps: nelbo(k, process, law.denoiser(process), x, steps=s, n_times=s, draws=1).value
        )
        gaps = exact - np.asarray(ask(jax.random.split(key, 512), x), float)
        short[steps] = gaps.mean(), gaps.std() / np.sqrt(512)
    print({steps: f"{mean:.3f} +- {error:.3f}" for steps, (mean, error) in short.items()})
    assert all(mean > -5 * error for mean, error in short.values())
    assert short[4][0] < short[1][0] - 0.2
    assert short[16][0] < 0.5 * short[1][0]


# Bits per token ------------------------------------------------------------------------------------------------------


def surprise(key, x, cond, mask):
    """A model that knows the length: log p of the tokens that count, by a table a class."""
    return {"log_p": jnp.sum(jnp.where(mask, jnp.log(cond)[x], 0))}


def test_bits_and_perplexity_by_hand(key):
    x = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    cond = np.array([[0.5, 0.5], [0.25, 0.75], [0.125, 0.875]], np.float32)
    found = bits_per_token(key, surprise, x, mask=mask, cond=cond)
    nats = np.array([4 * np.log(2), -2 * np.log(0.75), 3 * np.log(2)])
    rate = nats.sum() / 7
    assert found.tokens == 7
    np.testing.assert_allclose(found.each, nats, rtol=1e-6)
    np.testing.assert_allclose(found.bits, rate / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(found.terms["log_p"], found.bits, rtol=1e-6)
    np.testing.assert_allclose(found.perplexity, np.exp(rate), rtol=1e-6)
    residual = nats - rate * np.array([4, 2, 1])
    np.testing.assert_allclose(found.stderr * np.log(2), np.sqrt(np.sum(residual**2) * 3 / 2) / 7, rtol=1e-6)
    np.testing.assert_allclose(found.perplexity_stderr, found.perplexity * found.stderr * np.log(2), rtol=1e-6)
    assert np.isnan(bits_per_token(key, surprise, x[:1], cond=cond[:1]).stderr)


def test_the_standard_error_is_that_of_new_examples(key):
    """200 data sets of 50 sequences of random lengths: the spread of their rates is what one says of itself."""
    rng = np.random.default_rng(0)
    x = rng.choice(2, (200, 50, 8), p=[0.2, 0.8])
    mask = np.arange(8) < rng.integers(1, 9, (200, 50, 1))
    cond = np.tile(np.float32([0.2, 0.8]), (10_000, 1))
    nats = bits_per_token(key, surprise, x.reshape(-1, 8), mask=mask.reshape(-1, 8), cond=cond, chunk=5000).each
    nats, counts = nats.reshape(200, 50), mask.sum(-1)
    rates = nats.sum(1) / counts.sum(1) / np.log(2)
    one = bits_per_token(key, surprise, x[0], mask=mask[0], cond=cond[:50])
    np.testing.assert_allclose(one.bits, rates[0], rtol=1e-6)
    assert 0.7 < one.stderr / rates.std() < 1.4


def test_a_data_set_by_the_bound(key):
    """Sequences of a chain, mapped in chunks: the mean over data is the entropy rate, and its terms add up."""
    process = processes.absorbing(4)
    law = oracle()
    x = law.sample(key, 64)

    def log_prob(key, x, cond, mask):
        return nelbo(key, process, law.denoiser(process), x, mask=mask, n_times=16, draws=2).terms

    found = bits_per_token(key, log_prob, x, chunk=64)
    exact = -np.mean(jax.vmap(law.log_prob)(x)) / 6 / np.log(2)
    print(f"{found.bits:.3f} +- {found.stderr:.3f} bits a token by the bound, {exact:.3f} exact on these data")
    np.testing.assert_allclose(sum(found.terms.values()), found.bits, rtol=1e-5)
    assert abs(found.bits - exact) < 5 * found.stderr
    assert found.tokens == 64 * 6


# Laws of time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [alphas.linear, alphas.cosine, alphas.cosine_squared, alphas.geometric])
def test_times_on_a_schedule_are_integrals_and_have_their_law(alpha, key, x64):
    process, n = processes.uniform(4, alpha()), 4000
    schedule = process.noise.alpha
    for law, to in ((grids.rest_times, lambda r: r), (grids.log_rest_times, np.log), (grids.log_times, None)):
        t, weight = (np.asarray(v) for v in jax.jit(lambda k, law=law: law(k, process, n, low=0.01, high=0.9))(key))
        assert np.all((t >= 0.01 - 1e-12) & (t <= 0.9 + 1e-12))
        np.testing.assert_allclose(np.mean(weight * np.cos(t)), np.sin(0.9) - np.sin(0.01), rtol=5e-3)
        place = np.log(t) if to is None else to(np.asarray(schedule.rest(t)))
        first, last = (np.log(e) if to is None else to(np.asarray(schedule.rest(jnp.asarray(e)))) for e in (0.01, 0.9))
        u = (place - first) / (last - first) * n
        assert np.all((u > np.arange(n) - 1e-5) & (u < np.arange(1, n + 1) + 1e-5))  # one in each of n parts
        assert stats.kstest(np.mod(u, 1), "uniform").pvalue > 1e-6
        if law is grids.log_rest_times:
            # The bound's weight times this one is constant: f_T - f_0, both of its ends counted.
            rate = np.asarray(jax.vmap(lambda t: alphas.fall(schedule, t))(jnp.asarray(t))) / schedule.rest(t)
            np.testing.assert_allclose(weight * rate, last - first, rtol=1e-9)


def test_laws_of_time_refuse_what_they_cannot_do(key):
    process = processes.absorbing(4)
    bad = [
        (lambda: grids.log_rest_times(key, process, 4, low=0.0), r"1 - alpha is 0 at low=0"),
        (lambda: grids.log_times(key, process, 4, low=0.0), r"low=0, whose logarithm is infinite"),
        (lambda: grids.rest_times(key, process, 4, low=0.5, high=0.2), r"low=0.5, high=0.2"),
        (lambda: grids.rest_times(key, processes.gidd(4), 4), r"a Mixing has no single schedule"),
        (lambda: grids.log_rest_times(key, CASES["a gaussian chain"][0](), 4), r"a Chain has no single schedule"),
        (lambda: grids.log_rest_times(key, processes.vp(), 4), r"a Gaussian has no single schedule"),
    ]
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()
    for law in (grids.uniform_times, grids.stratified_times, grids.lattice_times):
        assert law(key, process, 4).t.shape == (4,)


def fixed(z, t):
    return beliefs.Posterior(jnp.zeros((6, 4)))


def test_mistakes(key):
    process = processes.absorbing(4)
    floor = processes.absorbing(4, alphas.log_linear())
    x = np.zeros((3, 6), int)
    bad = [
        (lambda: nelbo(key, floor, fixed, X), r"keeps some data at t = 1.*the bound is infinite; take.*alphas.linear"),
        (lambda: nelbo(key, process, fixed, X.at[0].set(4)), r"outside the vocabulary of 4: 4"),
        (lambda: nelbo(key, process, lambda z, t: z, X), r"expected a belief about tokens"),
        (lambda: nelbo(key, process, fixed, X[:3]), r"shape \(6, 4\) for tokens of shape \(3,\)"),
        (lambda: nelbo(key, process, fixed, X, steps=0), r"steps=0, expected at least 1"),
        (lambda: nelbo(key, process, fixed, X, draws=0), r"draws=0, expected at least 1"),
        (lambda: nelbo(key, process, fixed, X, t0=1.0), r"t0=1, expected a time in \[0, 1\)"),
        (lambda: nelbo(key, process, fixed, X, t0=0.1, steps=3), r"t0=0.1, expected.*0 for the bound in steps"),
        (lambda: nelbo(key, process, fixed, X, times=grids.vp_times), r"a law of noise levels"),
        (lambda: nelbo(key, process, fixed, X, mask=jnp.ones(5, bool)), r"a mask of bool and shape \(5,\)"),
        (lambda: bits_per_token(key, surprise, x * 1.0), r"x of float64, expected whole numbers"),
        (lambda: bits_per_token(key, surprise, x, mask=np.ones((3, 5), bool)), r"a mask of bool and shape \(3, 5\)"),
        (lambda: bits_per_token(key, surprise, x, mask=np.zeros((3, 6), bool)), r"for at least one"),
        (lambda: bits_per_token(key, surprise, x, draws=0), r"draws=0"),
    ]
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()


def test_it_compiles_once(key):
    traces = 0

    def denoise(z, t):
        nonlocal traces
        traces += 1
        return beliefs.Posterior(jnp.zeros((6, 4)))

    for i in range(3):
        found = nelbo(jax.random.fold_in(key, i), processes.uniform(4), denoise, X, t0=0.1 * (i + 1), n_times=2)
        before = traces if i == 0 else before
        assert traces == before
    assert found.value.dtype == jnp.float32
