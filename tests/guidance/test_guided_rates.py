"""Guided rates are what guided steps become as they get short: jump by jump, and in the law of the samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_toys import (
    Counted,
    apart,
    class_0,
    denoisers,
    distances,
    given,
    jump_law,
    laws,
    one_token,
    power_law,
    two_tokens,
)

from jaxdiff import beliefs, guidance, processes
from jaxdiff.errors import InputError
from jaxdiff.samplers.categorical import ancestral, euler, reverse_rate, tau_leaping

pytestmark = pytest.mark.claim(
    "D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased ([docs/guidance.md](docs/guidance.md))"
)


NEAREST = lambda n: processes.ctmc(processes.rates.nearest(n))  # noqa: E731
KINDS = [processes.uniform, processes.absorbing, processes.hybrid, processes.gidd, NEAREST]


def smooth(process):
    """A classifier of one-hots with a gradient."""
    weights = jnp.asarray(np.random.default_rng(4).normal(size=(2, process.states)))
    return lambda x, t: -jnp.log1p(jnp.exp(-jnp.sum(weights * x)))


@pytest.mark.parametrize("make", KINDS)
def test_a_short_step_jumps_at_the_guided_rate(make, x64):
    law, process = two_tokens(), make(3)
    conditional, null = denoisers(process, law)
    kernel, rate, log_prob = ancestral(process), reverse_rate(process), smooth(process)
    h, t = 1e-8, 0.6

    @jax.jit
    def pairs(gamma, z):
        guided = [(guidance.tempered(kernel, null, gamma), guidance.tempered_rate(rate, null, gamma), conditional)]
        for method in ("exact", "first_order"):
            by = (log_prob, gamma)
            step = guidance.classifier_based(kernel, *by, method=method)
            guided.append((step, guidance.classifier_rate(rate, *by, method=method), null))
        return [
            (jnp.exp(step(denoise, z, t, t - h)) / h, jnp.exp(jump(denoise, z, t))) for step, jump, denoise in guided
        ]

    for gamma in (0.5, 2.0):
        for z in ((0, 2), (process.states - 1, 1)):
            other = np.arange(process.states) != np.array(z)[:, None]
            for step, jump in pairs(gamma, jnp.array(z)):
                # a jump over a neighbour has rate 0, and probability h^2
                np.testing.assert_allclose(np.asarray(step)[other], np.asarray(jump)[other], rtol=1e-5, atol=1e-4)
                assert not np.asarray(jump)[~other].any()
                assert np.asarray(jump).max() > 0.1 or process.mask not in (None, *z)  # all are shown


def test_the_laws_of_guided_steps_tend_to_that_of_guided_rates(x64):
    """At gamma = 2, first order in the length of a step; and both guides have one limit, which is not the tempered
    law."""
    law, process = two_tokens(), processes.uniform(3)
    conditional, null = denoisers(process, law)
    kernel, rate, exact = ancestral(process), reverse_rate(process), class_0(process, law)
    limit = jump_law(guidance.tempered_rate(rate, null, 2.0), conditional, process, 2)
    other = jump_law(guidance.classifier_rate(rate, exact, 2.0), null, process, 2)
    assert apart(limit, other) < 1e-12
    assert abs(apart(limit, power_law(law, 2.0)) - 0.0858) < 1e-4
    for guided, denoise in (
        (guidance.tempered(kernel, null, 2.0), conditional),
        (guidance.classifier_based(kernel, exact, 2.0), null),
        (guidance.classifier_based(kernel, exact, 2.0, classifier_time="s"), null),
        (guidance.tempered(euler(process), null, 2.0), conditional),
        (euler(process, guidance.tempered_rate(rate, null, 2.0)), conditional),
        (tau_leaping(process, guidance.classifier_rate(rate, exact, 2.0)), null),
    ):
        errors = distances(guided, denoise, process, law, (64, 512), limit)
        assert abs(np.log(errors[0] / errors[1]) / np.log(8) - 1) < 0.03
        assert errors[1] < 1e-3


@pytest.mark.parametrize(("make", "step"), [(processes.uniform, euler), (processes.absorbing, tau_leaping)])
def test_at_gamma_1_the_rates_of_a_classifier_walk_as_the_conditional_model_does(make, step, x64):
    """... in as many steps, the last included, to the last bits; and so nears p(x | y) at order one."""
    law, process, counts = two_tokens(), make(3), (8, 64, 512)
    conditional, null = denoisers(process, law)
    rate = reverse_rate(process)
    by_label = step(process, guidance.tempered_rate(rate, null, 1.0))
    by_classifier = step(process, guidance.classifier_rate(rate, class_0(process, law), 1.0))
    told = laws(step(process), conditional, process, 2, counts)
    for kernel, denoise in ((by_label, conditional), (by_classifier, null)):
        for one, other in zip(laws(kernel, denoise, process, 2, counts), told, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-13)
    errors = [apart(each, given(law)) for each in told]
    assert abs(np.log(errors[1] / errors[2]) / np.log(8) - 1) < 0.03
    assert errors[2] < 1e-3


@pytest.mark.parametrize("make", [processes.absorbing, processes.uniform, processes.hybrid])
def test_the_last_step_is_guided_too(make, x64):
    """From noise that is far from gone: by an exact classifier at gamma = 1 it is p(x0 | z_t, y); at gamma = 2 the two
    guides have one, which is that of the tempered belief where a token is masked."""
    law, process, t = two_tokens(), make(3), 0.6
    conditional, null = denoisers(process, law)
    rate, kernel, log_prob = reverse_rate(process), ancestral(process), class_0(process, law)

    @jax.jit
    def ends(z):
        by = [(guidance.classifier_rate(rate, log_prob, gamma), null) for gamma in (1.0, 2.0)]
        by.append((guidance.tempered_rate(rate, null, 2.0), conditional))
        found = [euler(process, guided)(denoise, z, t, 0.0) for guided, denoise in by]
        belief = guidance.tempered_belief(process, conditional, null, 2.0)
        return jnp.exp(jnp.stack([kernel(conditional, z, t, 0.0), *found, kernel(belief, z, t, 0.0)]))

    for z in ((0, 2), (process.states - 1, 1), (process.states - 1,) * 2):
        told, once, twice, tempered, belief = np.asarray(ends(jnp.array(z)))
        np.testing.assert_allclose(once, told, atol=1e-12)
        np.testing.assert_allclose(twice, tempered, atol=1e-12)
        np.testing.assert_allclose(tempered.sum(-1), 1, rtol=1e-12)
        if not process.spread:
            np.testing.assert_allclose(tempered, belief, atol=1e-12)
    assert abs(once - twice).max() > 0.01


def test_a_mask_with_nowhere_to_go_is_left_to_the_conditional_model(x64):
    process, z = processes.absorbing(3), jnp.array([3, 1])
    one, other = (
        lambda z, t, p=p: beliefs.LeaveOneOut(jnp.broadcast_to(jnp.log(jnp.array(p)), (2, 3)))
        for p in ((0.4, 0.6, 0.0), (0.0, 0.0, 1.0))
    )
    kernel = euler(process, guidance.tempered_rate(reverse_rate(process), other, 2.0))
    stays, ends = np.exp(jax.jit(jax.vmap(lambda s: kernel(one, z, 0.5, s)))(jnp.array([0.3, 0.0])))
    np.testing.assert_allclose(stays, [[0, 0, 0, 1], [0, 1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(ends, [[0.4, 0.6, 0, 0], [0, 1, 0, 0]], atol=1e-12)


def test_at_gamma_1_guided_rates_are_exact(x64):
    law, process = two_tokens(), processes.uniform(3)
    _, null = denoisers(process, law)
    guided = guidance.classifier_rate(reverse_rate(process), class_0(process, law), 1.0, chunk=2)
    assert apart(jump_law(guided, null, process, 2), given(law)) < 1e-8


def test_at_gamma_2_the_bias_of_one_token_is_that_of_the_rates(x64):
    law, process = one_token(), processes.uniform(4)
    conditional, null = denoisers(process, law)
    guided = guidance.tempered_rate(reverse_rate(process), null, 2.0)
    assert abs(apart(jump_law(guided, conditional, process, 1), power_law(law, 2.0)) - 0.0161) < 5e-5


def test_tempered_rates_of_absorbed_tokens_change_how_fast_they_are_shown(x64):
    law, process = two_tokens(), processes.absorbing(3)
    conditional, null = denoisers(process, law)
    rate, z = reverse_rate(process), jnp.array([3, 1])
    shown = lambda rate, denoise: np.exp(_at_half(rate, denoise, z)).sum(-1)  # noqa: E731
    np.testing.assert_allclose(shown(rate, conditional), [2, 0], rtol=1e-12)  # -alpha' / (1 - alpha)
    belief = guidance.tempered_belief(process, conditional, null, 3.0)
    np.testing.assert_allclose(shown(rate, belief), [2, 0], rtol=1e-12)
    fast = shown(guidance.tempered_rate(rate, null, 3.0), conditional)
    probs = [np.exp(eqx.filter_jit(each)(z, 0.5).logits[0]) for each in (conditional, null)]
    np.testing.assert_allclose(fast, [2 * np.sum(probs[0] ** 3 * probs[1] ** -2), 0], rtol=1e-9)
    assert fast[0] > 2.01


@eqx.filter_jit
def _at_half(rate, denoise, z):
    return rate(denoise, z, 0.5)


def test_no_jump_is_made_to_the_impossible_nor_a_nan_from_it():
    rate = lambda denoise, z, t: jnp.array([[-jnp.inf, 0.0, -jnp.inf], [0.0, 1.0, -jnp.inf]])  # noqa: E731
    z = jnp.array([2, 2])
    for gamma in (0.5, 2.0, -1.0):
        guided = guidance.tempered_rate(rate, lambda z, t: None, gamma)
        np.testing.assert_allclose(guided(None, z, 0.5), rate(None, z, 0.5), atol=1e-6)
    never = lambda x, t: jnp.where(x[0, 1] > 0, -jnp.inf, 0.0)  # noqa: E731
    guided = guidance.classifier_rate(rate, never, 2.0)(None, z, 0.5)
    np.testing.assert_array_equal(guided, [[-np.inf] * 3, [0, 1, -np.inf]])
    here = lambda x, t: jnp.where(x[0, 2] > 0, -jnp.inf, 0.0)  # noqa: E731
    np.testing.assert_array_equal(guidance.classifier_rate(rate, here, 2.0)(None, z, 0.5), rate(None, z, 0.5))


def test_a_known_gamma_of_1_or_0_asks_for_one_rate():
    rate = lambda denoise, z, t: denoise(z, t)  # noqa: E731
    one, two = (Counted(lambda z, t, v=v: jnp.full((1, 3), v)) for v in (1.0, 2.0))
    for gamma, calls in ((1.0, (1, 0)), (0, (0, 1)), (0.5, (1, 1))):
        one.calls = two.calls = 0
        got = guidance.tempered_rate(rate, two, gamma)(one, jnp.array([0]), 0.5)
        jax.effects_barrier()
        assert (one.calls, two.calls) == calls
        np.testing.assert_allclose(got, 2 - gamma)
    asked = Counted(lambda x, t: jnp.sum(x))
    got = guidance.classifier_rate(rate, asked, 0.0)(lambda z, t: jnp.ones((1, 3)), jnp.array([0]), 0.5)
    jax.effects_barrier()
    assert asked.calls == 0
    np.testing.assert_array_equal(got, 1)


def test_mistakes_in_options():
    rate = lambda denoise, z, t: jnp.zeros((1, 3))  # noqa: E731
    for guided in (guidance.tempered_rate, guidance.classifier_rate):
        with pytest.raises(InputError, match="gamma=inf, expected a finite number"):
            guided(rate, lambda *args: None, np.inf)
    with pytest.raises(InputError, match="method='first', expected 'exact' or 'first_order'"):
        guidance.classifier_rate(rate, lambda x, t: 0.0, 1.0, method="first")
