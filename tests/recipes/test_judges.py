"""Classifiers of sequences from the command line: each kind trains on what it reads, is asked for the classes of
held-out data, and steers the model that it was made for. What steering is worth is proven in tests/guidance; here it is
that the right judge is asked about the right thing."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import sequence_run
from test_sequences import MOLECULES, config

from jaxdiff import cli, recipes
from jaxdiff.errors import InputError
from jaxdiff.recipes.sequences import load, steering
from jaxdiff.recipes.sequences.judges import Judge
from jaxdiff.recipes.sequences.steering import Guide
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Request

pytestmark = pytest.mark.claim(
    "classifiers from the command line: each reads what it should, none steers what it was not made for"
)


KINDS = {
    "noisy": ("uniform", {"reads": "noisy"}),
    "prefixes": ("autoregressive", {"reads": "prefixes"}),
    "nos": ("uniform", {"reads": "hidden"}),
    "pplm": ("autoregressive", {"reads": "hidden"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs that write, uniform and autoregressive, and a judge of each kind."""
    made = tmp_path_factory.mktemp("judged")
    for variant in ("uniform", "autoregressive"):
        changes = config(variant)
        changes.train.steps, changes.train.save_every, changes.train.warmup = 10, 10, 0
        recipes.sequences.train(changes, made / variant)
    for kind, (variant, model) in KINDS.items():
        of = {"of": str(made / variant)} if model["reads"] == "hidden" else {}
        changes = config("uniform" if kind == "noisy" else "absorbing", model={"name": "classifier"} | model | of)
        changes.train.steps, changes.train.save_every = 40, 40
        changes.train.learning_rate, changes.train.warmup = 0.03, 0
        recipes.sequences.train(changes, made / kind)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_learns_classes_and_says_how_well(folder, kind, capsys):
    """QED above its .9 quantile in 24 molecules is learned by heart in 40 steps, from what each kind reads."""
    workdir = folder / kind
    losses = [json.loads(line)["loss"] for line in (workdir / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.9 * losses[0]
    np.testing.assert_allclose(losses[0], np.log(2), rtol=0.05)  # a new judge's head is 0: two classes, alike
    assert cli.main(["evaluate", f"--workdir={workdir}"]) == 0
    found = json.loads((workdir / "metrics.json").read_text())
    assert (found["kind"], found["metrics"]["sequences"]) == ("classifier", 8)
    assert len(found["metrics"]["rows"]) == (5 if KINDS[kind][0] == "autoregressive" else 6)
    assert cli.main(["report", f"--workdir={workdir}"]) == 0
    assert "How well it finds classes" in (workdir / "report.html").read_text()
    capsys.readouterr()
    for command in (["sample"], ["evaluate", "--likelihood"]):
        assert cli.main([*command, f"--workdir={workdir}"]) == 2
        said = capsys.readouterr().err
        assert "this run is a classifier, which draws nothing" in said or "says no likelihood" in said


@pytest.mark.parametrize("kind", KINDS)
def test_no_strength_is_the_model_without_its_class(folder, kind):
    model, judge = load(folder / KINDS[kind][0]).model, load(folder / kind)

    def draw(label, gamma):
        plan = model.plan(Request(guidance=gamma, guide=judge))
        return samples(plan, 3, seed=0, labels=np.full(3, label, np.int32))[0]

    drawing = model.kind.drawing(model.params, 24, model.config["sample"]["sampler"], Guide())
    none = drawing(jax.random.key(0), 3, np.full(3, 2))
    np.testing.assert_array_equal(draw(1, 0.0), none)
    strong = {"noisy": 200.0, "prefixes": 50.0}.get(kind, 60.0)
    assert (draw(0, strong) != draw(1, strong)).any()


@pytest.mark.parametrize("kind", ["noisy", "prefixes"])
def test_a_judge_that_is_sure_has_its_way(folder, kind):
    """One that calls a sequence of class 1 when its third token is 5, of class 0 when it is 7, else of neither."""
    model, judge = load(folder / KINDS[kind][0]).model, load(folder / kind)
    which = jnp.full(model.domain.vocab + 1, 2).at[5].set(1).at[7].set(0)
    table = 40 * jax.nn.one_hot(which, 3)

    def apply(params, x, c_noise, mask=None):
        assert (c_noise is None) == (judge.config["level"] == "none")
        return (x[:, 2] @ table[: x.shape[-1]].astype(x.dtype)).reshape(1, 3)

    def step(params, token, state):
        place, found = state
        found = jnp.where(place == 3, table[token[0]], found)  # the first token comes before the others
        return found[None], (place + 1, found)

    sure = dataclasses.replace(judge.model.kind, apply=apply)
    if kind == "prefixes":
        sure = dataclasses.replace(sure, step=step, nothing=lambda length: (jnp.int32(0), jnp.zeros(3)))
    guide = judge._replace(model=dataclasses.replace(judge.model, kind=sure))
    steering = {"name": "classifier_based", "method": "exact"} if kind == "noisy" else {"name": "fudge"}
    plan = model.plan(Request(guidance=2.0, guide=guide, steering=steering))
    tokens, labels = samples(plan, 4, seed=0)
    np.testing.assert_array_equal(labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(tokens[:, 2], [7, 5, 7, 5])


def test_steering_from_the_command_line(folder, capsys):
    uniform, out = folder / "uniform", folder / "out.npz"
    words = ["sample", f"--workdir={uniform}", "--n=2", f"--out={out}", "--guidance=3", f"--guide={folder / 'noisy'}"]
    assert cli.main(words) == 0
    assert cli.main(["evaluate", f"--workdir={uniform}", f"--guide={folder / 'nos'}"]) == 0
    found = json.loads((uniform / "metrics.json").read_text())
    assert found["guide"] == str(folder / "nos")
    assert cli.main(["report", f"--workdir={uniform}"]) == 0
    assert "guided by" in (uniform / "report.html").read_text()
    capsys.readouterr()
    mistakes = {
        f"--guide={uniform}": "is no classifier",
        f"--guide={folder / 'prefixes'}": "the guide judges prefixes tokens, which this model has none of",
        "--steering=classifier_based": "classifier_based asks a judge, and got none",
    }
    for word, sentence in mistakes.items():
        assert cli.main(["sample", f"--workdir={uniform}", word]) == 2, word
        assert sentence in capsys.readouterr().err, word


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"name": "classifier", "reads": "all"}}, "config.model.reads is 'all'"),
        ({"model": {"name": "classifier", "reads": "hidden"}}, "the folder `of` another run"),
        ({"data": MOLECULES | {"label": ""}, "model": {"name": "classifier"}}, "no classes to tell apart"),
        ({"network": {"name": "TruncatedLogistic"}, "model": {"name": "classifier"}}, "reads whole images"),
        ({"network": {"name": "TruncatedLogistic"}}, "which reads images"),
    ],
)
def test_mistakes_in_a_config_are_one_sentence(changes, sentence, tmp_path):
    with pytest.raises(InputError, match=re.escape(sentence)):
        recipes.sequences.train(config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "guide", "sentence"),
    [
        ({"alpha": {"name": "cosine"}}, "noisy", "train it with the same"),
        ({"data": MOLECULES | {"length": 26}}, "noisy", "of another alphabet or length"),
        ({}, "pplm", "reads the hidden states of"),
        ({"label_dropout": 0.0}, "noisy", "never learned: it was trained with label_dropout=0"),
    ],
)
def test_a_judge_of_something_else_is_refused(folder, changes, guide, sentence):
    model = sequence_run(config("uniform", **changes), folder=folder / "uniform").model
    judge = load(folder / guide)
    with pytest.raises(InputError, match=sentence):
        model.plan(Request(guide=judge))


def test_a_judge_of_a_network_that_went_on_is_refused(folder, tmp_path):
    workdir = shutil.copytree(folder / "nos", tmp_path / "nos")
    found = json.loads((workdir / "run.json").read_text())
    assert found["config"]["base_step"] == 10
    found["config"]["base_step"] = 9
    (workdir / "run.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match="at its step 9, and that run is at step 10 now"):
        load(workdir)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_is_that_of_the_label(folder, kind):
    """-log p of it by the judge's own logits; of prefixes the mean over all of them."""
    judge = load(folder / kind)
    model, weights, x0 = judge.model.kind, judge.model.params, jnp.asarray(judge.data()[0].tokens[0])
    assert isinstance(model, Judge)
    keys, t = jax.random.split(jax.random.key(0)), jnp.float32(0.4)
    logits = jax.jit(model.logits)(weights, keys[0], x0, t)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    cost = jax.jit(lambda weights: model.cost(weights, keys, x0, 1, t, dropout=False))(weights)
    assert logits.shape == ((25, 2) if model.step is not None else (2,))
    np.testing.assert_allclose(cost, -np.log(p[..., 1]).mean(), rtol=1e-4)


def _opinionated(folder, **parts):
    return dataclasses.replace(load(folder).model.kind, **parts)


def test_hidden_states_are_moved_towards_the_label(folder):
    """A judge that reads the log-probability of token 5 off the hidden state: towards class 1 the model believes in it
    more, towards class 0 less."""
    x0 = jnp.asarray(load(folder / "nos").data()[0].tokens[0])

    def opinion(logits):
        z = jnp.mean(jax.nn.log_softmax(logits)[..., 5])
        return jnp.stack([-z, z])[None]

    writer = load(folder / "uniform").model
    model, params, null, t = writer.kind, writer.params, jnp.int32(2), jnp.float32(0.5)
    head = model.head(params, null)
    judge = _opinionated(folder / "nos", apply=lambda weights, h: opinion(head(h[0], t).logits))
    make, _ = steering.nos(model=model, params=params, guide=Guide(3.0, 2, {}, judge, None))
    believed = [
        float(opinion(denoise(x0, t).logits)[0, 1]) for denoise in (make(0), model.network(params, null), make(1))
    ]
    assert believed[0] < believed[1] - 0.01 < believed[1] + 0.01 < believed[2]

    writer = load(folder / "autoregressive").model
    model, params = writer.kind, writer.params
    _, say, _ = model.halves(params, null, 24)
    judge = _opinionated(folder / "pplm", step=lambda weights, h, state: (opinion(say(h[0])), state))
    make = steering.pplm(model=model, params=params, guide=Guide(3.0, 2, {}, judge, None))
    token = jnp.int32(writer.domain.vocab)
    steps = make(0, 24), model.reader(params, null, 24), make(1, 24)
    believed = [float(opinion(step(token, cache)[0])[0, 1]) for step, cache in steps]
    assert believed[0] < believed[1] - 0.01 < believed[1] + 0.01 < believed[2]
