"""The figures of docs/guidance.md, measured: python benchmarks/token_guidance.py

Total variations of exact laws, by transition matrices in float64; nothing is drawn. The toys: two tokens of three kinds
and one of four, with two classes; chains of two states, five tokens long.

Claim: D-CFG, D-CBG, rates, NOS, FUDGE, PPLM: what is exact and what stays biased
([docs/guidance.md](docs/guidance.md))"""

import sys
from pathlib import Path

import jax
import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "guidance")]

import test_guided_autoregression as chains  # noqa: E402
from token_toys import (  # noqa: E402
    apart,
    class_0,
    denoisers,
    distances,
    given,
    jump_law,
    one_token,
    power_law,
    two_tokens,
)

from jaxdiff import guidance, processes  # noqa: E402
from jaxdiff.samplers.categorical import ancestral, euler, reverse_rate, tau_leaping  # noqa: E402

STEPS = (8, 32, 128, 512)


def row(name, numbers):
    print(f"| {name} | " + " | ".join(f"{x:.5f}" for x in numbers) + " |", flush=True)


def two(make):
    process, law = make(3), two_tokens()
    return process, law, *denoisers(process, law), class_0(process, law)


def to_the_label():
    print(f"gamma = 1, distance to p(x | y) after {STEPS} steps")
    for make in (processes.uniform, processes.absorbing):
        process, law, conditional, null, log_prob = two(make)
        kernel, goal = ancestral(process), given(law)
        row(f"{make.__name__}, D-CFG", distances(kernel, conditional, process, law, STEPS, goal))
        for when in "ts":
            guided = guidance.classifier_based(kernel, log_prob, 1.0, classifier_time=when)
            row(f"{make.__name__}, D-CBG at {when}", distances(guided, null, process, law, STEPS, goal))


def beyond_the_label():
    print(f"gamma = 2, distance to p(x | y)^2 / p(x) after {STEPS} steps")
    for make in (processes.uniform, processes.absorbing):
        process, law, conditional, null, log_prob = two(make)
        kernel, goal = ancestral(process), power_law(law, 2.0)
        row(
            f"{make.__name__}, tempered",
            distances(guidance.tempered(kernel, null, 2.0), conditional, process, law, STEPS, goal),
        )
        belief = guidance.tempered_belief(process, conditional, null, 2.0)
        row(f"{make.__name__}, tempered_belief", distances(kernel, belief, process, law, STEPS, goal))
        guided = guidance.classifier_based(kernel, log_prob, 2.0)
        row(f"{make.__name__}, D-CBG at t", distances(guided, null, process, law, STEPS, goal))
    law = one_token()
    for make in (processes.uniform, processes.absorbing):
        process = make(4)
        conditional, null = denoisers(process, law)
        kernel, goal = ancestral(process), power_law(law, 2.0)
        guided = guidance.tempered(kernel, null, 2.0)
        row(f"one token, {make.__name__}, tempered", distances(guided, conditional, process, law, STEPS, goal))
        belief = guidance.tempered_belief(process, conditional, null, 2.0)
        row(f"one token, {make.__name__}, tempered_belief", distances(kernel, belief, process, law, STEPS, goal))


def to_the_rates():
    process, law, conditional, null, log_prob = two(processes.uniform)
    limit = jump_law(guidance.tempered_rate(reverse_rate(process), null, 2.0), conditional, process, 2)
    print(f"gamma = 2, uniform noise, distance to the law of the guided rates after {STEPS} steps")
    print(f"(itself {apart(limit, power_law(law, 2.0)):.5f} from p(x | y)^2 / p(x))")
    for kernel in (ancestral, euler):
        step = kernel(process)
        guided = guidance.tempered(step, null, 2.0)
        row(f"{kernel.__name__}, tempered", distances(guided, conditional, process, law, STEPS, limit))
        for when in "ts":
            guided = guidance.classifier_based(step, log_prob, 2.0, classifier_time=when)
            row(f"{kernel.__name__}, D-CBG at {when}", distances(guided, null, process, law, STEPS, limit))
    for kernel in (euler, tau_leaping):
        for name, rate, denoise in (
            ("tempered_rate", guidance.tempered_rate(reverse_rate(process), null, 2.0), conditional),
            ("classifier_rate", guidance.classifier_rate(reverse_rate(process), log_prob, 2.0), null),
        ):
            guided = kernel(process, rate)
            row(f"{kernel.__name__} of {name}", distances(guided, denoise, process, law, STEPS, limit))


def shown():
    process, _, conditional, null, log_prob = two(processes.absorbing)
    z, kernel = np.array([3, 1], np.int32), ancestral(process)
    gammas = (0.0, 1.0, 2.0, 5.0)
    print(f"that a masked token stays masked from alpha = .2 to .4, at gamma = {gammas}; without guidance .75")
    z = jax.numpy.asarray(z)

    def stays(make):
        def one(gamma):
            guided, denoise = make(gamma)
            return jax.numpy.exp(guided(denoise, z, 0.8, 0.6)[0, 3])

        return jax.jit(jax.vmap(one))(jax.numpy.array(gammas))

    row(
        "tempered_belief",
        stays(lambda gamma: (kernel, guidance.tempered_belief(process, conditional, null, gamma))),
    )
    row("tempered", stays(lambda gamma: (guidance.tempered(kernel, null, gamma), conditional)))
    row("classifier_based", stays(lambda gamma: (guidance.classifier_based(kernel, log_prob, gamma), null)))


def first_order():
    """Of the law of a step, the largest difference of a probability: 4 tokens of 5 states, 3 classes, flat beliefs."""
    weights, z = jax.numpy.asarray(np.random.default_rng(0).normal(size=(3, 4, 5))), jax.numpy.array([0, 4, 2, 2])

    def flat(denoise, z, t, s):
        return jax.numpy.full((*z.shape, 5), -np.log(5))

    def step(size, method):
        log_prob = guidance.log_prob_of(lambda x, t: jax.numpy.sum(size * weights * x, (1, 2)), 0)
        return np.exp(guidance.classifier_based(flat, log_prob, 1.5, method=method)(None, z, 0.5, 0.4))

    print("first order against exact, a softmax of linear logits, gamma = 1.5, weights of deviation 1, .1, .01")
    row("largest difference", [abs(step(a, "first_order") - step(a, "exact")).max() for a in (1.0, 0.1, 0.01)])


def token_by_token():
    print("autoregressive, five tokens of two states")
    for gamma in (1.0, 2.0):
        step = guidance.fudge(chains.model(chains.ALL), chains.judge(), gamma)
        goal = chains.ALL * chains.SHARE**gamma
        distance = apart(chains.law(step, chains.both()), goal / goal.sum())
        print(f"fudge, gamma = {gamma:g}: {distance:.1e} from p(x) p(y | x)^gamma")
    print("pplm, steps of .1: share of the class, KL(model || guided)")
    for steps in (0, 1, 2, 4, 8, 16):
        law = chains.moved(steps=steps, step_size=0.1)
        print(f"{steps}: {(law * chains.SHARE).sum():.4f}, {chains.kl(chains.ALL, law):.4f}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    to_the_label()
    beyond_the_label()
    to_the_rates()
    shown()
    first_order()
    token_by_token()
