"""Losses of tokens as they are called: against a published program's arrays, in float32 at both ends of time, as means
of draws, with masks, and what they refuse."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxdiff import alphas, beliefs, grids, losses, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.losses import token_rates
from jaxdiff.processes.categorical import log_posterior

pytestmark = pytest.mark.claim(
    "losses and posteriors equal the published program's; float32 keeps its digits from alpha = 1e-6 to 1 - 1e-4", "-s"
)


GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "discrete_losses.npz")
MAKERS = {
    "bound": losses.bound,
    "score entropy": losses.score_entropy,
    "cross entropy": losses.cross_entropy,
    "d3pm": lambda process: losses.d3pm(process, 7),
    "flow matching": losses.flow_matching,
}
every_loss = pytest.mark.parametrize("name", MAKERS)
PROCESSES = {
    "absorbing": lambda: processes.absorbing(5),
    "uniform": lambda: processes.uniform(5),
    "hybrid": lambda: processes.hybrid(5),
    "gidd": lambda: processes.gidd(5),
    "ctmc": lambda: processes.ctmc(processes.rates.gaussian(5, 1.0)),
}
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
X0 = jnp.array([0, 4, 2, 2, 1, 3])


def ids(name):
    return jnp.asarray(GOLDEN[name], jnp.int32)


def fixed(logits, z, t):
    return beliefs.LeaveOneOut(logits)


# A published program's arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_losses_and_posteriors_of_a_published_program(dtype, x64):
    logits, t = (jnp.asarray(GOLDEN[name], dtype) for name in ("logits", "t"))
    form = jax.vmap(
        lambda process, *a: token_rates.bound(process, beliefs.LeaveOneOut(a[0]), *a[1:]), (None, 0, 0, 0, 0)
    )
    uniform, absorbing = processes.uniform(7), processes.absorbing(6)
    found = np.asarray(form(uniform, logits, ids("x0"), ids("xt"), t))
    print(
        f"{np.dtype(dtype)}: uniform bound, largest relative error {np.abs(found / GOLDEN['udlm_loss'] - 1).max():.1e}"
    )
    np.testing.assert_allclose(found, GOLDEN["udlm_loss"], rtol=2e-5)
    assert found.dtype == dtype
    masked = np.asarray(form(absorbing, logits[..., :6], ids("x0"), ids("xm"), t))
    np.testing.assert_allclose(masked, GOLDEN["mdlm_loss"], rtol=2e-5, atol=1e-6)
    s = 1 - jnp.asarray(GOLDEN["alpha_s"][:, 0, 0], dtype)
    log_p = jax.nn.log_softmax(logits, -1)
    posterior = jax.vmap(lambda *a: jnp.exp(log_posterior(uniform, *a)))(log_p, ids("xt"), t, s)
    np.testing.assert_allclose(posterior, GOLDEN["uniform_posterior"], atol=1e-6)


# Numbers -------------------------------------------------------------------------------------------------------------

ALPHAS = np.array([1e-6, 1e-5, 1e-4, 1e-2, 0.1, 0.4, 0.6, 0.9, 0.99, 0.999, 1 - 1e-4])


@pytest.mark.parametrize("vocab", [12, 40, 30_522])
@pytest.mark.parametrize("make", [processes.uniform, processes.absorbing])
def test_float32_is_float64_at_both_ends_of_time(make, vocab, x64):
    """Over alpha in [1e-6, 1 - 1e-4], on tokens that are kept and tokens that are not, with finite gradients."""
    process, rng = make(vocab), np.random.default_rng(vocab)
    logits, t = rng.normal(size=(2, vocab)).astype(np.float32) * 3, (1 - ALPHAS).astype(np.float32)
    x = jnp.asarray([3, 5], jnp.int32)
    z = jnp.asarray([3, vocab if process.masked else 7], jnp.int32)

    @jax.jit
    def both(logits, t):
        def one(t):
            def cost(logits):
                each = token_rates.bound(process, beliefs.LeaveOneOut(logits), x, z, t)
                return jnp.sum(each), each

            slope, each = jax.grad(cost, has_aux=True)(logits)
            return each, jnp.linalg.norm(slope, axis=-1), jnp.all(jnp.isfinite(slope))

        return jax.vmap(one)(t)

    fine, coarse = (both(jnp.asarray(logits, dtype), jnp.asarray(t, dtype)) for dtype in (np.float64, np.float32))
    assert coarse[0].dtype == coarse[1].dtype == jnp.float32
    fine, coarse = jax.tree.map(lambda leaf: np.asarray(leaf, float), (fine, coarse))
    error = np.abs(coarse[0] - fine[0]) / np.where(fine[0] > 0, fine[0], 1)
    print(f"{make.__name__}, {vocab} tokens: largest relative error {error.max():.1e}")
    assert error.max() < 1e-5
    assert coarse[2].all()
    np.testing.assert_allclose(coarse[1], fine[1], rtol=1e-4)
    assert np.all(fine[0][:, 1] > 0)


@pytest.mark.parametrize(
    ("name", "which"),
    [(name, which) for name in MAKERS for which in ("absorbing", "uniform")]
    + [(name, which) for name in ("bound", "d3pm") for which in ("hybrid", "gidd", "ctmc")],
)
def test_losses_are_finite_at_the_very_ends_of_time(name, which, key):
    process = PROCESSES[which]()
    loss = MAKERS[name](process)
    for t in (0.0, 1e-6, 0.5, 1.0):
        if t == 0 and (name == "flow matching" or which == "gidd"):
            continue  # -alpha' / (1 - alpha) is infinite there, and gidd's rates are
        value, slope = jax.value_and_grad(lambda logits, t=t: loss(key, Partial(fixed, logits), X0, t))(LOGITS)
        assert value.dtype == slope.dtype == jnp.float32
        assert jnp.isfinite(value), (t, value)
        assert jnp.isfinite(slope).all(), t
        assert value >= 0


def test_a_step_has_both_ends(x64):
    """T KL at t = 1 / T, where s = 0, is T times -log p(x0 | z_t): published code has NaN there."""
    for make in (processes.uniform, processes.absorbing):
        process = make(5)
        z = jnp.asarray([0, process.states - 1, 2, process.states - 1, 1, 0], jnp.int32)
        x = X0.astype(jnp.int32).at[jnp.array([0, 2, 4])].set(z[jnp.array([0, 2, 4])])
        belief = beliefs.LeaveOneOut(LOGITS.astype(float))
        found = token_rates.step(process, belief, x, z, jnp.asarray(0.1), jnp.asarray(0.0))
        exact = -jnp.take_along_axis(beliefs.posterior(process, belief, z, jnp.asarray(0.1)), x[:, None], 1)[:, 0]
        np.testing.assert_allclose(found, jnp.where(z == process.states - 1, exact, found), rtol=1e-10)
        assert jnp.isfinite(token_rates.step(process, belief, x, z, jnp.asarray(1.0), jnp.asarray(0.9))).all()


# Draws ---------------------------------------------------------------------------------------------------------------


@every_loss
def test_the_mean_over_draws_is_the_sum_over_noisy_tokens(name, key):
    process, t, n = processes.uniform(5), 0.6, 4000
    loss = MAKERS[name](process)
    values = jax.jit(jax.vmap(lambda k: loss(k, Partial(fixed, LOGITS), X0, t)))(jax.random.split(key, n))
    q = np.asarray(jnp.exp(process.log_marginal(jnp.log(jax.nn.one_hot(X0, 5)), 4 / 7 if name == "d3pm" else t)))
    if name == "d3pm":  # t = .6 is in the fifth of seven steps
        q = np.asarray(jnp.exp(process.log_marginal(jnp.log(jax.nn.one_hot(X0, 5)), 5 / 7)))
    form = {
        "bound": token_rates.bound,
        "score entropy": token_rates.score_entropy,
        "cross entropy": token_rates.surprise,
        "d3pm": lambda *a: 7 * token_rates.step(*a[:-1], jnp.asarray(5 / 7), jnp.asarray(4 / 7)),
        "flow matching": token_rates.flow,
    }[name]
    costs = [form(process, fixed(LOGITS, None, None), X0, jnp.full(6, z), jnp.asarray(t)) for z in range(5)]
    exact = np.sum(q * np.stack(costs, 1))
    assert abs(values.mean() - exact) < 5 * values.std() / np.sqrt(n)


@every_loss
def test_a_mask_counts_tokens_and_noise_does_not_know_it(name, key):
    process = processes.absorbing(5)
    loss, t = MAKERS[name](process), 0.7
    whole = loss(key, Partial(fixed, LOGITS), X0, t)
    mask = jnp.array([True, True, False, True, False, True])
    parts = [loss(key, Partial(fixed, LOGITS), X0, t, mask=m) for m in (mask, ~mask)]
    assert parts[0] > 0
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)
    # What padding is believed to be has no say.
    slope = jax.grad(lambda logits: loss(key, Partial(fixed, logits), X0, t, mask=mask))(LOGITS)
    assert not slope[~mask].any()


@every_loss
def test_losses_compile_once_and_map(name, key):
    traces = 0

    def denoise(z, t):
        nonlocal traces
        traces += 1
        return beliefs.LeaveOneOut(LOGITS)

    @eqx.filter_jit
    def run(loss, keys, x0, t):
        return jax.vmap(lambda key, x0, t: loss(key, denoise, x0, t))(keys, x0, t)

    keys = jax.random.split(key, 3)
    batch, t = jnp.stack([X0, X0[::-1], X0]), jnp.array([0.2, 0.5, 0.9])
    mapped = run(MAKERS[name](processes.uniform(5)), keys, batch, t)
    again = run(MAKERS[name](processes.uniform(5)), keys, batch, t)
    assert traces == 1
    np.testing.assert_array_equal(mapped, again)
    one = MAKERS[name](processes.uniform(5))(keys[1], denoise, batch[1], t[1])
    np.testing.assert_allclose(mapped[1], one, rtol=1e-5)


def test_weights_of_the_cross_entropy(key):
    process = processes.absorbing(5, alphas.cosine())
    one = losses.cross_entropy(process, losses.weights.unmasking)(key, Partial(fixed, LOGITS), X0, 0.8)
    np.testing.assert_allclose(one, losses.bound(process)(key, Partial(fixed, LOGITS), X0, 0.8), rtol=1e-6)
    plain = losses.cross_entropy(process)(key, Partial(fixed, LOGITS), X0, 0.8)
    np.testing.assert_allclose(one / plain, np.pi / 2 * np.sin(0.4 * np.pi) / (1 - np.cos(0.4 * np.pi)), rtol=1e-5)


def test_a_gradient_of_a_learned_schedule_is_finite(key):
    """The bound's slope in what the schedule is made of, as autodiff has it."""

    def value(power):
        return losses.bound(processes.uniform(5, alphas.Polynomial(power)))(key, Partial(fixed, LOGITS), X0, 0.5)

    slope, h = jax.grad(value)(2.0), 1e-2
    np.testing.assert_allclose(slope, (value(2.0 + h) - value(2.0 - h)) / (2 * h), rtol=1e-2)


# Bad input -----------------------------------------------------------------------------------------------------------


def test_mistakes(key):
    process = processes.absorbing(5)
    loss, denoise = losses.bound(process), Partial(fixed, LOGITS)
    bad = [
        (
            lambda: loss(key, denoise, X0.at[2].set(5), 0.5),
            r"outside the vocabulary of 5: 5, .*mask is no data",
        ),
        (lambda: loss(key, denoise, X0.at[2].set(-1), 0.5), r"outside the vocabulary of 5: -1"),
        (lambda: loss(key, denoise, X0.astype(float), 0.5), r"x0 holds float32, expected whole numbers from 0 to 4"),
        (lambda: loss(key, lambda z, t: LOGITS, X0, 0.5), r"returned a ArrayImpl, expected a belief about tokens"),
        (lambda: loss(key, denoise, X0[:3], 0.5), r"shape \(6, 5\) for tokens of shape \(3,\)"),
        (lambda: loss(key, denoise, X0, 0.5, mask=jnp.ones((2, 6), bool)), r"shape \(2, 6\) was given for tokens"),
        (
            lambda: loss(key, denoise, X0, 0.5, mask=jnp.ones(4, bool)),
            r"shape \(4,\) was given for tokens",
        ),
        (lambda: loss(key, denoise, X0, 0.5, mask=jnp.ones(6)), r"a mask of float32"),
        (lambda: losses.d3pm(process, 0), r"steps=0, expected at least 1"),
        (lambda: losses.flow_matching(processes.gidd(5)), r"a Mixing whose noise changes with time"),
        (lambda: losses.flow_matching(PROCESSES["ctmc"]()), r"a Chain whose noise changes"),
        (lambda: losses.weights.unmasking(processes.gidd(5), 0.5), r"a Mixing has no single schedule"),
    ]
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()


# The variance of times -----------------------------------------------------------------------------------------------


def test_laws_of_time_have_one_mean_and_other_variances(key):
    """The bounds of a chain of 24 tokens over [1e-3, 1], 16 times a draw: standard deviations of the draws, printed."""
    rng = np.random.default_rng(0)
    oracle, n, draws = oracles.chain(rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), 24), 16, 150
    laws = ("uniform", "stratified", "lattice", "rest", "log_rest", "log")
    for make in (processes.absorbing, processes.uniform):
        process = make(3, alphas.cosine_squared())
        loss, denoise, found = losses.bound(process), oracle.denoiser(process), {}

        @jax.jit
        def costs(key, t, loss=loss, denoise=denoise):
            data_key, key = jax.random.split(key)
            x0 = oracle.sample(data_key, n * draws)
            return jax.vmap(lambda k, x, t: loss(k, denoise, x, t))(jax.random.split(key, n * draws), x0, t)

        for i, name in enumerate(laws):
            time_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
            law = getattr(grids, f"{name}_times")
            keys = jax.random.split(time_key, draws)
            t, weight = jax.vmap(lambda k, law=law, process=process: law(k, process, n, low=1e-3))(keys)
            values = np.asarray(weight * costs(loss_key, t.reshape(-1)).reshape(draws, n), float).mean(1)
            found[name] = float(values.mean()), float(values.std())
        print(make.__name__, {name: f"{mean:.3f} +- {std:.3f}" for name, (mean, std) in found.items()})
        reference, spread = found["stratified"]
        for mean, std in found.values():
            assert abs(mean - reference) < 5 * np.hypot(std, spread) / np.sqrt(draws)
        if make is processes.absorbing:  # where one rare token does not make most of the variance
            assert max(found[law][1] for law in ("stratified", "lattice", "rest")) < 0.9 * found["uniform"][1]
