"""Theory on an image run: what is measured of a network that is known exactly, and mistakes of the command."""

from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

from jaxdiff import cli, oracles
from jaxdiff.recipes.images import load
from jaxdiff.recipes.images.theory import budget, excess, remembered
from jaxdiff.runs.denoised import Denoised
from jaxdiff.runs.model import AS_TRAINED

pytestmark = pytest.mark.claim(
    "theory on an image run: a network that remembers has no excess, no score error, and draws its training set"
)


@dataclass(frozen=True)
class Remembering:
    """A model that is the optimum of its training set, and without a class of all of it."""

    domain: object
    process: object
    denoiser: object
    denoised: Denoised
    null: int = 10

    def plan(self, request=AS_TRAINED):
        return self.denoised.plan(request)


@pytest.fixture(scope="module")
def remembering(trained):
    """(a model that remembers a few digits, they, and as many others)."""
    run = load(trained)
    train, held_out = (part.take(np.arange(60)) for part in run.data())
    process, domain = run.model.process, run.model.domain
    optimum = oracles.empirical(process, train.to_model(), labels=train.labels)
    whole = oracles.empirical(process, train.to_model())
    sample = run.config["sample"] | {"sampler": {"name": "edm", "steps": 8}}
    denoised = Denoised(domain, process, optimum.denoiser, whole.denoise, sample)
    return Remembering(domain, process, optimum.denoiser, denoised), train, held_out


SETTINGS = {"levels": 4, "draws": 16}


def test_what_remembers_has_no_excess(remembering):
    found = excess(*remembering, jax.random.key(0), 16, levels=4, say=lambda line: None)
    for each in ("excess", "distance"):
        np.testing.assert_allclose(found["train"][each]["value"], 0, atol=1e-6)
    assert found["held_out"]["loss"]["mean"][0] > 10 * found["train"]["loss"]["mean"][0]
    assert found["levels"] == sorted(found["levels"], reverse=True)
    assert len(found["levels"]) == 4


def test_what_remembers_has_no_score_error(remembering):
    model, train, _ = remembering
    found = budget(model, train, jax.random.key(0), SETTINGS, steps=8, say=lambda line: None)
    assert found["steps"] == 8
    for row in found["grids"].values():
        np.testing.assert_allclose(row["score"][0], 0, atol=1e-4)
        np.testing.assert_allclose(row["bound"][0], row["initialisation"][0] + row["discretisation"][0], rtol=1e-5)
    # Without a score error an even step in ln sigma is near the best: atoms far apart are the limit of no variance.
    assert found["grids"]["optimal"]["bound"][0] < 1.02 * found["grids"]["logsnr"]["bound"][0]
    assert found["grids"]["logsnr"]["bound"][0] < found["grids"]["karras"]["bound"][0]


def test_what_remembers_draws_its_training_set(remembering):
    found = remembered(*remembering, 40, seed=0, say=lambda line: None)
    assert found["excess"] > 5 * found["excess_std"]
    assert found["copies"] > 0.9 > found["copies_null"]
    assert found["delta_sign"] == -1


def test_mistakes_of_the_command_are_one_sentence(trained, capsys):
    for words, sentence in (
        (["--theory", "--n=1"], "expected from 2 to 359"),
        (["--theory", "--likelihood"], "two measurements"),
        (["--theory", "--features=pixels"], "--features goes with --measure=reference, not with --measure=theory"),
        (["--guide=other"], "--guide goes with no measure of images"),
        (["--measure=reference"], "--measure=reference needs --reference"),
        (["--measure=colour"], "has no measure 'colour'; it has samples, likelihood, theory, reference"),
    ):
        assert cli.main(["evaluate", f"--workdir={trained}", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_a_budget_without_a_class_that_means_none_is_of_class_0(remembering):
    """A model that was always told its class has no law of all of them."""

    model, train, _ = remembering
    told = replace(model, denoised=model.denoised._replace(without="it was always told"))
    found = budget(told, train, jax.random.key(0), SETTINGS, steps=8, say=lambda line: None)
    np.testing.assert_allclose([row["score"][0] for row in found["grids"].values()], 0, atol=1e-4)
    assert found["law"] == "class 0 of the training set"
