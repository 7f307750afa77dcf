"""Theory on an image run: what is measured of a network that is known exactly, and mistakes of the command."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import cli, oracles
from jaxdiff.recipes.images import build
from jaxdiff.recipes.images.theory import budget, excess, remembered
from jaxdiff.recipes.workdir import recall

pytestmark = pytest.mark.claim(
    "theory on an image run: a network that remembers has no excess, no score error, and draws its training set"
)


class Remembering:
    """A network that is the optimum of the training set; the class that means none is all of it."""

    def __init__(self, experiment):
        train = experiment.train
        self.optimum = oracles.empirical(experiment.process, train.to_model(), labels=train.labels)
        self.whole = oracles.empirical(experiment.process, train.to_model())

    def bind(self, params):
        return self.optimum.denoiser

    def __call__(self, params, label):
        assert int(label) == 10
        return self.whole.denoise


@pytest.fixture(scope="module")
def remembering(trained):
    """An experiment on a few digits, whose network remembers them."""
    config = recall(trained) | {"theory": {"images": 16, "levels": 4, "draws": 16}}
    config["evaluate"] = config["evaluate"] | {"samples": 40}
    config["sample"] = config["sample"] | {"sampler": {"name": "edm", "steps": 8}}
    whole = build(config)
    few = dataclasses.replace(whole, train=whole.train.take(np.arange(60)), held_out=whole.held_out.take(np.arange(60)))
    return _with(few, Remembering(few))


def _with(experiment, network):
    """A copy with a network that is none: the type of the field is checked when it is made."""
    made = copy.copy(experiment)
    object.__setattr__(made, "network", network)
    return made


def test_what_remembers_has_no_excess(remembering):
    found = excess(remembering, None, jax.random.key(0), 16, say=lambda line: None)
    for each in ("excess", "distance"):
        np.testing.assert_allclose(found["train"][each]["value"], 0, atol=1e-6)
    assert found["held_out"]["loss"]["mean"][0] > 10 * found["train"]["loss"]["mean"][0]
    assert found["levels"] == sorted(found["levels"], reverse=True)
    assert len(found["levels"]) == 4


def test_what_remembers_has_no_score_error(remembering):
    found = budget(remembering, None, jax.random.key(0), say=lambda line: None)
    assert found["steps"] == 8
    for row in found["grids"].values():
        np.testing.assert_allclose(row["score"][0], 0, atol=1e-4)
        np.testing.assert_allclose(row["bound"][0], row["initialisation"][0] + row["discretisation"][0], rtol=1e-5)
    # Without a score error an even step in ln sigma is near the best: atoms far apart are the limit of no variance.
    assert found["grids"]["optimal"]["bound"][0] < 1.02 * found["grids"]["logsnr"]["bound"][0]
    assert found["grids"]["logsnr"]["bound"][0] < found["grids"]["karras"]["bound"][0]


def test_what_remembers_draws_its_training_set(remembering):
    found = remembered(remembering, None, seed=0, say=lambda line: None)
    assert found["excess"] > 5 * found["excess_std"]
    assert found["copies"] > 0.9 > found["copies_null"]
    assert found["delta_sign"] == -1


def test_mistakes_of_the_command_are_one_sentence(trained, capsys):
    for words, sentence in (
        (["--theory", "--n=1"], "expected from 2 to 359"),
        (["--theory", "--likelihood"], "three measurements"),
        (["--theory", "--features=pixels"], "--features goes with --reference, not with --theory"),
        (["--guide=other"], "takes no --guide"),
    ):
        assert cli.main(["evaluate", f"--workdir={trained}", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_a_budget_without_a_class_that_means_none_is_of_class_0(remembering):
    """A model that was always told its class has no law of all of them."""

    class Told(Remembering):
        def __call__(self, params, label):
            assert int(label) == 0
            return self.optimum.given(jnp.int32(0)).denoise

    config = remembering.config | {"label_dropout": 0.0}
    told = _with(remembering, Told(remembering))
    object.__setattr__(told, "config", config)
    found = budget(told, None, jax.random.key(0), say=lambda line: None)
    np.testing.assert_allclose([row["score"][0] for row in found["grids"].values()], 0, atol=1e-4)
