"""A string in a config chooses code in one place: every name that it may say builds, and any other is refused."""

import itertools

import jax
import numpy as np
import pytest
import roster
import tiny
from models import image_run

from jaxdiff.data import Images
from jaxdiff.errors import InputError
from jaxdiff.recipes.images import build, names
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Request
from jaxdiff.runs.resolve import named, resolve
from jaxdiff.runs.samplers import SAMPLERS
from jaxdiff.runs.training import QUICK


class Things:
    @staticmethod
    def law(process, t):
        return "plain"

    @staticmethod
    def tuned(key, process, n, *, mean: float = 0.0):
        return mean

    @staticmethod
    def made(size: int = 3, *, path: str | None = None, rate=None, sizes: tuple[int, ...] = ()):
        return size, path, rate

    @staticmethod
    def needy(size: int):
        return size


KNOWN = named(Things, "law", "tuned", "made", "needy")


def test_what_runs_is_kept_and_what_makes_is_called():
    assert resolve("x", KNOWN, {"name": "law"}) is Things.law
    assert resolve("x", KNOWN, {"name": "tuned", "mean": 2})(None, None, 3) == 2
    assert resolve("x", KNOWN, {"name": "made", "size": 4}, rate=0.1, unused=1) == (4, None, 0.1)
    assert resolve("x", KNOWN, {"name": "needy"}, size=5) == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "lore"}, r"config\.x\.name is 'lore', expected one of law, tuned, made, needy"),
        ({"name": 3}, r"config\.x is \{'name': 3\}, expected \{'name'"),
        ("law", "config.x is 'law', expected"),
        ({"name": "made", "seize": 1}, "made has no option 'seize'; it has size, path, sizes"),
        ({"name": "law", "t": 1}, "law has no option 't'; it has none"),
        ({"name": "made", "rate": 1}, "made has no option 'rate'"),
        ({"name": "made", "size": "3"}, r"config\.x\.size is '3', expected int"),
        ({"name": "made", "size": True}, r"config\.x\.size is True, expected int"),
        ({"name": "made", "path": 3}, r"config\.x\.path is 3, expected str \| None"),
        ({"name": "made", "sizes": 3}, r"config\.x\.sizes is 3, expected tuple"),
        ({"name": "tuned", "mean": "low"}, "expected float, as tuned takes it"),
        ({"name": "needy"}, "needy needs 'size'"),
    ],
)
def test_anything_else_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        resolve("x", KNOWN, spec, rate=0.1)


def test_a_config_can_name_all_that_there_is():
    assert roster.PROCESSES | {"learned": names.learned} == names.PROCESSES
    assert {*names.ROWS} == {*roster.ROWS}
    assert {*names.WEIGHTS} == {*roster.WEIGHTS}
    assert {*names.TIMES} == {f"{name}_times" for name in (*roster.TRAINING_TIMES, "soft_truncated")}


SMALL = Images("small", np.random.default_rng(0).integers(0, 5, (40, 2, 2, 1), dtype=np.uint8), levels=5)


@pytest.fixture(scope="module")
def params():
    """Of the tiny network on the small images, which is the same in all the configs below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(names.DATA, "digits", lambda: SMALL)
        return jax.jit(build(tiny.get_config()).initial, compiler_options=QUICK)().params


def combinations():
    """Configs in which every process but the learned, row, weight and law of times stands at least once."""
    kinds = (roster.PROCESSES, names.ROWS, names.WEIGHTS, names.TIMES)
    for chosen in zip(*(itertools.islice(itertools.cycle(kind), len(roster.PROCESSES)) for kind in kinds), strict=True):
        config = tiny.get_config()
        config.process, config.row, config.weight, config.times = ({"name": name} for name in chosen)
        if config.times.name in ("importance_times", "debiased_times"):
            config.times.high = 0.99  # the log-SNR is infinite at 1 on some processes
        yield config


@pytest.mark.parametrize(
    "config", [*combinations()], ids=lambda c: "-".join((c.process.name, c.row.name, c.times.name))
)
def test_every_name_builds_and_has_a_finite_loss_and_gradient(config, params, monkeypatch):
    monkeypatch.setitem(names.DATA, "digits", lambda: SMALL)
    assert finite(build(config), params)


@pytest.mark.parametrize("name", names.LOSSES)
def test_every_loss_builds_and_has_a_finite_loss_and_gradient(name, params, monkeypatch):
    monkeypatch.setitem(names.DATA, "digits", lambda: SMALL)
    config = tiny.get_config()
    config.process, config.row, config.loss = {"name": "logsnr"}, {"name": "noise"}, {"name": name}
    config.weight, config.times = {"name": "likelihood"}, {"name": "soft_truncated_times", "low": 1e-3}
    assert finite(build(config), params)


@pytest.mark.parametrize("name", names.NETWORKS)
def test_every_network_builds_and_has_a_finite_loss_and_gradient(name, monkeypatch):
    classes = Images("classes", SMALL.pixels, np.arange(40) % 2, 2, levels=5)
    monkeypatch.setitem(names.DATA, "digits", lambda: classes)
    config = tiny.get_config()
    small = {"width": 8, "multipliers": (1,), "blocks": 1}
    own = {"MLP": {"hidden": 8}, "UNet": small, "adm": small | {"width": 64, "attention": ()}}
    own |= {"edm2": small | {"attention": (), "head": 8}}
    options = own.get(name, small | {"attention": ()})
    config.network = {"name": name, "dropout": 0.1, **options}
    experiment = build(config)
    assert finite(experiment, jax.jit(experiment.initial, compiler_options=QUICK)().params)


def finite(experiment, params):
    images, key = experiment.train, jax.random.key(0)
    batch = {"x0": images.to_model()[:16], "index": np.arange(16, dtype=np.uint32)}
    batch |= {} if images.labels is None else {"label": images.labels[:16]}
    mean = jax.value_and_grad(lambda params: experiment.objective(params, key, batch).mean())
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(mean, compiler_options=QUICK)(params)))


@pytest.mark.parametrize("name", names.OPTIMIZERS)
def test_every_optimizer_steps_down(name):
    optimizer = resolve("train.optimizer", names.OPTIMIZERS, {"name": name}, learning_rate=0.1)
    params = {"x": np.ones((2, 2), np.float32)}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert (updates["x"] < 0).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws(name, params, monkeypatch):
    monkeypatch.setitem(names.DATA, "digits", lambda: SMALL)
    plan = image_run(tiny.get_config(), params).model.plan(Request({"name": name, "steps": 3}))
    x, labels = samples(plan, 2, seed=0)
    assert x.shape == (2, 2, 2, 1)
    assert labels is None
