"""Exact laws of sequences prove each other: brute force over all sequences and a naive Bayes rule against a table, a
table against a chain, and both against mixtures of them with labels, under every kind of process on tokens."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from roster import TOKEN_PROCESSES

from jaxdiff import beliefs, oracles, processes
from jaxdiff.errors import InputError
from jaxdiff.processes.categorical import log_posterior

pytestmark = pytest.mark.claim("exact laws of sequences: a table, a chain, and a sampler's by its kernels")


every_process = pytest.mark.parametrize("name", TOKEN_PROCESSES)
T = 0.6


def small_chain(seed=0, vocab=3):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(vocab)), rng.dirichlet(np.ones(vocab), vocab)


def tabled(initial, transition, length):
    """p(x) of a chain, by multiplying."""
    p = initial
    for _ in range(length - 1):
        p = p[..., None] * transition
    return p


def noise_matrix(process, t=T):
    """q(z | x0), (vocab, states), by the process's own marginals of one-hot laws."""
    return np.exp(process.log_marginal(jnp.log(jnp.eye(process.vocab)), t))


def brute(p, q, z):
    """(p(x0^l | z), p(x0^l | z without l), p_t(z)) by the sum over all sequences."""
    length, vocab = p.ndim, len(p)
    posterior, alone = np.zeros((2, length, vocab))
    for x in itertools.product(range(vocab), repeat=length):
        each = np.array([q[a, b] for a, b in zip(x, z, strict=True)])
        for place in range(length):
            posterior[place, x[place]] += p[x] * each.prod()
            alone[place, x[place]] += p[x] * np.delete(each, place).prod()
    return posterior / posterior.sum(1, keepdims=True), alone / alone.sum(1, keepdims=True), posterior[0].sum()


MEANINGS = (beliefs.Posterior, beliefs.LeaveOneOut, beliefs.Score)


@eqx.filter_jit
def believed(oracle, process, zs):
    """The three beliefs about each of zs, as probabilities, and log p_t(z)."""

    def one(z):
        found = [oracle.denoiser(process, meaning)(z, T) for meaning in MEANINGS]
        arrays = [b.log_ratios if isinstance(b, beliefs.Score) else b.logits for b in found]
        return *(jax.nn.softmax(a) for a in arrays), oracle.log_marginal(process, z, T)

    return jax.vmap(one)(jnp.asarray(zs, jnp.int32))


def check(oracle, p, process, zs):
    """Bayes' rule by brute force; p(z) of each."""
    q, totals = noise_matrix(process), []
    for z, *found, log_total in zip(zs, *believed(oracle, process, zs), strict=True):
        posterior, alone, total = brute(p, q, z)
        score = alone @ q  # p_t(z^l | the others)
        for one, exact in zip(found, (posterior, alone, score), strict=True):
            np.testing.assert_allclose(one, exact, atol=1e-14)
        np.testing.assert_allclose(log_total, np.log(total), rtol=1e-13)
        totals.append(total)
    return np.array(totals)


@every_process
def test_tables_chains_and_labelled_ones_are_bayes_rule_by_brute_force(name, x64):
    process, weights = TOKEN_PROCESSES[name](3), np.array([0.3, 0.7])
    m = process.states - 1
    zs = [(0, 1, 2), (2, 2, 1), (m, 0, m)]
    laws = [tabled(*small_chain(seed), 3) for seed in (0, 1)]
    chains = [oracles.chain(*small_chain(seed), 3) for seed in (0, 1)]
    joint = np.stack([w * p for w, p in zip(weights, laws, strict=True)], -1)
    check(oracles.table(np.log(laws[0])), laws[0], process, zs)
    check(chains[0], laws[0], process, zs)
    by_chains = [oracles.labelled(np.log(weights), chains)] if name == "absorbing" else []
    for oracle in (oracles.labelled_table(np.log(joint)), *by_chains):
        given = [w * check(oracle.given(y), laws[y], process, zs) for y, w in enumerate(weights)]
        check(oracle.unlabelled, joint.sum(-1), process, zs)
        labels = jax.jit(jax.vmap(oracle.classifier(process), (0, None)))(jnp.asarray(zs, jnp.int32), T)
        np.testing.assert_allclose(np.exp(labels.T), given / np.sum(given, 0), atol=1e-14)


def test_labels_of_a_prefix(x64):
    weights, x = np.array([0.3, 0.7]), np.array([2, 0, 1])
    laws = [tabled(*small_chain(seed), 3) for seed in (0, 1)]
    joint = np.stack([w * p for w, p in zip(weights, laws, strict=True)], -1)
    oracle = oracles.labelled(np.log(weights), [oracles.chain(*small_chain(seed), 3) for seed in (0, 1)])
    for n in range(4):
        prefix = joint[tuple(x[:n])].reshape(-1, 2).sum(0)
        unread = jnp.asarray(np.where(np.arange(3) < n, x, 7))
        np.testing.assert_allclose(jnp.exp(oracle.log_labels(unread, n)), prefix / prefix.sum(), rtol=1e-13)
    np.testing.assert_allclose(oracle.log_labels(jnp.asarray(x)), oracle.log_labels(jnp.asarray(x), 3))


def test_the_probability_of_a_sequence_and_of_its_next_token(x64):
    p = tabled(*small_chain(), 4)
    weights = np.array([0.4, 0.6])
    other = tabled(*small_chain(1), 4)
    mixed = oracles.labelled(np.log(weights), [oracles.table(np.log(law)) for law in (p, other)]).unlabelled
    found = {
        "table": (oracles.table(np.log(p)), p),
        "chain": (oracles.chain(*small_chain(), 4), p),
        "mixed": (mixed, 0.4 * p + 0.6 * other),
    }
    x = jnp.array([1, 0, 2, 2])
    log_next = eqx.filter_jit(lambda oracle, x, n: oracle.log_next(x, n))
    for name, (oracle, law) in found.items():
        np.testing.assert_allclose(oracle.log_prob(x), np.log(law[1, 0, 2, 2]), rtol=1e-13, err_msg=name)
        each = [log_next(oracle, x.at[n:].set(0), jnp.asarray(n)) for n in range(4)]
        np.testing.assert_allclose(each[0], np.log(law.sum((1, 2, 3))), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(each[3], np.log(law[1, 0, 2] / law[1, 0, 2].sum()), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(sum(e[i] for e, i in zip(each, x, strict=True)), oracle.log_prob(x), rtol=1e-12)


def test_impossible_sequences_and_zeros_in_a_law(x64):
    """A chain that never stays: what is shown twice is impossible, and its neighbours' beliefs stay finite."""
    oracle = oracles.chain([0.5, 0.5, 0.0], [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], 3)
    assert oracle.log_prob(jnp.array([0, 0, 1])) == -jnp.inf
    assert oracle.log_prob(jnp.array([2, 0, 1])) == -jnp.inf
    np.testing.assert_allclose(oracle.log_prob(jnp.array([0, 1, 0])), np.log(0.25))
    process = processes.absorbing(3)
    belief = oracle.denoiser(process)(jnp.array([0, 3, 1], jnp.int32), 0.5).logits
    np.testing.assert_allclose(np.exp(belief[1]), [0, 0, 1], atol=1e-15)
    impossible = oracle.denoiser(process)(jnp.array([0, 0, 3], jnp.int32), 0.5).logits
    assert not jnp.isnan(impossible).any()
    np.testing.assert_allclose(jnp.exp(impossible).sum(-1), 1)


def test_a_long_chain_keeps_float32s_precision(x64):
    initial, transition = small_chain(vocab=5)
    process, length = processes.uniform(5), 300
    fine = oracles.chain(initial, transition, length)
    coarse = oracles.chain(initial.astype(np.float32), transition.astype(np.float32), length)
    x = fine.sample(jax.random.key(0), 1)[0]
    z = process.perturb(jax.random.key(1), x, T)
    ask = eqx.filter_jit(lambda o, meaning, t: o.denoiser(process, meaning)(z, t).logits)
    for meaning in (beliefs.LeaveOneOut, beliefs.Posterior):
        one, two = ask(fine, meaning, T), ask(coarse, meaning, np.float32(T))
        assert two.dtype == jnp.float32
        np.testing.assert_allclose(np.exp(two), np.exp(one), atol=1e-5)
    each = [initial[x[0]], *transition[x[:-1], x[1:]]]
    np.testing.assert_allclose(fine.log_prob(x), np.log(each).sum(), rtol=1e-12)


def test_samples_are_of_the_law(key):
    n = 20_000
    p = tabled(*small_chain(), 3)
    other = tabled(*small_chain(1), 3)
    chains = [oracles.chain(*small_chain(seed), 3) for seed in (0, 1)]
    mixed = oracles.labelled(np.log([0.3, 0.7]), chains).unlabelled
    for oracle, law in ((oracles.table(np.log(p)), p), (chains[0], p), (mixed, 0.3 * p + 0.7 * other)):
        counts = np.zeros((3, 3, 3))
        np.add.at(counts, tuple(np.asarray(oracle.sample(key, n)).T), 1)
        assert np.all(np.abs(counts / n - law) < 5 * np.sqrt(law * (1 - law) / n))


def _plug_in(process, denoise, z, t, s):
    alone = beliefs.leave_one_out(process, denoise(z, t), z, t)
    return log_posterior(process, alone, z, t, s)


@every_process
def test_the_law_of_a_sampler_is_the_product_of_its_transition_matrices(name, x64):
    """Against loops over pairs of states; one token at a time is exact, so a law of one token ends as the data."""
    process, ts = TOKEN_PROCESSES[name](3), [1.0, 0.55, 0.2, 0.0]
    p = tabled(*small_chain(), 2)
    denoise, kernel = oracles.table(np.log(p)).denoiser(process), Partial(_plug_in, process)
    found = oracles.law(kernel, denoise, process, ts, 2)
    states = list(itertools.product(range(process.states), repeat=2))
    limit = np.exp(process.log_limit())
    weights = np.array([limit[a] * limit[b] for a, b in states])
    rows_of = jax.jit(jax.vmap(lambda z, t, s: jnp.exp(kernel(denoise, z, t, s)), (0, None, None)))
    for t, s in itertools.pairwise(ts):
        rows = np.asarray(rows_of(jnp.asarray(states, jnp.int32), t, s))
        weights = np.array([sum(w * r[0, a] * r[1, b] for w, r in zip(weights, rows, strict=True)) for a, b in states])
    np.testing.assert_allclose(found, weights.reshape(found.shape), atol=1e-13)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-12)

    one = oracles.table(np.log(p.sum(0)))
    begin = jnp.exp(jax.vmap(lambda z: one.log_marginal(process, z[None], 1.0))(jnp.arange(process.states)))
    law = oracles.law(kernel, one.denoiser(process), process, ts, 1, start=begin)
    np.testing.assert_allclose(law[:3], p.sum(0), atol=1e-12)


def test_total_variation_by_hand():
    np.testing.assert_allclose(oracles.total_variation(jnp.array([0.5, 0.5, 0.0]), jnp.array([0.1, 0.5, 0.4])), 0.4)


def test_mistakes(x64):
    law, process = oracles.chain(*small_chain(), 3), processes.uniform(3)
    both = oracles.labelled(np.log([0.5, 0.5]), [law, law])
    bad = [
        (lambda: oracles.table(np.log(np.full((2, 3), 1 / 6))), r"shape \(2, 3\), expected \(vocab,\) \* length"),
        (lambda: oracles.table(np.zeros((2, 2))), r"a table of log p\(x\) does not sum to 1"),
        (lambda: oracles.chain([0.5, 0.5], np.eye(3), 3), r"initial of shape \(2,\), transition of shape \(3, 3\)"),
        (lambda: oracles.chain([0.5, 0.5], np.eye(2), 0), r"length=0"),
        (lambda: oracles.chain([0.5, 0.5], 2 * np.eye(2), 2), r"a row of a chain does not sum to 1"),
        (lambda: oracles.chain([1.5, -0.5], np.eye(2), 2), r"negative probability"),
        (lambda: oracles.labelled(np.log([0.5, 0.5]), [law]), r"\(2,\) weights and 1 laws"),
        (lambda: oracles.labelled(np.log([0.5, 0.5]), [law, oracles.chain(*small_chain(), 4)]), r"one kind, length"),
        (lambda: oracles.labelled(np.zeros(2), [law, law]), r"labels' weights does not sum to 1"),
        (lambda: oracles.labelled_table(np.array([[0.0, -np.inf], [-np.inf, -np.inf]])), r"class of probability 0"),
        (lambda: both.given(2), r"label 2 is not one of the 2 classes, 0 to 1"),
        (lambda: both.given(-1), r"label -1 is not one of the 2 classes"),
        (lambda: law.denoiser(process, int), r"expected beliefs.LeaveOneOut, Posterior or Score"),
        (lambda: law.denoiser(processes.uniform(4)), r"an oracle of 3 tokens got a process on 4"),
        (lambda: both.classifier(processes.uniform(4)), r"an oracle of 3 tokens got a process on 4"),
        (lambda: law.denoiser(process)(jnp.zeros(4, jnp.int32), 0.5), r"length 3 got z of shape \(4,\)"),
        (lambda: law.log_prob(jnp.zeros((1, 3), jnp.int32)), r"length 3 got x of shape \(1, 3\)"),
        (lambda: law.log_prob(jnp.array([0, 3, 1])), r"a token outside the vocabulary of 3: expected ids from 0 to 2"),
        (
            lambda: oracles.law(_plug_in, law.denoiser(process), process, [1.0, 0.0], 8),
            r"3 states and length=8.*at most 4096",
        ),
    ]
    for call, words in bad:
        with pytest.raises(InputError, match=words):
            call()
