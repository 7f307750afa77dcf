"""What is made of the steps: event by event, corrected, with a kept belief, and as samplers for `samplers.draw`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats
from toys import LAW, ORACLE, PROCESSES, N, matrix, p_value

from jaxdiff import alphas, beliefs, denoisers, oracles, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.samplers import categorical
from jaxdiff.samplers.categorical.hitting import event_times

pytestmark = pytest.mark.claim(
    "each sampler's law converges at first order; draws have it, rare tokens too; the cache changes no bit"
)


COUNT = 10_000


class Counted:
    """A denoiser of the absorbing process that does not see the time, and how often a program asked it."""

    def __init__(self, width=N):
        self.asked = self.traces = 0
        self.width = width

    def tick(self):
        self.asked += 1

    def __call__(self, params, tokens, level, cond, *, key=None):
        self.traces += 1
        jax.debug.callback(self.tick)
        seen = jnp.sum(jnp.where(tokens < self.width, tokens, 0), -1).astype(jnp.float32)
        return params * jnp.cos(
            seen[:, None, None] + jnp.arange(tokens.shape[1] * self.width, dtype=jnp.float32).reshape(-1, self.width)
        )


# -- first hitting -------------------------------------------------------------------------------------------------


def test_first_hitting_draws_the_law_of_the_data(key):
    process = processes.absorbing(N, alphas.cosine_squared())
    denoise = ORACLE().denoiser(process, beliefs.Posterior)
    drawn = jax.vmap(lambda k: categorical.first_hitting(k, process, denoise, (2,)))(jax.random.split(key, COUNT))
    assert drawn.dtype == jnp.int32
    assert p_value(drawn, LAW) > 1e-6


def test_two_tokens_of_one_call_do_not_see_each_other(key):
    process = processes.absorbing(N)
    denoise = ORACLE().denoiser(process)
    keys = jax.random.split(key, COUNT)
    drawn = jax.vmap(lambda k: categorical.first_hitting(k, process, denoise, (2,), block=2))(keys)
    assert p_value(drawn, np.outer(LAW.sum(1), LAW.sum(0))) > 1e-6
    assert p_value(drawn, LAW) < 1e-6


def test_events_come_at_the_times_of_the_schedule(key):
    """Of L masked tokens each is shown at a time of its own with P(time < s) = (1 - alpha_s) / (1 - alpha_1)."""
    alpha = alphas.cosine(0.1)
    process = processes.absorbing(N, alpha)

    @jax.jit
    @jax.vmap
    def draw(key):
        times = event_times(key, process, 3)
        return times, alpha.rest(times) / 0.9

    times, share = map(np.asarray, draw(jax.random.split(key, COUNT)))
    assert (np.diff(times, axis=1) <= 0).all()
    for place, (a, b) in enumerate([(3, 1), (2, 2), (1, 3)]):  # order statistics of three uniform numbers
        assert stats.kstest(share[:, place], stats.beta(a, b).cdf).pvalue > 1e-6


def test_any_token_is_as_likely_to_be_the_next(key):
    """The belief is sure of how many are shown already, so a sequence tells its order: one of 6, evenly."""

    def denoise(x, t):
        shown = jnp.sum(x < N)
        return beliefs.Posterior(jnp.where(jnp.arange(N) == shown, jnp.zeros((3, N)), -jnp.inf))

    keys = jax.random.split(key, COUNT)
    drawn = jax.vmap(lambda k: categorical.first_hitting(k, processes.absorbing(N), denoise, (3,)))(keys)
    orders = np.zeros((N, N, N))
    orders[tuple(zip(*itertools.permutations(range(N)), strict=True))] = 1
    assert p_value(drawn, orders) > 1e-6


def test_first_hitting_asks_once_a_block_and_leaves_no_mask(key):
    asked, shape, block, calls = [], (5, 1), 2, 3

    def denoise(x, t):
        jax.debug.callback(lambda z, t: asked.append((int((z == N).sum()), float(t))), x, t)
        return beliefs.Posterior(jnp.zeros((*x.shape, N)))

    z = categorical.first_hitting(key, processes.absorbing(N), denoise, shape, block=block)
    jax.effects_barrier()
    assert z.shape == shape
    assert ((z >= 0) & (z < N)).all()
    assert len(asked) == calls == categorical.calls(shape, block)
    hidden, times = zip(*sorted(asked, key=lambda each: -each[1]), strict=True)
    size = int(np.prod(shape))
    assert hidden == tuple(range(size, 0, -block))
    assert 1 > times[0] > times[-1] > 0


# -- correctors ----------------------------------------------------------------------------------------------------


class Stay(samplers.Stepper):
    def step(self, key, denoise, carry, x, t, s, *, noise=jax.random.normal):
        return x, carry


def stay(process):
    return Stay()


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("absorbing", beliefs.Posterior), ("hybrid", beliefs.Posterior), ("ctmc", beliefs.LeaveOneOut)],
)
def test_the_gibbs_conditional_leaves_the_marginal_as_it_is(name, meaning, x64):
    """p_t K^l = p_t of each position l, by the kernel's exact law."""
    process, t = PROCESSES[name](), jnp.asarray(0.4)
    m = process.states
    forward = matrix(process, t)[:N]
    p = forward.T @ LAW @ forward
    z = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(m, dtype=jnp.int32)], indexing="ij"), -1)
    each = Partial(categorical.conditional(process), ORACLE().denoiser(process, meaning))
    laws = np.exp(jax.jit(jax.vmap(jax.vmap(each, (0, None, None)), (0, None, None)))(z, t, t))
    np.testing.assert_allclose(np.einsum("ab,aby->yb", p, laws[:, :, 0]), p, atol=1e-12)
    np.testing.assert_allclose(np.einsum("ab,aby->ay", p, laws[:, :, 1]), p, atol=1e-12)
    together = np.einsum("ab,aby,abw->yw", p, laws[:, :, 0], laws[:, :, 1])
    assert np.abs(together - p).max() > 1e-4  # both at once are wrong


def test_gibbs_moves_draw_from_the_conditional_and_correct_a_coarse_walk(key):
    """Uniform noise from t = 1 to .2 in two steps is far from p_.2, and nearer after corrections."""
    process, ts = processes.uniform(N), jnp.asarray([1.0, 0.6, 0.2])
    denoise, kernel = ORACLE().denoiser(process), categorical.ancestral(process)
    stepper = categorical.gibbs(process, categorical.draw(kernel), moves=12)
    forward = matrix(process, 0.2)
    p = forward.T @ LAW @ forward

    def one(key):
        start, walk = jax.random.split(key)
        return samplers.sample(walk, stepper, denoise, process.prior(start, (2,)), ts)

    drawn = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, COUNT)))
    corrected = np.zeros((N, N))
    np.add.at(corrected, tuple(drawn.T), 1 / COUNT)
    noise = 0.5 * np.sqrt(2 / np.pi * p / COUNT).sum()  # the expected distance of as many draws of p itself
    assert 0.5 * np.abs(np.asarray(oracles.law(kernel, denoise, process, ts, 2)) - p).sum() > 5 * noise
    assert 0.5 * np.abs(corrected - p).sum() < 2 * noise
    assert p_value(drawn, p) > 1e-6


def test_the_last_step_is_not_corrected(key):
    process = processes.absorbing(N)
    predict = categorical.draw(categorical.ancestral(process))
    z = jnp.full(200, N, jnp.int32)
    stepper = categorical.gibbs(process, predict, block=200)

    def denoise(x, t):
        return beliefs.Posterior(jnp.zeros((200, N)))

    for end, noisy in ((0.0, False), (0.25, True)):
        got = samplers.sample(key, stepper, denoise, z, [0.5, end])
        assert bool((got == N).any()) == noisy


# -- the cache -----------------------------------------------------------------------------------------------------


def network(apply, process, meaning=beliefs.LeaveOneOut, level=None):
    return denoisers.from_token_network(apply, process, meaning, level=level).bind(jnp.ones(()))


@pytest.mark.parametrize("kind", ["gibbs", "x0_then_posterior"])
def test_a_cache_changes_no_bit_and_saves_calls(kind, key):
    process, steps, n = processes.absorbing(N), 64, 6
    apply = Counted()
    by_x0 = kind == "x0_then_posterior"
    inner = categorical.x0_then_posterior(process) if by_x0 else categorical.draw(categorical.ancestral(process))
    kept = categorical.cached(process, inner)
    if kind == "gibbs":  # corrects the kept step
        inner, kept = (categorical.gibbs(process, stepper) for stepper in (inner, kept))
    drawn, calls = [], []
    for stepper in (inner, kept):
        apply.asked = 0
        sampler = categorical.sampler(process, steps, stepper)
        drawn.append(samplers.draw(key, n, network(apply, process), sampler, (4,), chunk=3))
        jax.effects_barrier()
        calls.append(apply.asked)
    assert (drawn[0] == drawn[1]).all()
    each = 2 if kind == "gibbs" else 1
    chunks = n // 3
    assert calls[0] == chunks * (each * steps - (each - 1))
    extra = (each - 1) * (steps - 1) * chunks  # a correction asks for itself
    # 12 tokens a chunk: each shows once (and corrections change what is shown).
    if kind != "gibbs":
        assert chunks < calls[1] <= chunks * (12 + 1)
    else:
        assert calls[1] < calls[0]
        assert calls[1] > extra


def test_a_cache_asks_again_after_a_change_that_its_stepper_did_not_make(key):
    """A modifier around the cached step changes tokens too."""
    process, steps = processes.absorbing(N), 100
    inner = categorical.draw(categorical.ancestral(process))

    def flip(x, s):  # changes what is shown, at every step
        return jnp.where(x < N, (x + 1) % N, x)

    apply = Counted()
    got = []
    for stepper in (inner, categorical.cached(process, inner)):
        sampler = categorical.sampler(process, steps, samplers.project(stepper, flip))
        got.append(samplers.draw(key, 2, network(apply, process), sampler, (4,)))
    assert (got[0] == got[1]).all()


def test_a_cache_is_per_example_without_a_batch(key):
    process, apply = processes.absorbing(N), Counted()
    sampler = categorical.sampler(
        process, 40, categorical.cached(process, categorical.draw(categorical.ancestral(process)))
    )
    z = sampler(key, network(apply, process)(None), process.prior(key, (3,)))
    jax.effects_barrier()
    assert (z < N).all()
    assert apply.asked <= 4


def test_mistakes_of_a_cache(key):
    process = processes.absorbing(N)
    inner = categorical.draw(categorical.ancestral(process))
    z = jnp.full(3, N, jnp.int32)

    def walk(denoise, stepper=None, **options):
        stepper = categorical.cached(process, stepper or inner, **options)
        return samplers.sample(key, stepper, denoise, z, jnp.linspace(1.0, 0.0, 4))

    timed = network(Counted(), process, level=denoisers.total_noise)(None)
    assert timed.time_conditioned
    with pytest.raises(InputError, match="this denoiser depends on the time"):
        walk(timed)
    with pytest.raises(InputError, match="does not say that it ignores the time"):
        walk(lambda z, t: beliefs.LeaveOneOut(jnp.zeros((3, N))))

    def said(z, t):
        return beliefs.LeaveOneOut(jnp.zeros((3, N)))

    said.time_conditioned = False
    assert (walk(said) < N).all()
    untimed = network(Counted(), process)(None)
    with pytest.raises(InputError, match="cached was told of a Posterior"):
        walk(untimed, meaning=beliefs.Posterior)
    with pytest.raises(InputError, match="give cached its meaning and dtype"):
        walk(untimed, dtype=jnp.float16)
    with pytest.raises(InputError, match=r"away from \(z, t\)"):
        walk(untimed, categorical.gibbs(process, inner))
    with pytest.raises(InputError, match="expected beliefs"):
        categorical.cached(process, inner, meaning=dict)


# -- samplers as values --------------------------------------------------------------------------------------------


def test_draw_gives_tokens_whatever_the_number_and_the_chunk(key):
    process, seen = processes.absorbing(N), []
    sampler, make = categorical.sampler(process, 5), network(Counted(), process)
    all_at_once = samplers.draw(key, 7, make, sampler, (4,), chunk=8)
    assert all_at_once.dtype == np.int32
    assert all_at_once.shape == (7, 4)
    assert ((all_at_once >= 0) & (all_at_once < N)).all()
    few = samplers.draw(key, 7, make, sampler, (4,), chunk=3, progress=lambda done, n: seen.append((done, n)))
    assert (few == all_at_once).all()
    assert seen == [(0, 7), (3, 7), (6, 7), (7, 7)]
    again = samplers.draw(key, 2, make, categorical.sampler(process, 5, begin=0.5), (4,), x0=all_at_once[:2])
    assert again.dtype == np.int32
    for x0, match in ((all_at_once[:2] + N, "outside the vocabulary"), (all_at_once[:2] * 1.0, "tokens are ids")):
        with pytest.raises(InputError, match=match):
            samplers.draw(key, 2, make, sampler, (4,), x0=x0)


def test_tokens_and_numbers_walk_side_by_side(key):
    tokens, numbers = processes.absorbing(N), processes.vp()
    product = processes.Product({"x": numbers, "z": tokens})
    stepper = samplers.product({"x": samplers.ddim(numbers, 1.0), "z": categorical.draw(categorical.ancestral(tokens))})

    def denoise(x, t):
        return {"x": 0 * x["x"], "z": beliefs.Posterior(jnp.zeros((4, N)))}

    like = {"x": jax.ShapeDtypeStruct((2,), jnp.float32), "z": jax.ShapeDtypeStruct((4,), jnp.int32)}
    sampler = samplers.Sampler(product, stepper, jnp.linspace(1.0, 0.0, 5))
    drawn = samplers.draw(key, 3, lambda cond: denoise, sampler, like)
    assert drawn["z"].dtype == np.int32
    assert drawn["z"].max() < N
    assert drawn["x"].dtype == np.float32


def test_what_becomes_of_the_last_noise(key):
    process = processes.absorbing(N, alphas.linear())
    kernel = categorical.ancestral(process)
    posterior, argmax, none = (
        categorical.sampler(process, 4, kernel, end=0.5, final=final) for final in ("posterior", "argmax", "none")
    )
    np.testing.assert_allclose(posterior.ts, [1, 0.875, 0.75, 0.625, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(none.ts, posterior.ts[:-1])

    def make(cond):
        return lambda z, t: beliefs.Posterior(jnp.broadcast_to(jnp.log(jnp.asarray([0.5, 0.3, 0.2])), (*z.shape, N)))

    drawn = {
        name: samplers.draw(key, 500, make, s, (8,)) for name, s in zip("pan", (posterior, argmax, none), strict=True)
    }
    assert (drawn["p"] < N).all()
    assert (drawn["a"] < N).all()
    hidden = drawn["n"] == N
    error = 5 * np.sqrt(0.25 / 4000)
    assert abs(hidden.mean() - 0.5) < error
    assert (drawn["a"][hidden] == 0).all()  # the likeliest of those left
    assert (drawn["a"][~hidden] == drawn["n"][~hidden]).all()
    assert abs((drawn["p"] == 0).mean() - 0.5) < error
    np.testing.assert_allclose(categorical.sampler(process, 4, final="argmax").ts, [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


def test_mistakes_of_a_sampler():
    process = processes.absorbing(N)
    kernel = categorical.ancestral(process)
    with pytest.raises(InputError, match="is not one of 'posterior', 'argmax', 'none'"):
        categorical.sampler.__wrapped__(process, 4, final="greedy")
    with pytest.raises(InputError, match="expected 0 <= end < begin <= 1"):
        categorical.sampler(process, 4, begin=0.1, end=0.2)
    with pytest.raises(InputError, match="steps"):
        categorical.sampler(process, 0)
    with pytest.raises(InputError, match="needs a kernel"):
        categorical.sampler(process, 4, categorical.draw(kernel), final="argmax")
    with pytest.raises(InputError, match="must fall"):
        samplers.sample(jax.random.key(0), categorical.draw(kernel), kernel, jnp.zeros(2, jnp.int32), [0.0, 1.0])
    for other in (processes.uniform(N), processes.hybrid(N), PROCESSES["ctmc"]()):
        with pytest.raises(InputError, match="first_hitting is for the absorbing process"):
            categorical.first_hitting(jax.random.key(0), other, kernel, (2,))
    for shape, block, match in (((2,), 0, "block=0"), ((0,), 1, "at least one token")):
        with pytest.raises(InputError, match=match):
            categorical.first_hitting(jax.random.key(0), process, kernel, shape, block=block)
    for options in ({"moves": 0}, {"block": 0}):
        with pytest.raises(InputError, match="expected at least 1 of each"):
            categorical.gibbs(process, categorical.draw(kernel), **options)
    stepper = categorical.gibbs(process, stay(process), block=3)
    with pytest.raises(InputError, match="expected at most as many"):
        stepper.step(jax.random.key(0), kernel, (), jnp.zeros(2, jnp.int32), 0.5, 0.4)


# -- programs ------------------------------------------------------------------------------------------------------

STEPPERS = {
    "ancestral": lambda p, v: categorical.draw(categorical.ancestral(p)),
    "euler": lambda p, v: categorical.draw(categorical.euler(p)),
    "tau_leaping": lambda p, v: categorical.draw(categorical.tau_leaping(p)),
    "tweedie": lambda p, v: categorical.draw(categorical.tweedie(p)),
    "remask": lambda p, v: categorical.draw(categorical.remask(p, categorical.cap(v))),
    "x0_then_posterior": lambda p, v: categorical.x0_then_posterior(p),
    "gibbs": lambda p, v: categorical.gibbs(p, categorical.draw(categorical.ancestral(p)), moves=2),
    "cached": lambda p, v: categorical.cached(p, categorical.draw(categorical.ancestral(p))),
}


def size_of(run):
    """The lines of a program, which is traced (anew, if anything in it is) and not compiled."""
    return str(jax.make_jaxpr(run)()).count("\n")


@pytest.mark.parametrize("name", STEPPERS)
def test_nothing_retraces_and_programs_do_not_grow(name, key):
    apply = Counted()

    def run(v, n=16):
        p = processes.absorbing(N, alphas.log_linear(v / 10))
        denoise = denoisers.from_token_network(apply, p)(jnp.full((), v))
        return samplers.sample(
            key, STEPPERS[name](p, v), denoise, jnp.full(3, N, jnp.int32), jnp.linspace(1.0, 0.0, n + 1)
        )

    few = size_of(lambda: run(0.1))
    once = apply.traces
    size_of(lambda: run(0.2))
    assert apply.traces == once > 0
    assert few == size_of(lambda: run(0.1, 256)) > 10


def test_first_hitting_does_not_retrace_or_grow(key):
    apply = Counted()

    def run(v, size=16):
        p = processes.absorbing(N, alphas.log_linear(v / 10))
        denoise = denoisers.from_token_network(apply, p)(jnp.full((), v))
        return categorical.first_hitting(key, p, denoise, (size,))

    few = size_of(lambda: run(0.1))
    once = apply.traces
    size_of(lambda: run(0.2))
    assert apply.traces == once > 0
    assert few == size_of(lambda: run(0.1, 256)) > 10


def test_a_score_says_nothing_where_all_is_noise(key):
    """... so a walk that starts there goes on, from the uniform belief."""
    process = processes.hybrid(N)
    denoise = ORACLE().denoiser(process, beliefs.Score)
    law = oracles.law(categorical.ancestral(process), denoise, process, jnp.linspace(1.0, 0.0, 9), 2)
    assert float(oracles.total_variation(law[:N, :N], jnp.asarray(LAW, jnp.float32))) < 0.1
