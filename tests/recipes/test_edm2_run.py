"""EDM2 as a config: projected training with learned uncertainty and two averages, samples from each, from one that is
made afterwards, and guided away from a weaker model."""

import jax
import numpy as np
import pytest

from jaxdiff import cli, training
from jaxdiff.recipes.images import build, complete, load
from jaxdiff.runs.config_file import read

SMALL = {
    "data": '{"name": "digits"}',
    "network": '{"name": "edm2", "width": 8, "multipliers": (1,), "blocks": 1, "attention": (), "head": 8}',
    "train.steps": 12,
    "train.batch_size": 16,
    "train.snapshot_every": 64,
    "train.warmup": 32,
    "train.log_every": 4,
    "train.save_every": 6,
}
CONFIG = "configs/mnist_edm2.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("edm2")
    path = request.config.rootpath / CONFIG
    words = [f"--config.{key}={value}" for key, value in SMALL.items()]
    for name, steps in (("good", 12), ("weak", 4)):
        more = [f"--config.train.steps={steps}", f"--workdir={folder / name}"]
        assert cli.main(["train", f"--config={path}", *words, *more]) == 0
    return folder


def images(run, *words):
    out = run / "x.npz"
    assert cli.main(["sample", f"--workdir={run / 'good'}", "--n=10", "--steps=3", f"--out={out}", *words]) == 0
    with np.load(out) as file:
        return file["images"]


def test_the_config_is_whole(request):
    config = complete(read(request.config.rootpath / CONFIG))
    assert config["uncertainty"]
    assert config["train"]["ema_widths"] == (0.05, 0.1)


def test_weights_stay_at_unit_size(run):
    trained = load(run / "good")
    assert trained.step == 12
    with training.Checkpoints(run / "good") as checkpoints:
        saved = checkpoints.restore(jax.eval_shape(build(trained.config).initial))
    assert set(saved.params) == {"net", "u"}
    assert set(saved.ema) == {"0.05", "0.1"}
    sizes = [
        float(np.sqrt(np.mean(np.asarray(leaf) ** 2)))
        for leaf in jax.tree.leaves(saved.params["net"])
        if np.ndim(leaf) >= 2
    ]
    np.testing.assert_allclose(sizes, 1, atol=0.1)


def test_every_average_draws(run):
    """The first by default; one from snapshots is near those that were tracked, and is neither."""
    first, second, between = (load(run / "good", width).model.params for width in (0.05, 0.1, 0.07))
    distance = lambda a, b: max(  # noqa: E731
        float(np.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    assert distance(load(run / "good").model.params, first) == 0
    assert 0 < distance(between, first) < distance(second, first)
    assert images(run).shape == (10, 8, 8, 1)
    assert (images(run, "--ema_width=0.07") != images(run, "--ema_width=0.1")).any()


def test_autoguidance(run):
    weak = f"--guide={run / 'weak'}"
    np.testing.assert_array_equal(images(run, weak, "--guidance=1"), images(run))
    assert (images(run, weak, "--guidance=2") != images(run)).any()
    # Guided away from itself, a model is what it was.
    same = images(run, f"--guide={run / 'good'}", "--guidance=2")
    assert np.abs(same.astype(int) - images(run)).max() <= 1


def test_mistakes_are_one_sentence(run, trained, tmp_path, capsys, request):
    def refused(*words):
        assert cli.main([str(word) for word in words]) == 2
        return capsys.readouterr().err

    sample = ("sample", f"--workdir={run / 'good'}", "--n=2")
    assert "holds no run" in refused(*sample, f"--guide={tmp_path}", "--guidance=2")
    train = ("train", f"--config={request.config.rootpath / CONFIG}", f"--workdir={tmp_path / 'x'}")
    assert "different relative widths" in refused(*train, "--config.train.ema_widths=(0.05,0.05)")
    assert "give their widths" in refused(*train, "--config.train.ema_widths=()")
    assert "keeps one average by half-life" in refused("sample", f"--workdir={trained}", "--ema_width=0.1")
