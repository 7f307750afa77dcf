"""Every process on tokens is the Markov chain that it says it is: its transitions against the matrix exponential of its
generator, against each other (Chapman and Kolmogorov), and its rates, posteriors and draws against its transitions."""

import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import TOKEN_PROCESSES
from scipy import stats
from scipy.linalg import expm

from jaxdiff import alphas, beliefs, denoisers, processes
from jaxdiff.errors import InputError
from jaxdiff.processes.categorical import check_tokens, log_posterior

pytestmark = pytest.mark.claim(
    "tokens: transitions are the exponential of the generator, compose, have these rates; posteriors are Bayes' rule"
)


N = 4
every_process = pytest.mark.parametrize("name", TOKEN_PROCESSES)
TIMES = (0.05, 0.3, 0.7, 0.95)


def compiled(function):
    """`function`, compiled once for all times: a Python float would be static."""
    run = eqx.filter_jit(function)
    return lambda *args: run(*(jnp.asarray(x) if isinstance(x, float) else x for x in args))


@compiled
def matrix(process, t, s):
    """q(z_t = column | z_s = row)."""
    z = jnp.arange(process.states)
    return jnp.exp(process.log_ahead(z, t, s)).T


@compiled
def into(process, t):
    """The rate of each row's state to each column's."""
    return jnp.exp(process.log_inflow(jnp.arange(process.states), t)).T


@compiled
def marginal(process, p, t):
    return jnp.exp(process.log_marginal(jnp.log(p), t))


@compiled
def reverse(process, p, z, t, s):
    return jnp.exp(log_posterior(process, jnp.log(p), z, t, s))


@compiled
def translate(process, said, z, t):
    """(leave-one-out, posterior, score) of a belief."""
    return tuple(SAY[meaning](process, said, z, t) for meaning in MEANINGS)


@every_process
def test_transitions_are_a_markov_chain(name, x64):
    process = TOKEN_PROCESSES[name](N)
    for s, t, u in itertools.combinations(TIMES, 3):
        whole = matrix(process, u, s)
        np.testing.assert_allclose(whole.sum(1), 1, atol=1e-12)
        np.testing.assert_allclose(matrix(process, t, s) @ matrix(process, u, t), whole, atol=1e-12)
        assert (whole >= 0).all()


@every_process
def test_marginals_are_transitions_from_data(name, x64, key):
    process = TOKEN_PROCESSES[name](N)
    p = jax.random.dirichlet(key, jnp.ones(N), (3,))
    for t in TIMES:
        np.testing.assert_allclose(marginal(process, p, t), p @ matrix(process, t, 0.0)[:N], rtol=1e-10, atol=1e-14)


@every_process
def test_rates_are_the_slope_of_transitions(name, x64):
    """(transition over h - 1) / h, its error of first order in h extrapolated away."""
    process, h = TOKEN_PROCESSES[name](N), 1e-5
    off = ~np.eye(process.states, dtype=bool)
    for t in TIMES:
        rates = into(process, t)
        one, two = (
            (np.asarray(matrix(process, t + k * h, t - k * h)) - np.eye(process.states)) / (2 * k * h) for k in (1, 2)
        )
        np.testing.assert_allclose(rates[off], (2 * one - two)[off], rtol=1e-5, atol=1e-8)
        assert (np.asarray(rates)[~off] == 0).all()


GENERATORS = {
    "absorbing": np.hstack([-np.eye(N), np.ones((N, 1))]),  # each data token to the mask, at rate 1
    "uniform": np.full((N, N), 1 / N) - np.eye(N),
    "hybrid": np.hstack([0.3 / N * np.ones((N, N)) - np.eye(N), np.full((N, 1), 0.7)]),
    "ctmc": processes.rates.gaussian(N, 1.0),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_transitions_are_the_exponential_of_the_generator(name, x64):
    process = TOKEN_PROCESSES[name](N)
    generator = np.zeros((process.states, process.states))
    generator[:N] = GENERATORS[name]
    if name == "hybrid":
        generator[N, :N], generator[N, N] = 0.3 / N, -0.3  # fresh noise replaces a mask too
    schedule = process.pace if name == "ctmc" else process.noise.alpha
    for s, t in itertools.combinations(TIMES, 2):
        exact = expm(generator * float(np.log(schedule(s) / schedule(t))))
        np.testing.assert_allclose(matrix(process, t, s), exact, rtol=1e-9, atol=1e-13)


def test_a_chain_keeps_the_precision_of_small_probabilities():
    """A Pade exponential of neighbours' rates is off by all digits far from the diagonal, or below 0."""
    process = processes.ctmc(processes.rates.nearest(16), alphas.constant_rate(10.0))
    with jax.enable_x64(True):
        exact = np.asarray(processes.ctmc(processes.rates.nearest(16), alphas.constant_rate(10.0)).transition(0.05))
    assert exact.min() < 1e-15
    np.testing.assert_allclose(process.transition(0.05), exact, rtol=2e-5)


@every_process
def test_posteriors_are_bayes_rule(name, x64, key):
    process = TOKEN_PROCESSES[name](N)
    p = np.asarray(jax.random.dirichlet(key, jnp.ones(N)))
    for s, t in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0), (0.0, 1.0)):
        ahead, before = np.asarray(matrix(process, t, s)), p @ np.asarray(matrix(process, s, 0.0))[:N] if s else p
        before = np.append(before, np.zeros(process.states - len(before)))
        joint = (before[:, None] * ahead).T
        got = reverse(process, jnp.asarray(p), jnp.arange(process.states), t, s)
        np.testing.assert_allclose(got, joint / joint.sum(1, keepdims=True), atol=1e-12)


@every_process
def test_a_bridge_draws_bayes_rule(name, key):
    """Counts of z_s for every x0 and z_t against q(z_s | x0) q(z_t | z_s) over its sum, by chi-squared."""
    process, n = TOKEN_PROCESSES[name](N), 4_000
    draw = jax.jit(lambda k, x0, z, t, s: process.bridge(k, z, x0, t, s))
    for t, s in ((0.9, 0.6), (0.5, 0.1), (1.0, 0.3)):
        joint = np.asarray(matrix(process, s, 0.0), float)[:N, :, None] * np.asarray(matrix(process, t, s), float)
        seen = joint.sum(1)
        x0, z = (jnp.asarray(index.repeat(n), jnp.int32) for index in np.nonzero(seen > 1e-9))
        drawn = np.asarray(draw(jax.random.fold_in(key, int(10 * t)), x0, z, t, s)).reshape(-1, n)
        for (y, end), row in zip(np.argwhere(seen > 1e-9), drawn, strict=True):
            law, counts = n * joint[y, :, end] / seen[y, end], np.bincount(row, minlength=process.states)
            rare = law < 5
            assert counts[rare].sum() <= law[rare].sum() + 6 * np.sqrt(law[rare].sum()) + 3
            if (~rare).sum() > 1:
                assert stats.chisquare(counts[~rare], law[~rare], sum_check=False).pvalue > 1e-7, (y, end, t, s)
            else:
                assert counts[~rare] >= n - 10


@every_process
def test_a_bridge_to_the_data_is_the_data(name, key):
    process = TOKEN_PROCESSES[name](N)
    x0 = jnp.arange(N).repeat(50)
    z = process.perturb(key, x0, 0.6)
    np.testing.assert_array_equal(jax.jit(lambda s: process.bridge(key, z, x0, 0.6, s))(0.0), x0)


def test_the_uniform_posterior_is_its_three_way_mixture(x64, key):
    """Stay, draw from x, or draw uniformly, with the weights of Schiff et al. (2024)."""
    process, t, s = processes.uniform(N), 0.8, 0.5
    x = jax.random.dirichlet(key, jnp.ones(N))
    a, b = 1 - t, 1 - s
    for z in range(N):
        total = N * a * x[z] + 1 - a
        weights = N * a * x[z] + a / b - a, b - a, (1 - a / b) * (1 - b)
        mixture = (weights[0] * jnp.eye(N)[z] + weights[1] * x + weights[2] / N) / total
        np.testing.assert_allclose(reverse(process, x, jnp.asarray(z), t, s), mixture, atol=1e-13)


@pytest.mark.parametrize("name", ["absorbing", "uniform", "hybrid", "gidd"])
def test_float32_keeps_the_precision_of_float64(name):
    """Near t = 0 and in a step of one in a thousand, tokens are lost with small probabilities: these count."""
    t, s, z = np.float32(1e-4), np.float32(0.499), np.arange(N)
    process = TOKEN_PROCESSES[name](N)
    ahead = compiled(lambda process, t, s: process.log_ahead(jnp.asarray(z), t, s))
    single = ahead(process, t, np.float32(0)), ahead(process, np.float32(0.5), s)
    with jax.enable_x64(True):
        exact = TOKEN_PROCESSES[name](N)
        double = ahead(exact, np.float64(t), np.float64(0)), ahead(exact, np.float64(0.5), np.float64(s))
    # A difference of two float32 numbers of size 1/2 in steps of 1/1000 holds 4 digits.
    for got, want, digits in zip(single, double, (1e-5, 2e-4), strict=True):
        np.testing.assert_allclose(np.exp(got), np.exp(want), rtol=digits if name != "gidd" else 5e-3, atol=1e-12)


@every_process
def test_perturbed_tokens_have_the_marginal(name, key):
    process, t, n = TOKEN_PROCESSES[name](N), 0.4, 20_000
    draw = jax.jit(lambda key: process.perturb(key, jnp.arange(N).repeat(n), t))
    z = np.asarray(draw(key)).reshape(N, n)
    assert z.dtype == np.int32
    p = np.asarray(matrix(process, t, 0.0))[:N]
    counts = np.stack([np.bincount(row, minlength=process.states) for row in z])
    assert (np.abs(counts / n - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-9).all()


@every_process
def test_the_prior_is_where_noise_leads(name, key):
    process, n = TOKEN_PROCESSES[name](N), 20_000
    limit = np.exp(process.log_limit())
    np.testing.assert_allclose(limit.sum(), 1, rtol=1e-5)
    left = 1e-4 if name == "ctmc" else 1e-6  # what its slowest decay leaves
    np.testing.assert_allclose(
        np.asarray(matrix(process, 1.0, 0.0)), np.tile(limit, (process.states, 1)), atol=5 * left
    )
    counts = np.bincount(np.asarray(process.prior(key, (n,))), minlength=process.states)
    assert (np.abs(counts / n - limit) <= 5 * np.sqrt(limit * (1 - limit) / n) + 1e-9).all()
    assert process.prior(key, jax.ShapeDtypeStruct((3, 2), jnp.int32)).shape == (3, 2)


MEANINGS = (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score)
SAY = {beliefs.LeaveOneOut: beliefs.leave_one_out, beliefs.Posterior: beliefs.posterior, beliefs.Score: beliefs.score}


@pytest.mark.claim("beliefs translate into each other by Bayes' rule and back")
@every_process
def test_translating_a_belief_and_back_changes_nothing(name, x64, key):
    process, t = TOKEN_PROCESSES[name](N), 0.3
    z = jnp.arange(process.states)
    logs = jnp.log(jax.random.dirichlet(key, jnp.ones(N), z.shape))
    # A token that the absorbing process shows says nothing of the rest, and no posterior of it can tell.
    hidden = z == process.mask if name == "absorbing" else jnp.ones_like(z, bool)
    for meaning, said in zip(MEANINGS, translate(process, beliefs.LeaveOneOut(logs), z, t), strict=True):
        back = translate(process, meaning(said), z, t)[0]
        np.testing.assert_allclose(back[hidden], logs[hidden], atol=1e-9)


@pytest.mark.claim("beliefs translate into each other by Bayes' rule and back")
@every_process
def test_translations_are_bayes_rule(name, x64, key):
    process, t = TOKEN_PROCESSES[name](N), 0.3
    z = jnp.arange(process.states)
    alone = jax.random.dirichlet(key, jnp.ones(N), z.shape)
    q = np.asarray(matrix(process, t, 0.0))[:N]
    joint = np.asarray(alone) * q[:, np.asarray(z)].T
    _, after, score = translate(process, beliefs.LeaveOneOut(jnp.log(alone)), z, t)
    np.testing.assert_allclose(np.exp(after), joint / joint.sum(1, keepdims=True), atol=1e-12)
    seen = np.asarray(alone) @ q
    np.testing.assert_allclose(np.exp(score), seen / np.diag(seen)[:, None], rtol=1e-9)


@every_process
def test_the_posterior_leaves_out_what_cannot_have_become_the_token(name, x64, key):
    """... of any logits: a token that the absorbing process shows is certain, to the last bit."""
    process, t = TOKEN_PROCESSES[name](N), 0.3
    z = jnp.arange(process.states)
    said = jax.random.dirichlet(key, jnp.ones(N), z.shape)
    after = np.exp(translate(process, beliefs.Posterior(jnp.log(said)), z, t)[1])
    possible = np.asarray(matrix(process, t, 0.0))[:N, np.asarray(z)].T > 0
    left = np.asarray(said) * possible
    np.testing.assert_allclose(after, left / left.sum(1, keepdims=True), rtol=1e-12)
    if name == "absorbing":
        np.testing.assert_array_equal(after[:N], np.eye(N))
    else:
        assert possible.all()


@every_process
def test_drawing_data_first_is_the_plug_in_step_with_the_other_belief(name, x64, key):
    """sum_j Posterior_j q(z_s | z_t, j) = the posterior with LeaveOneOut put in."""
    process, t, s = TOKEN_PROCESSES[name](N), 0.7, 0.2
    z = jnp.arange(process.states)
    said = beliefs.LeaveOneOut(jnp.log(jax.random.dirichlet(key, jnp.ones(N), z.shape)))
    alone, after, _ = translate(process, said, z, t)
    plug_in = reverse(process, jnp.exp(alone), z, t, s)
    each = jnp.stack([reverse(process, jnp.eye(N)[jnp.full_like(z, j)], z, t, s) for j in range(N)])
    mixed = jnp.einsum("zj,jzy->zy", jnp.exp(after), each)
    np.testing.assert_allclose(mixed, plug_in, atol=1e-12)


@every_process
def test_ends_and_gradients_are_finite(name):
    process = TOKEN_PROCESSES[name](N)
    z = jnp.arange(process.states)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def step(logits, t, s):
        logs = log_posterior(process, beliefs.leave_one_out(process, beliefs.Posterior(logits), z, t), z, t, s)
        return jnp.sum(jnp.where(jnp.isfinite(logs), jnp.exp(logs), 0) ** 2), logs

    for t, s in ((1.0, 0.5), (0.5, 0.0), (1.0, 0.0)):
        (_, logs), gradient = step(jnp.ones((len(z), N)), t, s)
        np.testing.assert_allclose(np.exp(logs).sum(1), 1, rtol=1e-5)
        assert np.isfinite(gradient).all()


SCHEDULES = {
    "linear": (alphas.linear(), lambda t: -np.log1p(-t)),
    "log_linear": (alphas.log_linear(1e-3), lambda t: -np.log1p(-(1 - 1e-3) * t)),
    "cosine": (alphas.cosine(1e-3), lambda t: -np.log(1e-3 + (1 - 1e-3) * np.cos(np.pi * t / 2))),
    "cosine_squared": (alphas.cosine_squared(1e-3), lambda t: -np.log(1e-3 + (1 - 1e-3) * np.cos(np.pi * t / 2) ** 2)),
    "polynomial": (alphas.polynomial(2.0), lambda t: -np.log1p(-(t**2))),
    "geometric": (alphas.geometric(1e-3, 10.0), lambda t: 1e-3 ** (1 - t) * 10.0**t),
    "constant_rate": (alphas.constant_rate(7.0), lambda t: 7.0 * t),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_papers_and_keeps_its_digits(name):
    """-log alpha of the papers' tables in float64, against ours in float32; 1 - alpha relatively, where it is small."""
    alpha, total = SCHEDULES[name]
    t = np.unique(np.concatenate([np.geomspace(1e-6, 1e-2, 30), np.linspace(0.01, 0.99, 99)])).astype(np.float32)
    exact = total(t.astype(np.longdouble)).astype(np.float64)
    # An exponential in float32 loses as many digits as its exponent is long.
    assert (np.abs(alpha(jnp.asarray(t)) / np.exp(-exact) - 1) <= 1e-6 * (1 + exact)).all()
    rest = alpha.rest(jnp.asarray(t))
    np.testing.assert_allclose(rest, -np.expm1(-exact), rtol=3e-6)
    steep = 1 if name != "geometric" else 0.3  # where noise is flat in t, t is less well known
    inner = np.asarray(rest) < 0.999
    np.testing.assert_allclose(alpha.time_of(rest)[inner], t[inner], rtol=1e-4 / steep, atol=1e-6 if steep < 1 else 0)
    h = 1e-4
    middle = np.linspace(0.1, 0.9, 9)
    slope = (np.exp(-total(middle - h)) - np.exp(-total(middle + h))) / (2 * h)
    np.testing.assert_allclose(alphas.fall(alpha, middle.astype(np.float32)), slope, rtol=1e-4)


def test_a_network_becomes_a_denoiser_of_the_belief_that_it_means():
    process = processes.absorbing(N)

    def apply(params, z, level, cond, *, key=None):
        return jax.nn.one_hot(z, N) * params + level[:, None, None] + (0 if cond is None else cond[:, None, None])

    z = jnp.array([0, 3, 4])
    plain = denoisers.from_token_network(apply, process, beliefs.Posterior)
    denoise = plain(jnp.float32(2.0), jnp.float32(3.0))
    assert not denoise.time_conditioned
    assert isinstance(denoise(z, 0.5), beliefs.Posterior)
    np.testing.assert_allclose(denoise(z, 0.5).logits, 2 * np.eye(5)[np.asarray(z)][:, :N] + 3, rtol=1e-6)
    timed = denoisers.from_token_network(apply, process, level=denoisers.total_noise)(jnp.float32(0.0))
    assert timed.time_conditioned
    np.testing.assert_allclose(timed(z, 0.5).logits, np.log(2) * np.ones((3, N)), rtol=1e-6)
    np.testing.assert_allclose(timed(z, 1.0).logits, np.log(1000) * np.ones((3, N)), rtol=1e-6)
    with pytest.raises(InputError, match="meaning"):
        denoisers.from_token_network(apply, process, dict)
    with pytest.raises(InputError, match="expected logits"):
        denoisers.from_token_network(lambda params, z, level, cond: z, process)(None)(z, 0.5)


BAD = {
    "one token": lambda: processes.absorbing(1),
    "a share of 1": lambda: processes.hybrid(4, 1.0),
    "a bump too steep": lambda: processes.gidd(4, 0.2, 3.0),
    "a floor of 1": lambda: processes.uniform(4, alphas.log_linear(1.0)),
    "a falling noise": lambda: alphas.geometric(2.0, 1.0),
    "a power of 0": lambda: alphas.polynomial(0.0),
    "no generator": lambda: processes.ctmc(np.ones((3, 3))),
    "no square": lambda: processes.ctmc(np.ones((3, 2))),
    "two limits": lambda: processes.ctmc(np.kron(np.eye(2), processes.rates.nearest(2))),
    "an infinite clock": lambda: processes.ctmc(processes.rates.nearest(3), alphas.linear()),
    "a mask too many": lambda: processes.ctmc(processes.rates.nearest(4), vocab=2),
    "no width": lambda: processes.rates.gaussian(4, 0.0),
    "a token outside": lambda: check_tokens(processes.absorbing(4), jnp.array([0, 4])),
    "tokens as floats": lambda: check_tokens(processes.absorbing(4), jnp.array([0.0, 1.0])),
    "a bare array": lambda: beliefs.posterior(processes.absorbing(4), jnp.zeros((2, 4)), jnp.array([0, 4]), 0.5),
    "another vocabulary": lambda: beliefs.posterior(
        processes.absorbing(4), beliefs.Posterior(jnp.zeros((2, 5))), jnp.array([0, 4]), 0.5
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes(name):
    with pytest.raises(InputError, match=r"expected|needs|must|connect") as raised:
        BAD[name]()
    assert len(str(raised.value)) < 300


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(InputError, match="vocabulary of 4: 7, expected ids from 0 to 3"):
        check_tokens(processes.uniform(4), np.array([1, 7]))
