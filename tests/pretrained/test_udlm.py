"""Discrete diffusion checkpoints: the golden logits of the other program, files and prefixes, and every mistake."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff as jd
from jaxdiff import denoisers, processes
from jaxdiff.errors import InputError
from jaxdiff.pretrained import udlm

pytestmark = pytest.mark.claim("the published DiT's logits to 2e-5; parameter counts")


CONFIG = {"vocab": 12, "length": 16, "hidden_size": 64, "n_blocks": 2, "n_heads": 4, "cond_dim": 128, "num_classes": 3}


@functools.cache
def golden():
    """(weights by name, everything else)."""
    with np.load(Path(__file__).parents[1] / "golden" / "discrete_dit.npz") as file:
        arrays = dict(file)
    weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w/")}
    return weights, {name: value for name, value in arrays.items() if not name.startswith("w/")}


@functools.cache
def loaded():
    return jd.pretrained.udlm.from_arrays(CONFIG, golden()[0])


def test_golden_logits():
    _, at = golden()
    got = loaded().logits(at["x"], at["sigma"], at["cond"])
    np.testing.assert_allclose(got, at["logits"], atol=2e-5)
    assert (loaded().vocab, loaded().length, loaded().classes) == (12, 16, 3)


def test_one_sigma_for_all_and_no_class_is_the_null_class():
    _, at = golden()
    net, x = loaded(), at["x"]
    np.testing.assert_array_equal(net.logits(x, 0.5), net.logits(x, np.full(3, 0.5), np.full(3, 3)))
    assert np.abs(net.logits(x, 0.5) - net.logits(x, 0.5, np.zeros(3, int))).max() > 0.01


def test_it_is_a_denoiser_of_uniform_noise():
    net, at = loaded(), golden()[1]
    process = processes.uniform(net.vocab)
    network = denoisers.from_token_network(net.apply, process, level=denoisers.total_noise)
    logits = jax.jit(lambda z, y: network(net.params, y)(z, 0.3).logits)(np.int32(at["x"][0]), np.int32(1))
    sigma = -np.log(process.alpha(jnp.float32(0.3)))
    np.testing.assert_allclose(logits, net.logits(at["x"][:1], sigma, np.array([1]))[0], atol=1e-5)


def write_safetensors(path, arrays):
    header, body = {}, b""
    for name, value in arrays.items():
        raw = value.tobytes()
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_files_with_the_names_of_published_models(tmp_path):
    weights, at = golden()
    published = {f"backbone.{name}": value for name, value in weights.items()}
    write_safetensors(tmp_path / "model.safetensors", published)
    np.savez(tmp_path / "model.npz", **published)
    for name in ("model.safetensors", "model.npz"):
        net = udlm.load(tmp_path / name, CONFIG)
        np.testing.assert_allclose(net.logits(at["x"], at["sigma"], at["cond"]), at["logits"], atol=2e-5)
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"convert it once.*numpy\.savez\('model\.npz'"):
        udlm.load(tmp_path / "model.pt", CONFIG)


def test_a_network_without_classes():
    weights = {name: value for name, value in golden()[0].items() if not name.startswith("cond_map")}
    config = {name: value for name, value in CONFIG.items() if name != "num_classes"}
    net, x = udlm.from_arrays(config, weights), golden()[1]["x"]
    assert net.logits(x, 0.5).shape == (3, 16, 12)
    with pytest.raises(InputError, match="no classes but got cond"):
        net.logits(x, 0.5, np.zeros(3, int))
    with pytest.raises(InputError, match=r"no cond_map\.embedding_table\.weight"):
        udlm.from_arrays(CONFIG, weights)
    udlm.from_arrays(config | {"num_classes": None}, weights)


def test_what_is_wrong_with_arrays_is_named_in_one_sentence():
    weights = dict(golden()[0])
    del weights["blocks.1.attn_qkv.weight"]
    weights["blocks.0.norm1.bias"] = np.zeros(64, np.float32)
    weights["blocks.0.mlp.0.weight"] = weights["blocks.0.mlp.0.weight"].T
    with pytest.raises(InputError) as error:
        udlm.from_arrays(CONFIG, weights, what="model.npz")
    said = str(error.value)
    assert said.startswith("model.npz: no blocks.1.attn_qkv.weight; unknown blocks.0.norm1.bias; misshapen ")
    assert "blocks.0.mlp.0.weight of shape (64, 256) for (256, 64)" in said
    assert "\n" not in said
    with pytest.raises(InputError, match=r"misshapen .*vocab_embed\.embedding of shape \(12, 64\) for \(13, 64\)"):
        udlm.from_arrays(CONFIG | {"vocab": 13}, golden()[0])
    with pytest.raises(InputError, match="rotary frequencies of base 10000 for 4 heads"):
        udlm.from_arrays(CONFIG, golden()[0] | {"rotary_emb.inv_freq": np.ones(8, np.float32)})
    with pytest.raises(InputError, match="rotary frequencies of base 10000 for 8 heads"):
        udlm.from_arrays(CONFIG | {"n_heads": 8}, golden()[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_layers": 2}, "config has n_layers: expected vocab, length"),
        ({"vocab": None}, "vocab=None, expected a whole number of at least 1"),
        ({"length": 16.0}, r"length=16\.0, expected a whole number"),
        ({"n_blocks": 0}, "n_blocks=0"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"n_heads": 5}, "hidden_size=64 and n_heads=5"),
    ],
)
def test_mistakes_in_a_config(change, words):
    with pytest.raises(InputError, match=words):
        udlm.from_arrays(CONFIG | change, golden()[0])


def test_a_config_says_every_size():
    with pytest.raises(InputError, match="config lacks length, n_heads, which have no default"):
        udlm.from_arrays({name: CONFIG[name] for name in CONFIG if name not in ("length", "n_heads")}, golden()[0])


X = np.zeros((2, 16), int)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((X[0], 1.0), r"tokens have shape \(16,\)"),
        ((np.zeros((2, 17), int), 1.0), r"shape \(2, 17\), expected \(batch, length\) of at most 16 tokens"),
        ((X + 12, 1.0), "tokens hold a number outside 0 to 11: there are 12 ids"),
        ((X - 1, 1.0), "tokens hold a number outside 0 to 11"),
        ((X + 0.5, 1.0), "tokens are float.*expected whole numbers from 0 to 11"),
        ((X, np.ones(3)), r"sigma has shape \(3,\) for 2 rows"),
        ((X, 1.0, np.array([0, 4])), "cond hold a number outside 0 to 3"),
        ((X, 1.0, np.array([0])), r"cond has shape \(1,\) for 2 rows"),
    ],
)
def test_mistakes_in_a_call(args, words):
    with pytest.raises(InputError, match=words):
        loaded().logits(*args)
