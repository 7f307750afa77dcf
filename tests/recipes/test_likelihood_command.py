"""A run measured in bits per dimension: by the command, in the report, and with a schedule that was learned."""

import json

import jax
import numpy as np
import pytest
from models import image_run

from jaxdiff import cli
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import MEASURES, PER, load
from jaxdiff.recipes.images.bits_page import parts
from jaxdiff.runs.folder import recall, remember
from jaxdiff.runs.report import report

VDM = (
    "process={'name':'learned','hidden':4}",
    "loss={'name':'vdm'}",
    "row={'name':'noise'}",
    "times={'name':'lattice_times','low':0.0}",
    "likelihood.times=4",
    "likelihood.rtol=0.01",
    "likelihood.atol=0.01",
)


@pytest.fixture(scope="module")
def bounded(words, tmp_path_factory):
    """A run whose process learned."""
    workdir = tmp_path_factory.mktemp("bounded") / "run"
    assert cli.main(words(workdir, *VDM)) == 0
    return workdir


def test_a_learned_schedule_is_read_back_and_drawn_from(bounded):
    model = load(bounded).model
    before, after = image_run(recall(bounded)).model.process, model.process
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved)), "each part of the schedule learns"
    ends = after.schedule.gamma
    np.testing.assert_allclose([ends(0.0), ends(1.0)], [ends.start, ends.end], rtol=1e-6)
    assert jax.tree.structure(model.denoised.process) == jax.tree.structure(after)
    np.testing.assert_array_equal(model.denoised.process.log_snr(0.3), after.log_snr(0.3))
    assert "net" not in model.params
    assert cli.main(["sample", f"--workdir={bounded}", "--n=2", "--sampler=dpmpp_2m", "--steps=3"]) == 0


def test_bits_per_dimension_by_the_command_and_in_the_report(bounded, capsys):
    command = ["evaluate", f"--workdir={bounded}", "--likelihood", "--n=3", "--draws=2"]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert "elbo: " in said.out
    assert "bits/dim, 95 % interval" in said.out
    assert said.out.endswith(f"wrote {bounded / 'likelihood.json'}; now: jaxdiff report --workdir={bounded}\n")
    assert said.err.splitlines()[0] == "elbo, 3 images: 3/3"
    found = json.loads((bounded / "likelihood.json").read_text())
    assert (found["images"], found["draws"], found["levels"], found["dequantized"]) == (3, 2, 17, False)
    elbo, flow = found["bits"]["elbo"], found["bits"]["flow"]
    assert elbo["terms"].keys() == {"prior", "diffusion", "entropy", "reconstruction"}
    assert flow["terms"].keys() == {"flow", "entropy", "reconstruction"}
    for row in (elbo, flow):
        assert row["failed"] == 0
        assert sum(row["terms"].values()) == pytest.approx(row["mean"])
        assert row["interval"][0] < row["mean"] < row["interval"][1]
    # The terms of the data's end are the same model's, and its decoder's scale that of the least noise.
    assert elbo["terms"]["entropy"] == pytest.approx(flow["terms"]["entropy"], rel=1e-6)
    assert found["elbo_minus_flow"]["mean"] == pytest.approx(elbo["mean"] - flow["mean"])
    # What is done is done: nothing is computed again, and the figures are the same.
    assert cli.main(command) == 0
    assert capsys.readouterr().err == ""
    assert json.loads((bounded / "likelihood.json").read_text()) == found

    # Other settings are other figures: a bound at other times is measured anew, and the old one left where it is.
    config, before = recall(bounded), {*(bounded / "likelihood").iterdir()}
    config["likelihood"]["times"] = 5
    remember(bounded, config)
    assert cli.main(command) == 0
    assert json.loads((bounded / "likelihood.json").read_text())["bits"]["elbo"]["mean"] != elbo["mean"]
    assert before < {*(bounded / "likelihood").iterdir()}
    config["likelihood"]["times"] = 4
    remember(bounded, config)
    assert cli.main(command) == 0

    assert cli.main(["report", f"--workdir={bounded}"]) == 0  # of what has been measured, which is this alone
    page = (bounded / "report.html").read_text()
    assert "variational bound (reverse SDE)" in page
    assert f"{elbo['mean']:.4f}" in page
    assert "(a uniform guess: 4.0875), with the discrete decoder, at step 20, 2 draws" in page


def test_a_model_of_dequantised_images_is_measured_on_such(words, tmp_path):
    changes = ("dequantize=True", "process={'name':'vp'}", "row={'name':'noise'}", "train.steps=2", *VDM[4:])
    assert cli.main(words(tmp_path / "run", *changes)) == 0
    assert cli.main(["evaluate", f"--workdir={tmp_path / 'run'}", "--likelihood", "--n=2"]) == 0
    found = json.loads((tmp_path / "run" / "likelihood.json").read_text())
    assert found["dequantized"]
    for row in found["bits"].values():
        assert row["terms"]["dequantization"] == pytest.approx(-np.log2(2 / 16))  # cells of 17 levels on [-1, 1]
        assert sum(row["terms"].values()) == pytest.approx(row["mean"])
    page = "".join(parts(found, tmp_path / "run", {}))
    assert "spread uniformly over their cells" in page
    (tmp_path / "run" / "likelihood.json").unlink()
    with pytest.raises(InputError, match="has not been evaluated"):
        report(tmp_path / "run", MEASURES, PER)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--likelihood", "--n=0"], "n is 0, expected from 1 to 359"),
        (["--likelihood", "--n=400"], "n is 400, expected from 1 to 359, the number of held-out images"),
        (["--likelihood", "--n=1", "--draws=0"], "draws is 0, expected at least 1"),
        (
            ["--likelihood", "--reference=x.npz"],
            "likelihood and reference are two measurements; give one, then the",
        ),
        (
            ["--likelihood", "--features=pixels"],
            "--features goes with --measure=reference, not with",
        ),
        (["--draws=2"], "--draws goes with --measure=likelihood, not with --measure=samples"),
    ],
)
def test_what_cannot_be_measured(flags, sentence, bounded, capsys):
    assert cli.main(["evaluate", f"--workdir={bounded}", *flags]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"jaxdiff: {sentence}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("process={'name':'learned'}",), "config.loss matching bounds no likelihood, which would teach it"),
        (("loss={'name':'vdm'}", "dequantize=True"), "config.loss vdm is a bound on whole grey levels as it stands"),
        (("loss={'name':'vdm'}", "uncertainty=True"), "leave config.uncertainty and config.dequantize False"),
        (("loss={'name':'vdm','steps':0}",), "steps=0, expected at least 1"),
        (("loss={'name':'vdm'}",), "sigma is 0 at t0=0, where data have no density that a model could know"),
        (("likelihood.divergence=guess",), "config.likelihood.divergence is 'guess', expected exact or hutchinson"),
        (("process={'name':'learned','start':6.0}",), "start=6.0, which is not below end=5.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_the_folder_is_taken(changes, sentence, words, tmp_path, capsys):
    assert cli.main(words(tmp_path / "run", *changes)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
