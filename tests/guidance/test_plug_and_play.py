"""Guidance by the hidden state: nothing moved is the network bit for bit, and what is moved lands where it must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_toys import denoisers, laws, two_tokens

from jaxdiff import beliefs, guidance, processes
from jaxdiff.errors import InputError
from jaxdiff.numerics import partial
from jaxdiff.samplers.categorical import ancestral

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


T = 0.6


def as_logits(h, t):
    return beliefs.LeaveOneOut(h)


def as_posterior(h, t):
    return beliefs.Posterior(h)


def still(h):
    """A network of one hidden state, whatever it sees."""
    return lambda z, t: h


def along(w):
    """A classifier linear in the hidden state."""
    return lambda h, t: jnp.sum(w * h)


def test_without_a_step_the_belief_is_the_networks_bit_for_bit(key):
    weights, z = jax.random.normal(key, (3, 8, 5)), jnp.array([0, 3, 2])
    hidden = lambda z, t: jnp.tanh(weights[0][:5][z])  # noqa: E731
    head = lambda h, t: beliefs.Posterior(jnp.sin(3 * h) @ weights[1][:5])  # noqa: E731
    own = head(hidden(z, T), T).logits
    process = processes.uniform(5)
    for steps, size in ((0, 0.1), (4, 0.0)):
        guided = guidance.nos(process, hidden, head, along(weights[2][0]), steps=steps, step_size=size)
        np.testing.assert_array_equal(guided(z, T).logits, own)
    moved = guidance.nos(process, hidden, head, along(weights[2][0]), steps=1, step_size=0.1)(z, T).logits
    assert abs(moved - own).max() > 0.05


def test_it_settles_where_the_classifier_and_the_divergence_balance(x64):
    """With logits h and log p(y | h) = w . h, strength KL has the gradient strength (q - p): q = p + w / strength."""
    process, z = processes.uniform(4), jnp.array([1, 3])
    h = jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]))
    w = jnp.array([[0.1, -0.1, 0.05, -0.05], [-0.3, 0.1, 0.1, 0.1]])
    for strength in (1.0, 4.0):
        guided = guidance.nos(process, still(h), as_posterior, along(w), steps=1500, step_size=0.05, strength=strength)
        np.testing.assert_allclose(jax.nn.softmax(guided(z, T).logits), np.exp(h) + w / strength, atol=1e-5)


def test_a_shown_token_of_the_absorbing_process_has_no_divergence(x64):
    process, z = processes.absorbing(4), jnp.array([4, 3])
    h = jnp.log(jnp.full((2, 4), 0.25))
    w = jnp.array([[0.2, -0.2, 0.0, 0.0]] * 2)
    logits = guidance.nos(process, still(h), as_posterior, along(w), steps=400, step_size=0.1, strength=2.0)(
        z, T
    ).logits
    np.testing.assert_allclose(jax.nn.softmax(logits[0]), 0.25 + w[0] / 2, atol=1e-5)
    assert logits[1, 0] - logits[1, 1] > 5  # goes on and on, and no sampler reads it
    assert np.isfinite(logits).all()


def test_the_steps_are_adagrads(x64):
    """On log p(y | h) = -|h - goal|^2 / 2 without divergence, against the loop in NumPy."""
    process, z = processes.uniform(3), jnp.array([0, 2])
    h, goal = np.array([[0.0, 1.0, -1.0], [0.5, 0.5, 0.0]]), np.array([[2.0, 1.5, -1.0], [0.0, 3.0, 0.1]])
    log_prob = lambda h, t: -jnp.sum((h - goal) ** 2) / 2  # noqa: E731
    delta, squares = np.zeros_like(h), np.zeros_like(h)
    for steps in range(1, 6):
        slope = h + delta - goal
        squares = squares + slope**2
        delta = delta - 0.3 * slope / (np.sqrt(squares) + 1e-10)
        if steps == 1:  # the first step is the sign
            np.testing.assert_allclose(delta, -0.3 * np.sign(h - goal), rtol=1e-6)
        guided = guidance.nos(
            process, still(jnp.asarray(h)), as_logits, log_prob, steps=steps, step_size=0.3, strength=0.0
        )
        np.testing.assert_allclose(guided(z, T).logits, h + delta, rtol=1e-9)


def test_a_tree_of_hidden_states_is_moved_leaf_by_leaf(x64):
    h = {"a": jnp.zeros((2, 3)), "b": jnp.ones((2, 3))}
    head = lambda h, t: beliefs.LeaveOneOut(h["a"] + h["b"] * t)  # noqa: E731
    log_prob = lambda h, t: jnp.sum(h["a"]) - 2 * jnp.sum(h["b"])  # noqa: E731
    guided = guidance.nos(processes.uniform(3), still(h), head, log_prob, step_size=0.25, strength=0.0)
    np.testing.assert_allclose(guided(jnp.array([0, 1]), 0.5).logits, 0.25 + (1 - 0.25) * 0.5, rtol=1e-9)


@pytest.mark.parametrize("make", [processes.uniform, processes.absorbing])
def test_samples_are_of_the_class_more_often_with_every_step(make, x64):
    """The exact law of the sampler; with strength it stays near the model's."""
    law, process = two_tokens(), make(3)
    _, null = denoisers(process, law)
    joint = np.exp(law)
    odds = np.stack([np.log(joint.sum(1)), np.log(joint.sum(0))])  # of each token alone
    odds = jnp.asarray(odds[..., 0] - odds[..., 1])

    def share(**options):
        guided = guidance.nos(process, partial(_logits, null), as_logits, partial(_naive, odds), **options)
        (samples,) = laws(ancestral(process), guided, process, 2, (12,))
        samples = samples[:3, :3]
        return (samples * joint[..., 0] / joint.sum(-1)).sum(), np.sum(samples * np.log(samples / joint.sum(-1)))

    runs = [share(steps=n, step_size=0.2) for n in (0, 1, 4)]
    assert runs[0][0] + 0.02 < runs[1][0] < runs[2][0] - 0.02
    held = share(steps=4, step_size=0.2, strength=20.0)
    assert runs[0][0] < held[0] < runs[2][0]
    assert held[1] < runs[2][1]


def _logits(null, z, t):
    return null(z, t).logits


def _naive(odds, h, t):
    """A classifier of mean odds, token by token."""
    return jax.nn.log_sigmoid(jnp.sum(jax.nn.softmax(h) * odds))


def test_the_noise_is_langevins(key):
    """With nothing to climb: steps of variance 2 step_size temperature, other ones at another time."""
    h, z = jnp.zeros((5000, 4)), jnp.zeros(5000, jnp.int32)
    options = {"steps": 3, "step_size": 0.2, "strength": 0.0, "temperature": 0.5, "key": key}
    nos = guidance.nos(processes.uniform(4), still(h), as_logits, lambda h, t: jnp.zeros(()), **options)
    guided = jax.jit(lambda z, t: nos(z, t))
    one, again, later = (guided(z, jnp.float32(t)).logits for t in (0.5, 0.5, 0.4))
    variance, n = 3 * 2 * 0.2 * 0.5, h.size
    assert abs(jnp.mean(one**2) - variance) < 5 * variance * np.sqrt(2 / n)
    np.testing.assert_array_equal(one, again)
    assert abs(jnp.mean(one * later)) < 5 * variance / np.sqrt(n)


def test_without_a_temperature_a_key_draws_nothing(key):
    h, z, w = jnp.zeros((2, 3)), jnp.array([0, 1]), jnp.ones((2, 3))
    with_key, without = (
        guidance.nos(processes.uniform(3), still(h), as_logits, along(w), key=k)(z, T).logits for k in (key, None)
    )
    np.testing.assert_array_equal(with_key, without)


def test_with_nothing_to_climb_it_stays_though_adagrad_divides_by_the_gradient(key):
    h, z = jax.random.normal(key, (6, 11)), jnp.arange(6)
    guided = guidance.nos(processes.uniform(11), still(h), as_posterior, lambda h, t: jnp.zeros(()), strength=1.0)
    np.testing.assert_allclose(guided(z, T).logits, h, rtol=1e-6)


def test_it_is_told_to_depend_on_the_time():
    guided = guidance.nos(processes.uniform(3), still(jnp.zeros((1, 3))), as_logits, along(1.0))
    assert guided.time_conditioned


def test_guidance_made_anew_compiles_nothing():
    traces, hidden, log_prob = 0, still(jnp.zeros((2, 3))), along(1.0)

    @jax.jit
    def call(denoise, z):
        nonlocal traces
        traces += 1
        return denoise(z, T)

    for size in (0.1, 0.2):
        call(guidance.nos(processes.uniform(3), hidden, as_logits, log_prob, step_size=size), jnp.array([0, 1]))
    assert traces == 1


def test_mistakes():
    triple = processes.uniform(3), still(jnp.zeros((1, 3))), as_logits, along(1.0)
    for options, message in (
        ({"steps": -1}, "steps=-1, expected 0 or more"),
        ({"step_size": -1.0}, r"step_size=-1\.0, expected a finite number, 0 or more"),
        ({"strength": np.nan}, "strength=nan, expected a finite number"),
        ({"temperature": np.inf}, "temperature=inf, expected a finite number"),
        ({"temperature": 0.1}, "a temperature but no key"),
    ):
        with pytest.raises(InputError, match=message):
            guidance.nos(*triple, **options)
    with pytest.raises(InputError, match="expected a belief about tokens"):
        guidance.nos(*triple[:2], lambda h, t: h, triple[3])(jnp.array([0]), T)
