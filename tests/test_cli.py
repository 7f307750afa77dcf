"""What a user can get wrong on the command line is one sentence on stderr and exit code 2, and help teaches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdiff import cli

CONFIG = str(Path(__file__).parent / "recipes" / "tiny.py")


def refused(capsys, *words):
    """The one sentence that a command says when it refuses."""
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("jaxdiff: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("jaxdiff: ").strip()


def test_help_teaches(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        assert "jaxdiff train    --config=configs/digits.py --workdir=runs/digits" in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command(command, capsys):
    assert cli.main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"jaxdiff {command} {dict(convert='edm').get(command, '--')}" in said
    assert ("--workdir FOLDER" in said) == (command not in ("statistics", "convert"))
    assert "example" in said
    assert not {"flagfile", "undefok", "absl"} & {*said.replace(":", " ").split()}


def test_the_module_is_a_program_and_help_loads_no_framework():
    program = (
        "import sys; from jaxdiff import cli; assert cli.main(['train', '--help']) == 0; cli.main(['trian']);"
        "sys.exit(bool({'jax', 'flax', 'absl', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "jaxdiff: there is no command 'trian'; it is one of "
        "train, sample, evaluate, report, statistics, convert (see jaxdiff --help)\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "trian",
            "there is no command 'trian'; it is one of train, sample, evaluate, report, statistics, convert "
            "(see jaxdiff --help)",
        ),
        ("train", "--config is missing; give one such as --config=configs/digits.py; see jaxdiff train --help"),
        (
            "train --config=x.py",
            "--workdir is missing; give one such as --workdir=runs/digits; see jaxdiff train --help",
        ),
        ("sample", "--workdir is missing; give one such as --workdir=runs/digits; see jaxdiff sample --help"),
        ("report --workdir", "argument --workdir: expected one argument; see jaxdiff report --help"),
        ("report runs/digits", "'runs/digits' is not a flag of jaxdiff report; it has --help, --workdir; see"),
        (
            "train --confg=x.py",
            "'--confg=x.py' is not a flag of jaxdiff train; it has --help, --config, --config.FIELD",
        ),
        ("sample --config.seed=1", "'--config.seed=1' is not a flag of jaxdiff sample; it has"),
        ("sample --n=many", "argument --n: invalid int value: 'many'; see jaxdiff sample --help"),
        ("sample --guidance=strong", "argument --guidance: invalid float value: 'strong'; see"),
        ("sample --labels=cat", "argument --labels: expected class numbers such as 3 or 0,1,2, got 'cat'; see"),
        ("train --config=no.py --workdir=w", "there is no config file no.py; give a Python file with get_config()"),
    ],
)
def test_mistakes_in_words(words, sentence, capsys):
    assert refused(capsys, *words.split()).startswith(sentence)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("x = 1", "has no get_config(), expected a function"),
        ("def get_config():\n    return 1 / 0", "failed at line 2: ZeroDivisionError: division by zero"),
        ("def get_config(: pass", "failed: SyntaxError: invalid syntax (config.py, line 1)"),
        ("import nothing_of_that_name", "failed at line 1: ModuleNotFoundError"),
        ("get_config = lambda: 3", "returned 3, expected a ConfigDict"),
        ("get_config = lambda: {'a': 1}", "config.recipe is None, expected one of images"),
    ],
)
def test_mistakes_in_a_config_file(code, sentence, tmp_path, capsys):
    path = tmp_path / "config.py"
    path.write_text(code)
    assert sentence in refused(capsys, "train", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.stepz=3", "config.train.stepz is unknown; config.train has accumulate, batch_size"),
        ("trian.steps=3", "--config.trian.steps=3: config has no 'trian'; it has augment, c_in"),
        ("seed.x=3", "--config.seed.x=3: config.seed is 0, a value without fields of its own"),
        ("=3", "--config.=3 names no field; write it as --config.train.steps=500"),
        ("train.steps", "--config.train.steps does not fit config.train.steps, expected a value such as 20"),
        ("train.steps=abc", "--config.train.steps=abc does not fit config.train.steps, expected a value such as 20"),
        ("train.steps=0", "config.train.steps is 0, expected at least 1"),
        ("train.learning_rate=-1", "config.train.learning_rate is -1.0, expected a number above 0"),
        ("train.learning_rate=nan", "config.train.learning_rate is nan, expected a number above 0"),
        ("label_dropout=2", "config.label_dropout is 2.0, expected a probability in [0, 1)"),
        ("evaluate.curve=(0,)", "config.evaluate.curve is (0,), expected numbers of denoiser calls, each at least 1"),
        ("evaluate.curve=('a',)", "config.evaluate.curve is ('a',), expected a value such as (5, 9, 17, 35, 79)"),
        ("data=digits", "--config.data=digits does not fit config.data, expected a value such as {'name': 'digits'}"),
        ("recipe=poems", "config.recipe is 'poems', expected one of images"),
        ("process.name=foo", "config.process.name is 'foo', expected one of vp, subvp, ve, edm, brownian"),
        ("network.name=foo", "config.network.name is 'foo', expected one of UNet, MLP"),
        ("network.hiden=3", "config.network: MLP has no option 'hiden'; it has hidden, depth, features, dropout"),
        ("process.sigma_max=high", "config.process.sigma_max is 'high', expected float, as edm takes it"),
        ("sample.sampler.name=foo", "config.sample.sampler.name is 'foo', expected one of ancestral, ancestral_2s"),
        ("sample.sampler.steps=0", "a sampling grid got n=0 steps, expected a whole number of at least 1"),
        ("process={'name':'ve','sigma_min':5.0,'sigma_max':1.0}", "sigma_min=5.0 is not below sigma_max=1.0; swap"),
        ("network={'name':'UNet','width':8}", "x has spatial sizes (6, 6): a U-Net of 3 levels expects multiples of 4"),
        (
            "train.batch_size=500",
            "pictures/train: the batch size is 500 and the set has 32 examples; expected a batch no",
        ),
        ("train.accumulate=3", "a batch of 16 examples (on one device) does not split into accumulate=3 equal parts"),
        ("data={'name':'images'}", "config.data: images needs 'path', which has no default; give it beside the name"),
        ("sample.sampler={'name':'edm','sigma_min':9.0,'sigma_max':5.0}", "sigma_min=9.0 is not below sigma_max=5.0"),
    ],
)
def test_mistakes_in_a_config_are_found_before_the_folder_is_taken(change, sentence, pictures, tmp_path, capsys):
    run = tmp_path / "run"
    words = [
        "train",
        f"--config={CONFIG}",
        f"--workdir={run}",
        f"--config.data={{'name':'images','path':'{pictures}'}}",
    ]
    if change.startswith("data="):
        words = words[:3]
    assert refused(capsys, *words, f"--config.{change}").startswith(sentence)
    assert not run.exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 random pictures of 6 x 6 pixels."""
    folder, rng = tmp_path_factory.mktemp("own") / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return folder


def test_mistakes_in_the_data(tmp_path, capsys):
    folder = tmp_path / "own"
    words = ["train", f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}"]
    words.append(f"--config.data={{'name':'images','path':'{folder}'}}")
    assert refused(capsys, *words).startswith(f"{folder} does not exist; expected a folder or a zip of pictures")
    folder.mkdir()
    assert refused(capsys, *words).startswith(f"{folder} holds no pictures; expected files ending in .png")
    Image.new("RGB", (6, 6)).save(folder / "0.png")
    Image.new("RGB", (7, 6)).save(folder / "1.png")
    assert "0.png is 6 x 6 pixels and 1.png is 6 x 7; expected one size; give size=6" in refused(capsys, *words)
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes()[:40])
    assert "1.png is damaged" in refused(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_mistakes_in_the_folder(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for workdir in (file, file / "below"):
        sentence = refused(capsys, "train", f"--config={CONFIG}", f"--workdir={workdir}")
        assert sentence == f"{file} is a file, expected a folder for the run; give another --workdir"
    assert file.read_text() == "mine"
    for command in ("sample", "evaluate", "report"):
        for workdir in (file, tmp_path / "nowhere", tmp_path):
            sentence = refused(capsys, command, f"--workdir={workdir}")
            assert sentence.startswith(f"{workdir} holds no run (no config.json in it); give the --workdir of a")
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(capsys, "sample", f"--workdir={tmp_path}")
    (tmp_path / "config.json").write_text("[]")
    assert "config.json holds no config" in refused(capsys, "sample", f"--workdir={tmp_path}")


def test_a_missing_package_and_an_interrupt_are_said(monkeypatch, capsys):
    def missing(options):
        raise ModuleNotFoundError("No module named 'flax'", name="flax")

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "report", cli.COMMANDS["report"]._replace(run=missing))
    assert refused(capsys, "report", "--workdir=w") == (
        "the package flax is not installed; run: pip install 'jaxdiff[all]'"
    )
    monkeypatch.setitem(cli.COMMANDS, "report", cli.COMMANDS["report"]._replace(run=interrupted))
    assert cli.main(["report", "--workdir=w"]) == 130
    assert capsys.readouterr().err == "jaxdiff: interrupted\n"
