"""Guidance of Flax networks on tokens: their two halves, their caches, and classifiers with a gradient."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdiff import beliefs, guidance, processes
from jaxdiff.denoisers.tokens import total_noise
from jaxdiff.errors import InputError
from jaxdiff.networks import HiddenClassifier, StateSpace, TokenClassifier, TokenDiT, functional
from jaxdiff.samplers.categorical import ancestral

sys.path.append(str(Path(__file__).parents[1] / "networks"))

from token_networks import SMALL, STATES, VOCAB, draw

KINDS = pytest.mark.parametrize("kind", [TokenDiT, StateSpace])
T, S = 0.6, 0.5
Z = jnp.array([5, 0, 3, 5], jnp.int32)


def net_of(kind, **options):
    return nnx.eval_shape(lambda: kind(VOCAB, states=STATES, **SMALL[kind], **options, rngs=nnx.Rngs(0)))


def halves(net, params):
    """hidden(z, t) and head(h, t) of one example."""
    (whole, _), (hidden, _), (head, _) = (functional(net, name) for name in ("__call__", "hidden", "head"))
    process = processes.absorbing(VOCAB)
    level = lambda t: total_noise(process, t)[None]  # noqa: E731
    return (
        lambda z, t: beliefs.Posterior(whole(params, z[None], level(t))[0]),
        lambda z, t: hidden(params, z[None], level(t))[0],
        lambda h, t: beliefs.Posterior(head(params, h[None], level(t))[0]),
    )


@KINDS
def test_nos_moves_the_last_hidden_state_and_nothing_else(kind):
    net = net_of(kind)
    denoise, hidden, head = halves(net, draw(functional(net)[1]))
    judge = nnx.eval_shape(lambda: HiddenClassifier(3, 8, rngs=nnx.Rngs(0)))
    read, shapes = functional(judge)
    judged = draw(shapes, seed=1)
    log_prob = lambda h, t: jax.nn.log_softmax(read(judged, h[None])[0])[1]  # noqa: E731

    def guided(steps):
        nos = guidance.nos(processes.absorbing(VOCAB), hidden, head, log_prob, steps=steps, step_size=0.3)
        return jax.jit(lambda z: nos(z, T).logits)(Z)

    np.testing.assert_array_equal(guided(0), jax.jit(lambda z: denoise(z, T).logits)(Z))
    assert abs(guided(2) - guided(0)).max() > 0.05


def test_classifiers_of_one_hots_guide_by_both_methods():
    """A network that is nearly linear: first order is near exact, and the label is likelier where it leads."""
    process = processes.absorbing(VOCAB)
    trunk = lambda: TokenDiT(3, states=STATES, **SMALL[TokenDiT], rngs=nnx.Rngs(0))  # noqa: E731
    net = nnx.eval_shape(lambda: TokenClassifier(trunk(), rngs=nnx.Rngs(0)))
    apply, shapes = functional(net)
    params = draw(shapes, 0.1)
    log_prob = guidance.log_prob_of(guidance.from_classifier(apply, process, params, level=total_noise), 2)
    flat = lambda z, t: beliefs.Posterior(jnp.zeros((*z.shape, VOCAB)))  # noqa: E731
    kernel = ancestral(process)

    @jax.jit
    def both(z, gamma):
        guides = (
            guidance.classifier_based(kernel, log_prob, gamma, method=m, chunk=7) for m in ("exact", "first_order")
        )
        return [jnp.exp(guided(flat, z, T, S)) for guided in guides]

    plain = np.exp(jax.jit(lambda z: kernel(flat, z, T, S))(Z))
    exact, first = both(Z, 40.0)
    assert abs(exact - plain).max() > 0.02
    assert abs(exact - first).max() < 0.5 * abs(exact - plain).max()
    np.testing.assert_array_equal(np.asarray(exact)[1:3], plain[1:3])  # what is shown stays

    asked = jax.nn.one_hot(Z, STATES)
    np.testing.assert_allclose(
        log_prob(asked, T),
        jax.nn.log_softmax(apply(params, Z[None], total_noise(process, jnp.float32(T))[None])[0])[2],
        rtol=1e-5,
    )
    other = guidance.classifier_based(ancestral(processes.uniform(VOCAB)), log_prob, 1.0)  # without a mask
    with pytest.raises(InputError, match=r"does not read one-hots of shape \(4, 5\).*is it of another vocabulary"):
        other(flat, Z % VOCAB, T, S)


@KINDS
def test_pplm_moves_the_hidden_state_of_a_causal_network(kind):
    net = net_of(kind, causal=True)
    (step, shapes), (advance, _), (head, _) = (functional(net, name) for name in ("step", "advance", "head"))
    params, cache = draw(shapes), net.init_cache(1, 4)
    w = jax.random.normal(jax.random.key(0), (8,))

    def hidden(token, cache):
        h, cache = advance(params, token[None], cache)
        return h[0], cache

    options = {"step_size": 0.5, "strength": 0.01}
    log_prob = lambda h, cache: jax.nn.log_sigmoid(jnp.sum(w * h))  # noqa: E731

    @jax.jit
    def run(tokens):
        out = []
        for steps in (0, 3):
            guided = guidance.pplm(
                hidden, lambda h: head(params, h[None, None], None)[0, 0], log_prob, steps=steps, **options
            )
            memory, rows = cache, []
            for token in tokens:
                logits, memory = guided(token, memory)
                rows.append(logits)
            out.append(jnp.stack(rows))
        memory, rows = cache, []
        for token in tokens:
            logits, memory = step(params, token[None], memory)
            rows.append(logits[0])
        return *out, jnp.stack(rows)

    none, moved, own = run(jnp.array([1, 4], jnp.int32))
    np.testing.assert_array_equal(none, own)
    assert abs(jax.nn.softmax(moved) - jax.nn.softmax(own)).max() > 0.01
