"""What a recipe costs: data, a model, one measure and a config are all that is its own. The rest, which is training and
resuming, the folder, drawing, figures and the page, it has of `jaxdiff.runs`."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

from jaxdiff import (
    cli,
    data,
    denoisers,
    domains,
    grids,
    losses,
    networks,
    parameterizations,
    processes,
    recipes,
    samplers,
)
from jaxdiff.domains import page
from jaxdiff.recipes.commands import Command
from jaxdiff.runs import fields
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.folder import checked, recall, recall_domain
from jaxdiff.runs.measure import Measure
from jaxdiff.runs.model import AS_TRAINED, Plan, Run
from jaxdiff.runs.training import Training, averaged, batch_cost, fit, optimizer

PROCESS, ROW = processes.vp(), parameterizations.noise


# The recipe -----------------------------------------------------------------------------------------------------------


def default():
    config = fields.ConfigDict({"recipe": "small", "seed": 0, "held_out": 297})
    config.train = fields.training()
    config.sample = fields.ConfigDict({"steps": 4, "ema_width": 0.0})
    return config


def read(config):
    return data.digits().split(config["held_out"], config["seed"])


def network(domain):
    def make():
        return networks.functional(networks.MLP(domain.shape, hidden=8, depth=1, num_classes=10, rngs=nnx.Rngs(0)))

    return make


class Model:
    """What draws."""

    def __init__(self, config, params, domain):
        self.config, self.domain = config, domain
        self.denoiser = denoiser_of(domain).bind(params)

    def plan(self, request=AS_TRAINED):
        steps = self.config["sample"]["steps"] if request.steps is None else request.steps
        walk = samplers.Sampler(PROCESS, samplers.euler(PROCESS), jnp.linspace(1.0, 0.0, steps + 1))

        def draw(key, n, labels, progress=None):
            x = samplers.draw(key, n, self.denoiser, walk, self.domain.shape, cond=labels, progress=progress)
            return data.to_pixels(x, self.domain.levels)

        return Plan(draw, self.domain, "euler")


def denoiser_of(domain):
    return denoisers.from_network(network(domain)()[0], ROW, PROCESS)


def build(config):
    config = fields.complete(config, default(), fields.TRAINING)
    train, held_out = read(config)
    domain = domains.of(train)
    loss, net = losses.matching(PROCESS, ROW), denoiser_of(domain)

    def cost(params, key, example, t, weight):
        return weight * loss(key, net(params, example["label"]), example["x0"], t) / 64

    def law(params, key, n):
        return grids.uniform_times(key, PROCESS, n)

    step, average = optimizer(config["train"], {"adam": optax.adam})
    whose = fields.identity(config, ("train.steps", "train.log_every", "train.save_every", "sample"))
    objective = batch_cost(cost, law, config["train"]["batch_size"])
    return Training(config, train, held_out, domain, objective, lambda: network(domain)()[1], step, average, whose)


def train(config, workdir):
    return fit(build(config), checked(workdir))


def load(workdir, ema_width=None):
    config, domain = recall(workdir), recall_domain(workdir)
    params, step = averaged(workdir, config, lambda: network(domain)()[1], ema_width)
    return Run(workdir, config, Model(config, params, domain), step, lambda: read(config), load)


def brightness(run, *, n=16, seed=1, say=print):
    x, _ = samples(run.model.plan(), n, seed=seed)
    found = {"step": run.step, "data": run.domain.name, "mean": x.mean(), "real": run.data()[1].pixels.mean()}
    say(f"brightness {found['mean']:.3f}, of real images {found['real']:.3f}")
    return found


def brightness_page(found, folder, config):
    yield page.table(("", "samples", "real"), [("brightness", page.shown(found["mean"]), page.shown(found["real"]))])


MEASURES = (Measure("samples", "metrics.json", ("n",), brightness, brightness_page),)

# What it can do -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """The recipe, at its door."""
    module = types.ModuleType("jaxdiff.recipes.small")
    vars(module).update(train=train, load=load, MEASURES=MEASURES, PER="pixel")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(recipes, "__all__", [*recipes.__all__, "small"])


def test_the_smallest_recipe_runs_every_command(small, tmp_path, capsys):
    config, run = tmp_path / "config.py", tmp_path / "run"
    config.write_text(
        "from test_smallest_recipe import default\n\ndef get_config():\n    config = default()\n"
        "    config.train.steps, config.train.batch_size = 3, 16\n    return config\n"
    )
    words = ["train", f"--config={config}", f"--workdir={run}"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--config.train.steps=5"]) == 0
    assert "finished at step 5" in capsys.readouterr().out
    assert cli.main(["sample", f"--workdir={run}", "--n=20", "--labels=3,4", "--steps=2"]) == 0
    with Image.open(run / "samples.png") as picture:
        assert picture.size[0] > picture.size[1]  # a row for each of two labels
    assert cli.main(["evaluate", f"--workdir={run}", "--n=8"]) == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["step"] == 5
    assert found["real"] == pytest.approx(float(np.mean(read(recall(run))[1].pixels)))
    assert cli.main(["report", f"--workdir={run}"]) == 0
    assert "brightness" in (run / "report.html").read_text()
    capsys.readouterr()
    for words, sentence in (
        (["evaluate", "--draws=2"], "--draws goes with no measure of small"),
        (["evaluate", "--measure=theory"], "a run of small has no measure 'theory'; it has samples"),
        (["sample", "--labels=11"], "label 11 is not a class of digits/train"),
    ):
        assert cli.main([*words, f"--workdir={run}"]) == 2
        assert sentence in capsys.readouterr().err


def test_a_recipe_may_have_verbs_of_its_own(small, monkeypatch, capsys):
    def define(parser):
        parser.add_argument("--n", type=int, default=1)

    verb = Command("Count", "example:\n  jaxdiff small count", define, lambda options: print("counted", options.n))
    monkeypatch.setattr(sys.modules["jaxdiff.recipes.small"], "VERBS", {"count": verb}, raising=False)
    assert cli.main(["small", "count", "--n=3"]) == 0
    assert capsys.readouterr().out == "counted 3\n"
    assert cli.main(["small", "cuont"]) == 2
    assert "there is no command 'small cuont'; it is one of small count" in capsys.readouterr().err
