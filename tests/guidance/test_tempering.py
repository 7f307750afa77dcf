"""Classifier-free guidance of tokens: another program's arrays, Bayes by enumeration, exact laws of samplers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_toys import (
    Counted,
    brute_step,
    denoisers,
    distances,
    given,
    one_token,
    power_law,
    two_tokens,
)

from jaxdiff import beliefs, guidance, processes
from jaxdiff.errors import InputError
from jaxdiff.samplers.categorical import ancestral

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


GOLDEN = Path(__file__).parents[1] / "golden" / "discrete_losses.npz"
KINDS = [processes.uniform, processes.absorbing, processes.hybrid, processes.gidd]


def saying(logits, meaning=beliefs.LeaveOneOut):
    return lambda z, t: meaning(jnp.asarray(logits))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_both_rules_are_the_published_programs(gamma):
    file = np.load(GOLDEN)
    conditional, null = file["logits_cond"], file["logits"]

    process, z = processes.uniform(7), jnp.asarray(file["xt"], jnp.int32)
    kernel = guidance.tempered(ancestral(process), saying(null), gamma)
    got = np.exp(jax.jit(lambda z: kernel(saying(conditional), z, 0.8, 0.6))(z))
    np.testing.assert_allclose(got, file[f"cfg_uniform_{gamma}"], rtol=0, atol=1e-6)

    process, z = processes.absorbing(6), jnp.asarray(file["xm"], jnp.int32)  # the file has a logit of the mask
    pair = saying(conditional[..., :6]), saying(null[..., :6])
    belief = guidance.tempered_belief(process, *pair, gamma)
    other = guidance.tempered(ancestral(process), pair[1], gamma)
    got, whole = jax.jit(lambda z: (ancestral(process)(belief, z, 0.8, 0.6), other(pair[0], z, 0.8, 0.6)))(z)
    np.testing.assert_allclose(np.exp(got), file[f"cfg_absorbing_{gamma}"], rtol=0, atol=1e-6)
    assert abs(np.exp(whole) - file[f"cfg_absorbing_{gamma}"]).max() > 0.1  # the other rule is another rule


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_is_tempered_bayes(masked, x64):
    law = two_tokens()
    process = processes.absorbing(3) if masked else processes.uniform(3)
    conditional, null = denoisers(process, law)
    step = jax.jit(lambda gamma, z: guidance.tempered(ancestral(process), null, gamma)(conditional, z, 0.7, 0.4))
    for gamma in (-0.5, 0.0, 0.4, 1.0, 3.0):
        for z in ((0, 2), (1, 1), (process.states - 1, 0)):
            exact = brute_step(law, z, 0.7, 0.4, masked)
            with np.errstate(divide="ignore", invalid="ignore"):
                expected = (exact[..., 0] / exact[..., 0].sum(-1)[:, None]) ** gamma * exact.sum(-1) ** (1 - gamma)
            expected = np.where(exact.sum(-1) > 0, expected, 0)
            got = np.exp(step(gamma, jnp.array(z)))
            np.testing.assert_allclose(got, expected / expected.sum(-1)[:, None], rtol=1e-10, atol=1e-15)


UNIFORM = [(8, 0.0388), (32, 0.0098), (128, 0.0025), (512, 0.0006)]
ABSORBING = [(8, 0.0289), (64, 0.0036), (512, 0.00045)]


@pytest.mark.parametrize(("make", "figures"), [(processes.uniform, UNIFORM), (processes.absorbing, ABSORBING)])
def test_at_gamma_1_the_law_tends_to_that_of_the_label(make, figures, x64):
    law, process = two_tokens(), make(3)
    conditional, null = denoisers(process, law)
    kernel = guidance.tempered(ancestral(process), null, jnp.ones(()))
    found = distances(kernel, conditional, process, law, [n for n, _ in figures], given(law))
    np.testing.assert_allclose(found, [published for _, published in figures], rtol=0, atol=6e-5)


def test_gamma_1_traced_is_the_kernel_itself(x64):
    law, process = two_tokens(), processes.uniform(3)
    conditional, null = denoisers(process, law)
    kernel, at = ancestral(process), (jnp.array([2, 0]), 0.5, 0.3)

    @jax.jit
    def both(gamma):
        belief = guidance.tempered_belief(process, conditional, null, gamma)
        return guidance.tempered(kernel, null, gamma)(conditional, *at), kernel(belief, *at)

    alone = jax.jit(lambda: (kernel(null, *at), kernel(conditional, *at)))()
    for gamma in (0, 1):
        for got in both(float(gamma)):
            np.testing.assert_allclose(got, alone[gamma], rtol=1e-12)


@pytest.mark.parametrize("make", [processes.uniform, processes.absorbing])
def test_one_token_of_tempered_belief_has_the_tempered_law_whatever_the_steps(make, x64):
    """Its leave-one-out belief is its prior, so tempering it is exact; under absorbing noise that is as published."""
    law, process = one_token(), make(4)
    conditional, null = denoisers(process, law)
    for gamma in (-1.0, 0.5, 2.0, 7.0):
        guided = guidance.tempered_belief(process, conditional, null, gamma)
        found = distances(ancestral(process), guided, process, law, (1, 3, 10), power_law(law, gamma))
        assert max(found) < 1e-14


def test_the_bias_of_gamma_2_under_uniform_noise_does_not_vanish(x64):
    law, process = one_token(), processes.uniform(4)
    conditional, null = denoisers(process, law)
    kernel = guidance.tempered(ancestral(process), null, 2.0)
    few, many = distances(kernel, conditional, process, law, (512, 2048), power_law(law, 2.0))
    assert abs(many - 0.0161) < 5e-5
    assert abs(many - few) < 1e-4  # a plateau

    law, process = two_tokens(), processes.uniform(3)
    conditional, null = denoisers(process, law)
    kernel = guidance.tempered(ancestral(process), null, 2.0)
    (found,) = distances(kernel, conditional, process, law, (1024,), power_law(law, 2.0))
    assert abs(found - 0.086) < 5e-4


def test_absorbed_tokens_are_shown_at_their_own_rate(x64):
    """The mask stays with probability rest(s) / rest(t), which tempering all of the kernel would change."""
    law, process = two_tokens(), processes.absorbing(3)
    conditional, null = denoisers(process, law)
    z, t, s = jnp.array([3, 1]), 0.8, 0.6

    @jax.jit
    def both(gamma):
        belief = guidance.tempered_belief(process, conditional, null, gamma)
        whole = guidance.tempered(ancestral(process), null, gamma)
        return jnp.exp(ancestral(process)(belief, z, t, s)), jnp.exp(whole(conditional, z, t, s))

    for gamma in (-1.0, 0.0, 1.0, 2.0, 5.0):
        probs, whole = both(gamma)
        np.testing.assert_allclose(probs[0, 3], 0.75, rtol=1e-12)
        np.testing.assert_array_equal(probs[1], [0, 1, 0, 0])
    assert abs(whole[0, 3] - 0.75) > 0.02


def test_the_posterior_and_the_leave_one_out_belief_temper_alike(x64):
    law = two_tokens()
    for make in (processes.uniform, processes.absorbing):
        process = make(3)
        z = jnp.array([1, process.states - 1])
        guided = [
            guidance.tempered_belief(process, *denoisers(process, law, meaning), 2.5)
            for meaning in (beliefs.LeaveOneOut, beliefs.Posterior, beliefs.Score)
        ]
        kernel = ancestral(process)
        rows = jax.jit(lambda z, kernel, guided: [jnp.exp(kernel(g, z, 0.6, 0.3)) for g in guided])(z, kernel, guided)
        np.testing.assert_allclose(rows[1], rows[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(rows[2], rows[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [*KINDS, lambda n: processes.ctmc(processes.rates.nearest(n))])
def test_every_process_is_guided_to_the_last_step(make):
    """In float32, from t = 1 and to s = 0, with tokens that the label cannot be."""
    law = two_tokens()
    with np.errstate(divide="ignore"):
        law = np.log(np.where(np.arange(3)[:, None, None] == 2, np.array([0.0, 1.0]), 1.0) * np.exp(law))
    law = law - np.log(np.exp(law).sum())
    process = make(3)
    conditional, null = denoisers(process, law.astype(np.float32))
    kernel = ancestral(process)

    def guided(gamma, z, t, s):
        belief = guidance.tempered_belief(process, conditional, null, gamma)
        return guidance.tempered(kernel, null, gamma)(conditional, z, t, s), kernel(belief, z, t, s)

    run = jax.jit(jax.vmap(guided, (None, 0, None, None)))
    seen = jnp.stack(jnp.unravel_index(jnp.arange(process.states**2), (process.states,) * 2), -1)
    for gamma in (-0.5, 0.5, 2.0):
        for t, s in ((1.0, 0.5), (0.5, 0.4), (1e-3, 0.0), (1.0, 0.0)):
            for logs in run(gamma, seen, t, s):
                assert logs.dtype == jnp.float32
                assert not np.isnan(logs).any()
                np.testing.assert_allclose(np.exp(logs).sum(-1), 1, rtol=2e-6)
                if s == 0 and process.mask is not None:
                    assert np.exp(logs[..., process.mask]).max() < 1e-30  # no mask is left


def test_the_impossible_stays_so_without_a_nan():
    """c^gamma u^(1 - gamma) where c or u is 0, in value and gradient."""
    logs = {"c": [-np.inf, -np.inf, 0.0], "u": [-0.7, -np.inf, -0.7]}
    kernel = lambda denoise, z, t, s: denoise(z, t)  # noqa: E731
    tell = {name: lambda z, t, row=row: jnp.array([row]) for name, row in logs.items()}
    for gamma in (0.5, 2.0, -1.0):
        out = jax.jit(lambda g: guidance.tempered(kernel, tell["u"], g)(tell["c"], jnp.zeros(1, int), 0.5, 0.2))(gamma)
        np.testing.assert_array_equal(np.exp(out), [[0, 0, 1]])
        swapped = guidance.tempered(kernel, tell["c"], gamma)(tell["u"], jnp.zeros(1, int), 0.5, 0.2)
        np.testing.assert_array_equal(np.exp(swapped), [[0, 0, 1]])
    slope = jax.jacrev(lambda g: guidance.tempered(kernel, tell["u"], g)(tell["c"], jnp.zeros(1, int), 0.5, 0.2))(2.0)
    assert np.isfinite(slope).all()
    apart = {"c": [0.0, -np.inf], "u": [-np.inf, 0.0]}  # nothing in common: the conditional one
    out = guidance.tempered(kernel, lambda z, t: jnp.array([apart["u"]]), 2.0)(
        lambda z, t: jnp.array([apart["c"]]), jnp.zeros(1, int), 0.5, 0.2
    )
    np.testing.assert_array_equal(out, [apart["c"]])


@pytest.mark.parametrize(("gamma", "calls"), [(1, (1, 0)), (0.0, (0, 1)), (2.0, (1, 1))])
def test_a_known_gamma_of_1_or_0_calls_one_denoiser(gamma, calls):
    process = processes.uniform(3)
    one, two = (Counted(saying(row)) for row in ([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]))
    z = jnp.array([1])
    for guided in (
        lambda z: guidance.tempered(ancestral(process), two, gamma)(one, z, 0.5, 0.3),
        lambda z: ancestral(process)(guidance.tempered_belief(process, one, two, gamma), z, 0.5, 0.3),
    ):
        one.calls = two.calls = 0
        jax.block_until_ready(jax.jit(guided)(z))
        jax.effects_barrier()
        assert (one.calls, two.calls) == calls


def test_guidance_made_anew_compiles_nothing():
    traces, law, process = 0, two_tokens(), processes.uniform(3)

    @jax.jit
    def call(kernel, denoise, z):
        nonlocal traces
        traces += 1
        return kernel(denoise, z, 0.5, 0.3)

    for gamma in (1.5, 2.5):
        conditional, null = denoisers(process, law)
        belief = guidance.tempered_belief(process, conditional, null, gamma)
        call(guidance.tempered(ancestral(process), null, gamma), belief, jnp.array([0, 1]))
    assert traces == 1


def test_a_guided_belief_hears_time_when_one_of_its_two_does():
    class Told:
        def __init__(self, time_conditioned):
            self.time_conditioned = time_conditioned

        def __call__(self, z, t):
            return beliefs.Posterior(jnp.zeros((*z.shape, 3)))

    process = processes.absorbing(3)
    for one, two in ((False, False), (False, True), (True, False)):
        guided = guidance.tempered_belief(process, Told(one), Told(two), 2.0)
        assert guided.time_conditioned == (one or two)
    assert guidance.tempered_belief(process, Told(False), lambda z, t: None, 2.0).time_conditioned  # unless it says not


def test_a_gamma_that_is_not_one_finite_number_is_refused():
    process = processes.uniform(3)
    for gamma in (np.nan, np.inf, -np.inf):
        with pytest.raises(InputError, match=r"gamma=-?(nan|inf), expected a finite number: 1 is the conditional"):
            guidance.tempered(ancestral(process), saying([[0.0] * 3]), gamma)
        with pytest.raises(InputError, match="expected a finite number"):
            guidance.tempered_belief(process, saying([[0.0] * 3]), saying([[0.0] * 3]), gamma)
    with pytest.raises(InputError, match=r"gamma of shape \(2,\), expected one number; vmap"):
        guidance.tempered(ancestral(process), saying([[0.0] * 3]), jnp.ones(2))

    @jax.jit
    def traced(gamma):
        return guidance.tempered(ancestral(process), saying([[0.0] * 3]), gamma)(
            saying([[0.0] * 3]), jnp.zeros(1, int), 0.5, 0.2
        )

    assert jnp.isnan(traced(np.nan)).all()
