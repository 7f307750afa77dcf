"""Experiments on sequences from the command line: each kind of model trains, draws, is measured and reported, and every
mistake is one sentence. Three molecules' worth of training proves no quality: what is right is proven where the parts
are (losses, samplers, metrics); here it is that they are put together rightly."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import sequence_run

from jaxdiff import cli, likelihood, losses, recipes
from jaxdiff.errors import InputError
from jaxdiff.recipes.sequences import build, default, load
from jaxdiff.recipes.sequences.autoregression import Autoregression
from jaxdiff.recipes.sequences.diffusion import Diffusion
from jaxdiff.recipes.sequences.samples import by_guidance
from jaxdiff.recipes.sequences.steering import Guide
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Plan, Request

FILES = Path(__file__).parents[1] / "data" / "files"
MOLECULES = {"name": "smiles", "path": str(FILES / "qm9.smi"), "length": 24, "label": "qed"}
NETWORK = {"name": "TokenDiT", "width": 16, "depth": 1, "heads": 2, "cond_dim": 8}
VARIANTS = {
    "absorbing": {},
    "uniform": {"process": {"name": "uniform"}, "level": "total_noise"},
    "autoregressive": {"model": {"name": "autoregressive"}},
}


def config(variant="absorbing", data=MOLECULES, **changes):
    made = default()
    made.data, made.network, made.held_out = data, NETWORK, 8
    made.train.steps, made.train.batch_size, made.train.save_every, made.train.log_every = 3, 8, 3, 1
    made.train.ema_half_life = 8
    made.sample.sampler = {"name": "ancestral", "steps": 4}
    made.times.low = 0.0  # the whole of the bound's integral
    made.evaluate.samples, made.evaluate.label = 8, 1
    made.likelihood.sequences, made.likelihood.times = 5, 4
    for key, value in VARIANTS[variant].items():
        made[key] = value
    for key, value in changes.items():
        made[key] = value
    return made


@pytest.fixture(scope="module", params=VARIANTS)
def run(request, tmp_path_factory):
    """The folder of a trained run of each kind."""
    workdir = tmp_path_factory.mktemp("sequences") / request.param
    assert recipes.sequences.train(config(request.param), workdir).status == "finished"
    return workdir


def drawn(run, folder, *words):
    out = folder / "out.npz"
    assert cli.main(["sample", f"--workdir={run}", f"--out={out}", *words]) == 0
    with np.load(out) as arrays:
        return dict(arrays)


def test_a_sequence_hangs_on_its_seed_label_and_place_alone(run, tmp_path, capsys):
    many = drawn(run, tmp_path, "--n=5", "--labels=1")
    assert many["tokens"].shape == (5, 24)
    assert many["tokens"].max() < load(run).domain.vocab
    few = drawn(run, tmp_path, "--n=2", "--labels=1")
    np.testing.assert_array_equal(few["tokens"], many["tokens"][:2])
    assert (drawn(run, tmp_path, "--n=5", "--labels=1", "--seed=1")["tokens"] != many["tokens"]).any()
    capsys.readouterr()
    assert cli.main(["sample", f"--workdir={run}", "--n=3"]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'samples.txt'}\n"
    assert len((run / "samples.txt").read_text().splitlines()) == 3


def test_molecules_are_written_as_pictures(run, tmp_path):
    trained = load(run)
    domain, tokens = trained.domain, trained.data()[0].tokens[:3]
    assert domain.content(".png", tokens, None, 1).startswith(b"\x89PNG")
    assert domain.content(".svg", tokens, None, 1).startswith("<?xml")
    with pytest.raises(InputError, match="1 tokens of the samples are still masked"):
        domain.content(".txt", np.full((1, 1), domain.vocab), None, 1)


def test_a_run_is_measured_and_reported(run, capsys):
    assert cli.main(["evaluate", f"--workdir={run}"]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["metrics"]["samples"]["samples"] == 8
    assert 0 <= found["metrics"]["held_out"]["validity"] <= 1
    assert cli.main(["evaluate", f"--workdir={run}", "--likelihood", "--n=4"]) == 0
    bits = json.loads((run / "likelihood.json").read_text())
    assert bits["exact"] == ("autoregressive" in run.name)
    assert bits["tokens"] == 4 * 24
    assert cli.main(["report", f"--workdir={run}"]) == 0
    page = (run / "report.html").read_text()
    assert "Validity" in page or "validity" in page
    assert not re.search(r'(?:src|href)=[\'"]?https?:', page), "the page asks for something outside of it"
    assert "bits per token" in page


def test_the_objective_is_the_models_own_bound(run):
    """The training loss of a batch is the mean of the loss of each example per token, by the parts themselves."""
    trained = load(run)
    model, params, experiment = trained.model.kind, trained.model.params, build(trained.config)
    x, labels = experiment.train.tokens[:4], experiment.train.labels[:4]
    batch = {"x0": x, "label": labels, "index": np.arange(4, dtype=np.uint32)}
    if isinstance(model, Autoregression):
        cost = jax.jit(jax.vmap(lambda row, label: -model.log_prob_of(params, row, label) / 24))
        exact, hidden = cost(jnp.asarray(x), jnp.asarray(labels)), cost(jnp.asarray(x), jnp.full(4, 2, jnp.int32))
        got = jax.jit(experiment.objective)(params, jax.random.key(0), batch)
        near = np.minimum(np.abs(got - exact), np.abs(got - hidden))
        np.testing.assert_allclose(near, 0, atol=1e-5)  # each with its class, or with it hidden
        return
    assert isinstance(model, Diffusion)
    seeds = jax.random.split(jax.random.key(0), 100)
    got = np.asarray(jax.jit(jax.vmap(lambda key: experiment.objective(params, key, batch)))(seeds))
    # A class is hidden in a tenth of the draws.
    shown, hidden = (
        likelihood.nelbo(
            jax.random.key(1), model.process, model.network(params, jnp.int32(label)), jnp.asarray(x[0]), draws=30
        )
        for label in (labels[0], trained.model.null)
    )
    expected = -(0.9 * float(shown.value) + 0.1 * float(hidden.value)) / 24
    errors = got[:, 0].std() / np.sqrt(100), 0.9 * float(shown.stderr) / 24, 0.1 * float(hidden.stderr) / 24
    # The two bounds share their noise, so their errors add up.
    assert abs(got[:, 0].mean() - expected) < 5 * np.hypot(errors[0], errors[1] + errors[2])


@pytest.mark.parametrize(("variant", "rule"), [("absorbing", "belief"), ("uniform", "kernel")])
def test_guidance_is_the_published_rule_of_each_noise(variant, rule):
    """gamma = 0 is the model without its class, by either rule; absorbing noise tempers the belief, uniform the
    kernel."""
    kind, made = sequence_run(config(variant)).model.kind, build(config(variant))
    assert isinstance(kind, Diffusion)
    params = jax.tree.map(lambda leaf: leaf + 0.3, jax.jit(made.initial)().params)  # a new network's head is 0

    def draw(gamma, label, what="published"):
        spec, labels = made.config["sample"]["sampler"], np.full(4, label, np.int32)
        guide = Guide(gamma, 2, {"name": "tempered", "what": what})
        return kind.drawing(params, 24, spec, guide)(jax.random.key(0), 4, labels)

    np.testing.assert_array_equal(draw(0.0, 0), draw(1.0, 2))
    np.testing.assert_array_equal(draw(3.0, 1), draw(3.0, 1, rule))


IMAGES = {"name": "digits"}


def test_images_as_tokens_are_measured_as_images(tmp_path, capsys):
    network = {"name": "TruncatedLogistic", "width": 8, "multipliers": (1, 2), "blocks": 1}
    made = config("absorbing", IMAGES, held_out=1600, network=network, level="total_noise")
    made.evaluate.samples = 40
    assert recipes.sequences.train(made, tmp_path).status == "finished"
    assert cli.main(["sample", f"--workdir={tmp_path}", "--n=4"]) == 0
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["evaluate", f"--workdir={tmp_path}"]) == 0
    assert "frechet" in json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert cli.main(["report", f"--workdir={tmp_path}"]) == 0


def test_dna_and_text_are_measured_as_such(tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "genome.fa").write_text(">one\n" + "".join(rng.choice(list("ACGT"), 4000)) + "\n")
    (tmp_path / "book.txt").write_text("in the beginning was the word " * 200)
    sources = {
        "dna": {"name": "genome", "path": str(tmp_path / "genome.fa"), "length": 20},
        "text": {"name": "text", "path": str(tmp_path / "book.txt"), "length": 20},
    }
    for kind, data in sources.items():
        made = config("uniform", data, held_out=0.3)
        made.evaluate.samples = 24
        assert recipes.sequences.train(made, tmp_path / kind).status == "finished"
        assert cli.main(["evaluate", f"--workdir={tmp_path / kind}"]) == 0
        found = json.loads((tmp_path / kind / "metrics.json").read_text())
        assert found["kind"] == kind
        assert cli.main(["report", f"--workdir={tmp_path / kind}"]) == 0
    assert "samples: unigram_entropy" in capsys.readouterr().out


def test_guidance_is_measured_by_its_strength(tmp_path):
    """On training molecules in the place of samples: their counts and means are known."""
    run = sequence_run(config(evaluate={"samples": 8, "label": 1, "guidance": (1.0, 2.0)}))
    train, _ = run.data()
    asked = []

    class Model(NamedTuple):
        domain: Any

        def plan(self, request):
            def draw(key, n, labels, progress=None):
                asked.append((request.guidance, int(labels[0])))
                return train.tokens[:n]

            return Plan(draw, self.domain, "drawing")

    known = run._replace(model=Model(run.domain))
    rows = by_guidance(known, Request(), train, (1.0, 2.0), seed=0, say=lambda line: None)
    assert [row["gamma"] for row in rows] == [1.0, 2.0]
    qed = train.properties["qed"][:8]
    for row in rows:
        assert (row["valid"], row["novel"]) == (8, 0)
        np.testing.assert_allclose(row["means"]["qed"][0], qed.mean(), rtol=1e-6)
    assert asked == [(1.0, 1), (2.0, 1)]


@pytest.mark.parametrize("loss", ["score_entropy", "cross_entropy", "d3pm", "flow_matching"])
def test_every_loss_has_finite_values(loss):
    meaning = {"score_entropy": "posterior", "d3pm": "posterior"}.get(loss, "leave_one_out")
    experiment = build(config("uniform", loss={"name": loss}, meaning=meaning))
    x, labels = experiment.train.tokens[:8], experiment.train.labels[:8]
    batch = {"x0": x, "label": labels, "index": np.arange(8, dtype=np.uint32)}
    params = jax.jit(experiment.initial)().params
    got = jax.jit(experiment.objective)(params, jax.random.key(0), batch)
    assert got.shape == (8,)
    assert np.isfinite(got).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"name": "transformer"}}, "expected one of diffusion, autoregressive, classifier"),
        ({"process": {"name": "gaussian"}}, "gaussian needs 'width'"),
        ({"process": {"name": "vp"}}, "expected one of absorbing, uniform, hybrid, gidd"),
        ({"meaning": "score"}, "expected leave_one_out or posterior"),
        ({"level": "time"}, "expected none or total_noise"),
        ({"loss": {"name": "flow_matching"}, "process": {"name": "gidd"}}, "whose noise changes with time"),
        ({"data": {"name": "smiles", "path": "no.smi", "length": 9}}, "no.smi does not exist"),
        ({"sample": {"guidance": float("nan")}}, "guidance is nan, expected a finite number"),
        ({"label_dropout": 0.0, "sample": {"guidance": 2.0}}, "knows no sequences without their class"),
        ({"network": {"name": "UNet"}}, "expected one of TokenDiT, StateSpace, TruncatedLogistic"),
    ],
)
def test_mistakes_in_a_config_are_one_sentence(changes, sentence, tmp_path):
    made = config()
    for key, value in changes.items():
        if key == "sample":
            made.sample.update(value)
        else:
            made[key] = value
    with pytest.raises(InputError, match=re.escape(sentence)):
        recipes.sequences.train(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mistakes_of_a_command_are_one_sentence(run, tmp_path, capsys):
    mistakes = {
        "--labels=2": "label 2 is not a class",
        "--n=0": "expected at least 1 sequence",
        "--guide=other": "other holds no run",
        "--guidance=inf": "expected a finite number",
        "--out=a.pdf": "expected a file that ends in .txt or .npz or .png or .svg",
    }
    for word, sentence in mistakes.items():
        assert cli.main(["sample", f"--workdir={run}", word]) == 2, word
        assert sentence in capsys.readouterr().err, word
    made = json.loads((run / "config.json").read_text())
    made["evaluate"] |= {"label": -1, "guidance": [2.0]}
    (tmp_path / "config.json").write_text(json.dumps(made))
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    shutil.copy(run / "run.json", tmp_path)
    assert cli.main(["evaluate", f"--workdir={tmp_path}"]) == 2
    assert "measures samples of one class" in capsys.readouterr().err
    assert cli.main(["evaluate", f"--workdir={run}", "--likelihood", "--n=99"]) == 2
    assert "expected from 1 to 8" in capsys.readouterr().err


def test_the_bound_of_the_recipe_is_the_library_s():
    model = sequence_run(config("uniform")).model
    assert isinstance(model.kind, Diffusion)
    assert model.kind.loss.func is losses.bound(model.kind.process).func
    with pytest.raises(InputError, match="label 5 is not a class"):
        samples(model.plan(), 2, seed=0, labels=np.array([5, 5]))


def test_what_writes_token_by_token_refuses_a_sampler(run, capsys):
    """Every flag is used or refused."""
    for word in ("--sampler=no_such", "--steps=-7"):
        refused = cli.main(["sample", f"--workdir={run}", "--n=1", word]) == 2
        assert refused, word
        said = capsys.readouterr().err
        assert ("writes token by token" in said) == ("autoregressive" in run.name), said
