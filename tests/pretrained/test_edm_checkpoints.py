"""Checkpoints of EDM's four classes: the published program's outputs, converted files and their bits, and what cannot
be loaded, in one sentence each."""

import json
import shutil

import crafting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import OPTIONS, golden

from jaxdiff import cli, data, metrics, processes, samplers
from jaxdiff.errors import InputError
from jaxdiff.pretrained import edm
from jaxdiff.recipes import pretrained
from jaxdiff.runs.denoised import sampler
from jaxdiff.runs.folder import recall, remember

pytestmark = [
    pytest.mark.claim("DDPM++, NCSN++ and ADM equal the published programs: D and six steps of Heun to 5e-5"),
    pytest.mark.claim("a converted checkpoint draws the same bits as the direct path"),
]


def network(name, class_name="EDMPrecond", **more):
    weights, _ = golden(name)
    return edm.from_arrays(class_name, OPTIONS[name] | more, weights)


@pytest.mark.parametrize("name", OPTIONS)
def test_d_is_the_published_programs(name):
    net, (_, g) = network(name), golden(name)
    labels = g["labels"] if net.classes else None
    augment = g["augment_labels"] if net.augment else None
    found = net.denoise_sigma(g["x"], g["sigma"], labels, augment)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, g["y"], rtol=0, atol=5e-5)
    if net.classes:  # the golden rows are one-hot: the same as classes
        classes = g["labels"].argmax(-1)
        np.testing.assert_allclose(net.denoise_sigma(g["x"], g["sigma"], classes, augment), g["y"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_six_steps_of_heun_are_the_published_programs(name, x64):
    net, (_, g) = network(name), golden(name)
    sampler = samplers.edm(processes.edm(), steps=6)
    rows = g["labels"][: len(g["latents"])] if net.classes else None

    def one(latent, row):
        return sampler.run(jax.random.key(0), net.denoiser(row), 80 * latent, jax.random.normal)

    found = jax.jit(jax.vmap(one, (0, None if rows is None else 0)))(g["latents"], rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, g["sample6"], rtol=0, atol=5e-5)


def numpy_preconditioning(class_name, sigma):
    """(c_skip, c_out, c_in, c_noise) of Karras et al. (2022), Table 1, typed from it."""
    if class_name == "VPPrecond":
        time = (np.sqrt(0.1**2 + 2 * 19.9 * np.log(1 + sigma**2)) - 0.1) / 19.9
        return 1, -sigma, 1 / np.sqrt(sigma**2 + 1), 999 * time
    if class_name == "VEPrecond":
        return 1, sigma, 1, np.log(sigma / 2)
    abar = np.sin(0.5 * np.pi * np.arange(1001) / (1000 * 1.008)) ** 2
    u = np.zeros(1001)
    for j in range(1000, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(abar[j - 1] / abar[j], 0.001) - 1)
    return 1, -sigma, 1 / np.sqrt(sigma**2 + 1), 999 - np.argmin(abs(u[:1000] - sigma))


@jax.jit
def forward(apply, params, *arguments):
    return apply(params, *arguments)


def checkpoint(class_name):
    """A network of that class from golden weights: iDDPM's has twice the outputs, and its table of levels."""
    weights, _ = golden("ddpmpp")
    if class_name == "iDDPMPrecond":
        last = "model.dec.16x16_aux_conv"
        weights = dict(weights)
        for part in ("weight", "bias"):
            weights[f"{last}.{part}"] = np.concatenate([weights[f"{last}.{part}"]] * 2)
        abar = np.sin(0.5 * np.pi * np.arange(1001) / (1000 * 1.008)) ** 2
        u = np.zeros(1001, np.float32)
        for j in range(1000, 0, -1):
            u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(abar[j - 1] / abar[j], 0.001) - 1)
        weights["u"] = u
    return class_name, OPTIONS["ddpmpp"], weights


@pytest.mark.parametrize("class_name", ["VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_every_preconditioning_is_its_column_of_table_1(class_name):
    """D by hand from F, which the EDM golden proves: D = c_skip x + c_out F(c_in x; c_noise)."""
    net = edm.from_arrays(*checkpoint(class_name))
    _, g = golden("ddpmpp")
    raw = network("ddpmpp")
    sigma = np.array([0.05, 0.9, 31.0])
    found = net.denoise_sigma(g["x"], sigma, g["labels"])
    for i, level in enumerate(sigma):
        skip, out, c_in, c_noise = numpy_preconditioning(class_name, level)
        cond = {"label": g["labels"][i : i + 1]}
        arguments = (c_in * g["x"][i : i + 1], np.array([c_noise]), cond)
        f = forward(raw.network.apply, raw.params, *jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), arguments))
        expected = skip * g["x"][i] + out * np.asarray(f[0], np.float64)
        # c_noise up to 999 in float32, through sines: 1e-4 of a cycle.
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=2e-4 * max(level, 1), err_msg=str(level))


def test_each_class_has_its_process_and_runs_on_another():
    found = {name: edm.from_arrays(*checkpoint(name)) for name in ("VPPrecond", "VEPrecond", "iDDPMPrecond")}
    for name, process in (
        ("VPPrecond", processes.vp()),
        ("VEPrecond", processes.ve()),
        ("iDDPMPrecond", processes.iddpm()),
    ):
        assert jax.tree.structure(found[name].process) == jax.tree.structure(process)
        np.testing.assert_allclose(found[name].process.scales(0.3), process.scales(0.3), rtol=1e-6)
    net, x = found["VPPrecond"], np.linspace(-1, 1, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)
    sigma = 0.7
    expected = net.denoise_sigma(x, sigma)[0]
    for process in (processes.vp(), processes.edm(), processes.flow(), processes.cosine()):
        moved = net.on(process)
        t = process.time_of(sigma)
        found = moved.denoiser()(process.scales(t)[0] * x[0], t)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


def walk(net, spec):
    """The sampler of a converted network's model."""
    sample = {"sampler": spec, "guidance": 1.0}
    made = pretrained.model(net, {"init_kwargs": {}, "sample": sample}, "net")
    return sampler(spec, made.process, made.lowest)


def test_a_sampler_stays_within_the_levels_of_the_network():
    """VE networks know no noise below .02; where the user names a level, it is the user's."""
    for class_name, lowest in (("VEPrecond", 0.02), ("VPPrecond", 0.002)):
        net = edm.from_arrays(*checkpoint(class_name))
        levels = 80 * np.asarray(walk(net, {"name": "edm", "steps": 6}).ts)
        np.testing.assert_allclose(levels[[0, -2, -1]], (80, lowest, 0), rtol=1e-5)
    own = walk(edm.from_arrays(*checkpoint("VEPrecond")), {"name": "edm", "steps": 6, "sigma_min": 0.5})
    np.testing.assert_allclose(80 * own.ts[-2], 0.5, rtol=1e-5)


# Files and the command line ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    weights, _ = golden("ddpmpp")
    file = folder / "network.pkl"
    file.write_bytes(crafting.snapshot("EDMPrecond", OPTIONS["ddpmpp"], weights))
    assert cli.main(["convert", "edm", str(file), str(folder / "net")]) == 0
    return folder


def test_a_converted_network_draws_the_same_bits_as_the_direct_path(converted, capsys):
    words = [
        "sample",
        f"--workdir={converted / 'net'}",
        "--n=5",
        "--steps=3",
        "--seed=7",
        f"--out={converted / 'x.npz'}",
    ]
    assert cli.main(words) == 0
    with np.load(converted / "x.npz") as file:
        images, labels = file["images"], file["labels"]
    net, process = network("ddpmpp"), processes.edm()
    sampler = samplers.edm(process, steps=3)
    direct = samplers.draw(
        jax.random.key(7), 5, net.on(process).make_denoise(), sampler, net.shape, cond=np.arange(5, dtype=np.int32) % 4
    )
    np.testing.assert_array_equal(images, data.to_pixels(direct, 256))
    np.testing.assert_array_equal(labels, [0, 1, 2, 3, 0])
    assert images.std() > 10  # and they are pictures of something

    loaded = edm.load(converted / "network.pkl")
    again = samplers.draw(
        jax.random.key(7),
        5,
        loaded.on(process).make_denoise(),
        sampler,
        net.shape,
        cond=np.arange(5, dtype=np.int32) % 4,
    )
    np.testing.assert_array_equal(direct, again)


def test_every_sampler_of_the_command_line_draws_from_it(converted):
    out = converted / "other.png"
    words = ["sample", f"--workdir={converted / 'net'}", "--n=2", "--steps=2", "--sampler=dpmpp_2m", f"--out={out}"]
    assert cli.main(words) == 0
    assert out.stat().st_size > 100


def test_a_network_guided_away_from_itself_is_what_it_was(converted):
    words = ["sample", f"--workdir={converted / 'net'}", "--n=2", "--steps=2", "--seed=3"]
    assert cli.main([*words, f"--out={converted / 'plain.npz'}"]) == 0
    guided = [f"--guide={converted / 'net'}", "--guidance=2", f"--out={converted / 'guided.npz'}"]
    assert cli.main([*words, *guided]) == 0
    plain, away = (np.load(converted / f"{name}.npz")["images"].astype(int) for name in ("plain", "guided"))
    assert abs(plain - away).max() <= 1


def test_statistics_of_a_set_judge_its_samples(converted, tmp_path, capsys):
    """Frechet to the statistics of pixels; those of another number of features are refused before anything is drawn."""
    rng = np.random.default_rng(0)
    for name, size in (("same", 16 * 16 * 3), ("other", 5)):
        rows = rng.normal(size=(2 * size, size))
        metrics.save_moments(converted / f"{name}.npz", metrics.moments(rows))
    net = shutil.copytree(converted / "net", tmp_path / "net")
    config = recall(net)
    config["sample"]["sampler"]["steps"] = 2  # any samples will do
    remember(net, config)
    words = ["evaluate", f"--workdir={net}", "--n=8", "--seeds=2"]
    assert cli.main([*words, f"--reference={converted / 'same.npz'}"]) == 0
    found = json.loads((net / "frechet.json").read_text())
    assert found["samples"] == 8
    assert len(found["frechet"]["each"]) == 2
    assert any("fewer" in caveat or "rank" in caveat or "768" in caveat for caveat in found["caveats"])
    capsys.readouterr()
    assert "5" in refused(capsys, *words, f"--reference={converted / 'other.npz'}")


def refused(capsys, *words):
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxdiff: ")
    assert said.count("\n") == 1
    return said


def test_what_cannot_be_converted_or_drawn_is_one_sentence(converted, tmp_path, capsys):
    net, file = converted / "net", converted / "network.pkl"
    assert "there is no kind 'stable'" in refused(capsys, "convert", "stable", file, tmp_path / "a")
    assert "there is no file" in refused(capsys, "convert", "edm", tmp_path / "none.pkl", tmp_path / "a")
    assert "is there already and not empty" in refused(capsys, "convert", "edm", file, net)
    assert "the following arguments are required" in refused(capsys, "convert", "edm", file)
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(file.read_bytes()[:100_000])
    assert "cut short" in refused(capsys, "convert", "edm", cut, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    sample = ("sample", f"--workdir={net}", "--n=2")
    assert "label 7 is not a class" in refused(capsys, *sample, "--labels=7")
    assert "not trained without classes" in refused(capsys, *sample, "--guidance=2")
    assert "has not been evaluated" in refused(capsys, "report", f"--workdir={net}")
    assert "one average alone" in refused(capsys, *sample, "--ema_width=0.1")
    assert "holds no run" in refused(capsys, *sample, f"--guide={tmp_path}", "--guidance=2")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text((net / "config.json").read_text())
    (tmp_path / "broken" / "weights.npz").write_bytes(b"PK")
    assert "holds no whole network" in refused(capsys, "sample", f"--workdir={tmp_path / 'broken'}")


def test_what_a_checkpoint_lacks_is_named():
    weights, _ = golden("ddpmpp")
    lost = "model.enc.16x16_block0.conv0.weight"
    options = OPTIONS["ddpmpp"]
    with pytest.raises(InputError, match=r"lacks model\.enc\.16x16_block0\.conv0\.weight"):
        edm.from_arrays("EDMPrecond", options, {k: v for k, v in weights.items() if k != lost})
    with pytest.raises(InputError, match=r"has model\.extra, which this network does not"):
        edm.from_arrays("EDMPrecond", options, weights | {"model.extra": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match=r"conv0\.weight \(1, 1, 3, 3\) for \(16, 16, 3, 3\)"):
        edm.from_arrays("EDMPrecond", options, weights | {lost: np.zeros((1, 1, 3, 3), np.float32)})
    with pytest.raises(InputError, match="class is 'Precond', expected one of EDMPrecond, VPPrecond"):
        edm.from_arrays("Precond", options, weights)
    with pytest.raises(InputError, match=r"'model_type'.* is 'ViT', expected one of SongUNet, DhariwalUNet"):
        edm.from_arrays("EDMPrecond", options | {"model_type": "ViT"}, weights)
    with pytest.raises(InputError, match="noise levels u are not those"):
        edm.from_arrays("iDDPMPrecond", options, weights | {"u": np.ones(1001, np.float32)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": np.zeros((2, 16, 16, 1))}, r"x has shape \(2, 16, 16, 1\), expected \(batch, height, width, 3\)"),
        ({"x": np.zeros((16, 16, 3))}, r"x has shape \(16, 16, 3\)"),
        ({"x": np.zeros((2, 15, 16, 3))}, "15"),
        ({"sigma": np.ones(3)}, r"sigma has shape \(3,\) for 2 images"),
        ({"labels": np.ones((2, 5))}, r"labels have shape \(2, 5\), expected \(2, 4\)"),
        ({"labels": np.ones(3, int)}, r"labels have shape \(3,\), expected \(2,\)"),
        ({"augment_labels": np.ones((2, 5))}, r"augment_labels have shape \(2, 5\), expected \(2, 9\)"),
    ],
)
def test_a_wrong_shape_is_one_sentence(change, sentence):
    arguments = {"x": np.zeros((2, 16, 16, 3)), "sigma": 1.0} | change
    with pytest.raises(InputError, match=sentence):
        network("ddpmpp").denoise_sigma(**arguments)


def test_labels_for_a_network_without_them_are_refused():
    net = network("ncsnpp")
    with pytest.raises(InputError, match="this network has no classes"):
        net.denoise_sigma(np.zeros((1, 16, 16, 3)), 1.0, np.zeros(1, int))
    with pytest.raises(InputError, match="this network takes none"):
        net.denoise_sigma(np.zeros((1, 16, 16, 3)), 1.0, None, np.zeros((1, 9)))


def test_convert_keeps_nothing_of_a_file_that_it_refuses(tmp_path):
    weights, _ = golden("ddpmpp")
    file = tmp_path / "network.pkl"
    file.write_bytes(crafting.snapshot("EDMPrecond", OPTIONS["ddpmpp"] | {"img_channels": 1}, weights))
    with pytest.raises(InputError, match="shapes other than this network's"):
        pretrained.convert("edm", file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
