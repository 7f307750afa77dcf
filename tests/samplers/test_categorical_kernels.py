"""The law of each kernel, against matrices: Bayes' rule by summing over all sequences, the rates of the reverse chain,
and how fast the exact law of a whole walk nears that of the data."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from toys import DENOISED, LAW, ORACLE, PROCESSES, N, matrix

from jaxdiff import alphas, beliefs, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.samplers import categorical

pytestmark = pytest.mark.claim(
    "each sampler's law converges at first order; draws have it, rare tokens too; the cache changes no bit"
)


every_process = pytest.mark.parametrize("name", PROCESSES)
T, S, NEAR = 0.6, 0.45, 0.57
POINTS = [(T, S), (T, 0.0), (T, NEAR), (1.0, 0.5)]


def noisy(process, t):
    """p_t(z_t), (states, states), of the two tokens."""
    forward = matrix(process, t)[:N]
    return forward.T @ LAW @ forward


def reverse(process, t, s):
    """p(z_s^l | z_t), (states, states, 2, states), by summing over all z_s; of x0 in the place of z_0."""
    step, before = matrix(process, t, s or None), noisy(process, s)
    if s == 0:
        before = np.pad(LAW, (0, process.states - N))
    joint = np.einsum("ij,ia,jb->abij", before, step, step)
    joint = joint / joint.sum((2, 3), keepdims=True)
    return np.stack([joint.sum(3), joint.sum(2)], 2)


def grid(steps, begin=1.0):
    """The pairs (t, s) of equal steps."""
    ts = np.linspace(begin, 0.0, steps + 1)
    return [*itertools.pairwise(ts)]


def laws(make, process, denoise, pairs, length=2):
    """{name: the law of a kernel at each pair (t, s) and every z_t, (pairs, states, .., length, states)}.

    make(process) is {name: (kernel, the meaning of the belief it gets)}; all of them are one program."""
    states = np.stack(np.meshgrid(*length * [np.arange(process.states, dtype=np.int32)], indexing="ij"), -1)
    flat = tabled(make, process, denoise, states.reshape(-1, length), *np.asarray(pairs, float).T)
    return {name: np.exp(logs).reshape(len(pairs), *states.shape, -1) for name, logs in flat.items()}


@eqx.filter_jit
def tabled(make, process, denoise, states, ts, ss):
    def at(t, s, z):
        said = {meaning: Partial(of, ask(z, t)) for meaning, ask in denoise.items()}  # once for all kernels
        return {name: kernel(said[meaning], z, t, s) for name, (kernel, meaning) in make(process).items()}

    return jax.vmap(jax.vmap(at, (None, None, 0)), (0, 0, None))(ts, ss, states)


def of(belief, z, t):
    return belief


def plain_kernels(process):
    kernels = {f"ancestral {meaning}": (categorical.ancestral(process), meaning) for meaning in MEANINGS}
    return kernels | {
        "euler": (categorical.euler(process), "LeaveOneOut"),
        "tau_leaping": (categorical.tau_leaping(process), "Score"),
        "tweedie": (categorical.tweedie(process), "Score"),
        "euler, its rates given": (categorical.euler(process, categorical.reverse_rate(process)), "LeaveOneOut"),
        "tau_leaping, its rates given": (categorical.tau_leaping(process, categorical.reverse_rate(process)), "Score"),
    }


MEANINGS = {meaning.__name__: meaning for meaning in DENOISED}


@functools.cache
def exact(name, floor=0.0):
    """The laws of all kernels on the steps that the tests look at, of a process whose alpha falls to `floor`."""
    process = PROCESSES[name](alphas.log_linear(floor) if floor else alphas.linear())
    denoise = {name: ORACLE().denoiser(process, meaning) for name, meaning in MEANINGS.items()}
    return process, laws(plain_kernels, process, denoise, [*POINTS, *grid(256), *grid(512)])


def walked(start, steps):
    """The law of two tokens that were carried through the laws of a walk's steps."""
    for step in steps:
        start = np.einsum(
            "ab,abi,abj->ij", start, step[:, :, 0], step[:, :, 1], optimize=["einsum_path", (0, 1), (0, 1)]
        )
    return start


@every_process
@pytest.mark.parametrize("s", [S, 0.0])
def test_the_ancestral_step_is_bayes_rule_for_every_kind_of_belief(name, s, x64):
    process, got = exact(name)
    truth = reverse(process, T, s)
    np.testing.assert_allclose(truth.sum(-1), 1, atol=1e-12)
    for meaning in MEANINGS:
        np.testing.assert_allclose(
            got[f"ancestral {meaning}"][POINTS.index((T, s))], truth, atol=1e-12, err_msg=meaning
        )


@every_process
def test_tweedie_is_the_ancestral_step_of_a_score_that_comes_from_a_belief(name, x64):
    process, got = exact(name)
    for s in (S, 0.0):
        np.testing.assert_allclose(got["tweedie"][POINTS.index((T, s))], reverse(process, T, s), atol=1e-11)


def test_tweedie_asks_of_a_score_no_law_of_x0(x64):
    """exp(-h Q) s, and exp(h Q), by the exponential of the rate matrix, for a score that no belief has."""
    process, scores = processes.uniform(N, alphas.log_linear()), jnp.asarray([[0.0, 0.7, -0.2], [0.3, 0.0, 0.1]])
    z = jnp.asarray([0, 1], jnp.int32)
    kernel = Partial(categorical.tweedie(process), lambda z, t: beliefs.Score(scores))
    got = jax.jit(kernel)(z, jnp.asarray(T), jnp.asarray(S))
    step = matrix(process, T, S)
    staggered = np.exp(np.asarray(scores)) @ np.linalg.inv(step)
    want = staggered * step[:, np.asarray(z)].T
    assert (want > 0).all()
    np.testing.assert_allclose(np.exp(got), want / want.sum(-1, keepdims=True), atol=1e-12)


@every_process
def test_euler_and_tau_leaping_follow_the_rates_of_the_reverse_chain(name, x64):
    """R(z -> y) p_t(z) = p_t(y) R(y -> z): the rate matrix is the derivative of the transition matrix."""
    process, got = exact(name)
    h = T - NEAR
    small = 1e-7
    forward = (matrix(process, T + small, T) - np.eye(process.states)) / small
    p = noisy(process, T)
    np.fill_diagonal(forward, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.einsum("ya,yb->aby", forward, p) / p[..., None]
        second = np.einsum("yb,ay->aby", forward, p) / p[..., None]
    rates = np.stack([first, second], 2)  # (z, z', l, y)
    total = rates.sum(-1, keepdims=True)
    here = np.zeros_like(rates)
    for z in np.ndindex(2 * (process.states,)):
        here[z][np.arange(2), z] = 1
    held = np.where(here == 1, 1 - h * total, h * rates)
    assert held.min() > -1e-6  # no cut here
    np.testing.assert_allclose(got["euler"][POINTS.index((T, NEAR))], held, atol=1e-6)
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(rates / total)
    leapt = np.where(here == 1, np.exp(-h * total), -np.expm1(-h * total) * share)
    np.testing.assert_allclose(got["tau_leaping"][POINTS.index((T, NEAR))], leapt, atol=1e-6)


@every_process
@pytest.mark.parametrize("kind", ["euler", "tau_leaping"])
def test_the_rates_of_the_reverse_chain_are_those_of_a_step_that_is_given_none(name, kind, x64):
    got = exact(name)[1]
    np.testing.assert_allclose(got[f"{kind}, its rates given"], got[kind], atol=1e-12)


def twice(rate, denoise, z, t):
    """Every jump twice as often; of staying, which is no jump, something is said too."""
    logs = rate(denoise, z, t)
    return jnp.where(jnp.isneginf(logs), 0.0, jnp.log(2.0) + logs)


@pytest.mark.parametrize("kind", ["euler", "tau_leaping"])
def test_a_step_follows_the_rates_that_it_is_given(kind, x64):
    process, z, h = processes.uniform(N), jnp.asarray([0, 2], jnp.int32), 0.01
    denoise, make = ORACLE().denoiser(process), getattr(categorical, kind)
    asked = []

    def counted(z, t):
        asked.append(t)
        return denoise(z, t)

    rate = Partial(twice, categorical.reverse_rate(process))
    step, unguided = make(process, rate), categorical.reverse_rate(process)
    got, jumps = jax.jit(lambda z: (jnp.exp(step(counted, z, T, T - h)), jnp.exp(unguided(denoise, z, T))))(z)
    assert len(asked) == 1
    got, jumps = np.array(got), np.asarray(jumps)
    events = 2 * h * jumps.sum(-1)
    np.testing.assert_allclose(1 - got[[0, 1], z], events if kind == "euler" else -np.expm1(-events), rtol=1e-9)
    got[[0, 1], z] = 0
    np.testing.assert_allclose(got / got.sum(-1, keepdims=True), jumps / jumps.sum(-1, keepdims=True), atol=1e-12)


def test_euler_is_cut_to_a_law_where_the_step_is_too_long(x64):
    got = exact("uniform")[1]["euler"][POINTS.index((1.0, 0.5))]
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(got[0, 0, 0], [0, 0.5, 0.5], atol=1e-12)


WALKS = [(name, kind) for name in PROCESSES for kind in ("ancestral LeaveOneOut", "euler", "tau_leaping")]


@pytest.mark.parametrize(("name", "kind"), [*WALKS, ("uniform", "tweedie")])
def test_the_law_of_the_walk_nears_the_data_at_order_one(name, kind, x64):
    process, got = exact(name, 1e-6 if kind == "tweedie" else 0.0)
    start, (few, many), off = noisy(process, 1.0), np.split(got[kind][len(POINTS) :], [256]), []
    for steps in (few, many):
        law = walked(start, steps)
        assert law[:N, :N].sum() == pytest.approx(1, abs=1e-9)  # nothing is left masked
        off.append(0.5 * np.abs(law[:N, :N] - LAW).sum())
    assert 0.85 < np.log2(off[0] / off[1]) < 1.15, off
    assert off[1] < 0.006


@pytest.mark.parametrize("make", [processes.absorbing, processes.uniform])
def test_the_walk_is_right_in_float32_where_the_steps_are_many(make):
    """1,000 steps of a law with a rare token, in float32 and, by matrices, in float64."""
    process, rare = make(2), 3e-5
    oracle = oracles.table(jnp.log(jnp.asarray([1 - rare, rare])))
    ts = jnp.linspace(1.0, 0.0, 1001)
    got = oracles.law(categorical.ancestral(process), oracle.denoiser(process), process, ts, 1)
    assert got.dtype == jnp.float32
    noise = np.asarray([0, 0, 1] if process.masked else [0.5, 0.5])
    data = np.asarray([1 - rare, rare, 0])[: process.states]
    law = noise
    for k in range(1000, 0, -1):
        keep = (1000 - k) / (1001 - k)  # alpha_t / alpha_s
        at_s = (1001 - k) / 1000 * data + (k - 1) / 1000 * noise
        joint = at_s[:, None] * (keep * np.eye(len(noise)) + (1 - keep) * noise)
        law = joint @ (law / np.maximum(joint.sum(0), 1e-300))
    assert float(got[1]) == pytest.approx(law[1], rel=1e-3)
    assert law[1] == pytest.approx(rare, rel=1e-6)


def stepping_kernels(process):
    return {
        kind: (getattr(categorical, kind)(process), "LeaveOneOut") for kind in ("ancestral", "euler", "tau_leaping")
    }


@pytest.mark.parametrize(("make", "schedule"), [(processes.absorbing, "geometric"), (processes.uniform, "cosine")])
def test_a_walk_ends_at_data_whatever_the_schedule_keeps_of_noise(make, schedule, x64):
    process = make(N, getattr(alphas, schedule)())
    denoise = {"LeaveOneOut": ORACLE().denoiser(process)}
    for kind, got in laws(stepping_kernels, process, denoise, [(T, 0.0)]).items():
        np.testing.assert_allclose(got[0][..., :N], reverse(process, T, 0.0)[..., :N], atol=1e-12, err_msg=kind)


# -- ReMDM ---------------------------------------------------------------------------------------------------------

RULES = {
    "none": lambda: categorical.cap(0),
    "little": lambda: categorical.cap(0.05),
    "cap": lambda: categorical.cap(0.2),
    "all": lambda: categorical.cap(1),
    "half": lambda: categorical.rescale(0.5),
    "most": lambda: categorical.rescale(1),
}


def remasking_kernels(process):
    kernels = {name: (categorical.remask(process, rule()), "LeaveOneOut") for name, rule in RULES.items()}
    return kernels | {"ancestral": (categorical.ancestral(process), "LeaveOneOut")}


def certain(x0, z, t):
    return beliefs.LeaveOneOut(jnp.broadcast_to(x0, (*z.shape, N)))


@pytest.mark.parametrize("schedule", ["linear", "log_linear", "cosine_squared"])
def test_remasking_keeps_every_marginal(schedule, x64):
    """q(z_s | x0) = alpha_s x0 + (1 - alpha_s) mask, where the belief is x0 itself."""
    process, pairs = processes.absorbing(N, getattr(alphas, schedule)()), grid(9, 0.9)
    x0 = jnp.log(jnp.asarray([0.0, 1.0, 0.0]))
    steps = laws(remasking_kernels, process, {"LeaveOneOut": Partial(certain, x0)}, pairs, 1)
    for rule in ("cap", "half", "most"):
        law = np.exp(process.log_marginal(x0, 0.9))
        for (_, s), step in zip(pairs, steps[rule], strict=True):
            law = law @ step[:, 0]
            alpha = float(process.alpha(s))
            np.testing.assert_allclose(law, [0, alpha, 0, 1 - alpha], atol=1e-12, err_msg=rule)


@functools.cache
def remasked():
    process = processes.absorbing(N)
    pairs = [(T, S), (0.8, 0.5), (0.3, 0.1), *(pair for n in (16, 64, 256) for pair in grid(n))]
    return process, laws(remasking_kernels, process, {"LeaveOneOut": ORACLE().denoiser(process)}, pairs)


def test_remasking_nothing_is_the_ancestral_step_and_the_most_hides_all_that_can_be(x64):
    got = remasked()[1]
    np.testing.assert_allclose(got["none"][0], got["ancestral"][0], atol=1e-12)
    # At t = .8, s = .5 (1 - alpha_s) / alpha_t is 2.5: all that is shown may be hidden.
    assert got["most"][1, 0, 0, 0, N] == 1
    limit = 0.1 / 0.7  # at t = .3, s = .1
    for rule, sigma in (("half", 0.5 * limit), ("little", 0.05), ("all", limit)):
        assert got[rule][2, 0, 0, 0, N] == pytest.approx(sigma, rel=1e-9)


def test_remasking_keeps_the_law_of_one_token_and_corrects_many(x64):
    """Of one token there is nothing to be wrong about; of two, the law nears the data's."""
    process, got = remasked()
    alone = Partial(certain, jnp.log(jnp.asarray(LAW.sum(1))))
    law = np.asarray([0.0, 0.0, 0.0, 1.0])
    for step in laws(remasking_kernels, process, {"LeaveOneOut": alone}, grid(9), 1)["half"]:
        law = law @ step[:, 0]
    np.testing.assert_allclose(law[:N], LAW.sum(1), atol=1e-12)
    start = noisy(process, 1.0)
    walks = np.split(got["half"][3:], np.cumsum([16, 64]))
    off = [0.5 * np.abs(walked(start, steps)[:N, :N] - LAW).sum() for steps in walks]
    assert off[0] > 1.8 * off[1] > 3 * off[2]


# -- refusals ------------------------------------------------------------------------------------------------------


def test_mistakes_of_a_kernel():
    process, z = processes.uniform(N), jnp.zeros(2, jnp.int32)
    for make in (categorical.ancestral, categorical.euler, categorical.tau_leaping):
        with pytest.raises(InputError, match="expected a belief about tokens"):
            make(process)(lambda z, t: jnp.zeros((2, N)), z, T, S)
    for make in (categorical.euler, categorical.tau_leaping):
        with pytest.raises(InputError, match=r"a rate returned \(2, 4\) for tokens of shape \(2,\), expected \(2, 3\)"):
            make(process, lambda denoise, z, t: jnp.zeros((2, N + 1)))(ORACLE().denoiser(process), z, T, S)
    with pytest.raises(InputError, match=r"alpha\(1\) is 0"):
        categorical.tweedie(process)
    for other in (process, processes.hybrid(N), processes.gidd(N), PROCESSES["ctmc"]()):
        with pytest.raises(InputError, match="remask is for the absorbing process"):
            categorical.remask(other, categorical.cap(0.1))
    for make in (categorical.cap, categorical.rescale):
        with pytest.raises(InputError, match="expected a probability"):
            make(1.5)
