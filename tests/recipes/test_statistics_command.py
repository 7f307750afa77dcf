"""Statistics of a data set as a file, and a trained model beside them, from the command line."""

import json
import shutil

import numpy as np
import pytest
from named_weights import alexnet_arrays

from jaxdiff import cli, data, metrics
from jaxdiff.errors import InputError
from jaxdiff.recipes import images
from jaxdiff.runs.drawing import samples


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    path = tmp_path_factory.mktemp("statistics") / "new" / "digits.npz"
    assert cli.main(["statistics", "--data=digits", f"--out={path}"]) == 0
    return path


def refused(capsys, *words):
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("jaxdiff: ")
    return said.removeprefix("jaxdiff: ").strip()


def test_a_data_set_to_statistics(digits, tmp_path, capsys):
    rows = data.digits().to_model().reshape(1797, -1).astype(np.float64)
    with np.load(digits) as file:
        np.testing.assert_allclose(file["mu"], rows.mean(0), atol=1e-13)
        np.testing.assert_allclose(file["sigma"], np.cov(rows.T), atol=1e-13)
        assert (file["n"], file["features"]) == (1797, "pixels")
    out = tmp_path / "test.npz"
    assert cli.main(["statistics", '--data={"name": "digits", "split": "test"}', f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"wrote {out}: 297 images, 64 features of pixels\n"
    assert [p.name for p in tmp_path.iterdir()] == ["test.npz"]


def test_a_model_beside_statistics_over_seeds(trained, digits, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    words = ["evaluate", f"--workdir={run}", f"--reference={digits}", "--n=20", "--seeds=3", "--seed=4"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    result = json.loads((run / "frechet.json").read_text())
    plan = images.load(run).model.plan()
    stored = metrics.load_moments(digits)
    for s, found in zip((4, 5, 6), result["frechet"]["each"], strict=True):
        pixels, _ = samples(plan, 20, seed=s)
        rows = data.to_model(pixels, 17).reshape(20, -1)
        np.testing.assert_allclose(found, metrics.frechet_distance(metrics.moments(rows), stored), rtol=1e-9)
    each = result["frechet"]["each"]
    assert result["frechet"]["min"] == min(each)
    np.testing.assert_allclose(
        [result["frechet"]["mean"], result["frechet"]["std"]], [np.mean(each), np.std(each, ddof=1)]
    )
    assert (result["samples"], result["features"], result["reference_images"]) == (20, "pixels", 1797)
    assert 0 < result["gaussian_floor"] < result["frechet"]["min"]  # an untrained network
    assert 0 < result["heldout"]["frechet"] < result["frechet"]["min"]
    assert "20 samples of 64 features give a covariance of rank 19" in result["caveats"][0]
    assert result["caveats"][0] in said
    assert "FID" not in said
    assert not (run / "metrics.json").exists()


def test_a_foreign_file_of_the_right_size(spoiled, tmp_path, capsys):
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(64), sigma=np.eye(64))
    words = ["evaluate", f"--workdir={spoiled}", f"--reference={tmp_path / 'foreign.npz'}", "--n=70"]
    assert cli.main(words) == 0
    result = json.loads((spoiled / "frechet.json").read_text())
    assert (result["reference_images"], result["frechet"]["std"]) == (None, None)
    assert len(result["caveats"]) == 1
    assert "does not say of which features it is" in result["caveats"][0]


def test_mistakes(trained, digits, tmp_path, capsys):
    evaluate, out = ["evaluate", f"--workdir={trained}"], f"--out={tmp_path / 'out.npz'}"
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    assert "moments must be of the same features, got 64 of 'pixels' and 2048" in refused(
        capsys, *evaluate, f"--reference={wrong}"
    )
    wrong.write_bytes(digits.read_bytes()[:300])
    assert "wrong.npz cannot be read" in refused(capsys, *evaluate, f"--reference={wrong}")
    assert "there is no file no.npz" in refused(capsys, *evaluate, "--reference=no.npz")
    metrics.save_moments(wrong, metrics.Moments(np.zeros(64), np.eye(64), 99, "edges"))
    assert "got those of 'pixels' and 'edges'" in refused(capsys, *evaluate, f"--reference={wrong}")
    reference = f"--reference={digits}"
    assert "seeds is 0, expected at least 1" in refused(capsys, *evaluate, reference, "--seeds=0")
    assert "n is 1, expected at least 2 samples" in refused(capsys, *evaluate, reference, "--n=1")
    assert "--seeds goes with --measure=reference, not with --measure=samples" in refused(
        capsys, *evaluate, "--seeds=3"
    )
    for features in ("inception", "fid", "pixels=x", "alexnet="):
        sentence = refused(capsys, "statistics", "--data=digits", out, f"--features={features}")
        assert sentence == (f"the features are {features!r}, expected pixels, alexnet, alexnet=FILE or inception=FILE")
    assert "there is no file w.npz" in refused(capsys, "statistics", "--data=digits", out, "--features=inception=w.npz")
    assert "expected a file that ends in .npz" in refused(capsys, "statistics", "--data=digits", "--out=stats.txt")
    assert "--data is missing; give one such as --data=digits" in refused(capsys, "statistics", out)
    assert "'digitz', expected one of digits, mnist_5k" in refused(capsys, "statistics", "--data=digitz", out)
    assert "expected a name such as digits" in refused(capsys, "statistics", "--data={'a': 1}", out)
    assert not (tmp_path / "out.npz").exists()
    assert not (trained / "frechet.json").exists()


def test_features_of_a_network_are_recorded_by_their_weights(tmp_path, capsys):
    """So that a file says which weights it was made with, and others are refused."""
    arrays, stored = alexnet_arrays(), {}
    for name, scale in {"one": 1, "two": 2}.items():
        np.savez(tmp_path / f"{name}.npz", **{key: scale * value for key, value in arrays.items()})
        words = ["statistics", "--data={'name': 'digits', 'split': 'test'}", f"--out={tmp_path / 'out.npz'}"]
        assert cli.main([*words, f"--features=alexnet={tmp_path / name}.npz"]) == 0
        assert "297 images, 256 features of alexnet 256 at 64 x 64 (" in capsys.readouterr().out
        stored[name] = metrics.load_moments(tmp_path / "out.npz")
    assert stored["one"].features != stored["two"].features
    with pytest.raises(InputError, match="same features"):
        metrics.frechet_distance(stored["one"], stored["two"])
