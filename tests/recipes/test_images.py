"""What a trained run gives: images that hang on their seed, label and place alone, figures beside honest floors, and
one page that needs nothing else."""

import base64
import io
import json
import re

import numpy as np
import pytest
import tiny
from models import image_run
from PIL import Image

from jaxdiff import cli, metrics
from jaxdiff.domains import Pixels
from jaxdiff.domains.pictures import grid, png, unit
from jaxdiff.errors import InputError
from jaxdiff.numerics.files import plain
from jaxdiff.recipes.images import load
from jaxdiff.runs.drawing import samples
from jaxdiff.runs.model import Request
from jaxdiff.runs.progress import counter

# Sample -----------------------------------------------------------------------------------------------------------


def drawn(trained, folder, *words):
    out = folder / "out.npz"
    assert cli.main(["sample", f"--workdir={trained}", f"--out={out}", *words]) == 0
    with np.load(out) as arrays:
        return dict(arrays)


def test_an_image_hangs_on_its_seed_label_and_place_alone(trained, tmp_path, capsys):
    many = drawn(trained, tmp_path, "--n=13")
    assert capsys.readouterr().out == f"wrote {tmp_path / 'out.npz'}\n"
    assert many["images"].shape == (13, 8, 8, 1)
    assert many["images"].dtype == np.uint8
    assert many["levels"] == 17
    assert many["images"].max() <= 16
    np.testing.assert_array_equal(many["labels"], np.arange(13) % 10)
    few = drawn(trained, tmp_path, "--n=3")
    np.testing.assert_array_equal(few["images"], many["images"][:3])
    named = drawn(trained, tmp_path, "--n=3", "--labels=0,1,2")
    np.testing.assert_array_equal(named["images"], few["images"])
    other = drawn(trained, tmp_path, "--n=3", "--seed=1")
    assert (other["images"] != few["images"]).any()


def test_sampler_and_guidance_stand_in_for_the_configs(trained, tmp_path):
    plain = drawn(trained, tmp_path, "--n=3", "--labels=4,7")
    np.testing.assert_array_equal(plain["labels"], [4, 7, 4])
    same = drawn(trained, tmp_path, "--n=3", "--labels=4,7", "--sampler=edm", "--steps=3", "--guidance=1")
    np.testing.assert_array_equal(plain["images"], same["images"])
    for change in ("--sampler=ddim", "--guidance=1e6"):
        other = drawn(trained, tmp_path, "--n=3", "--labels=4,7", change)
        assert (other["images"] != plain["images"]).any(), change


def test_a_picture_by_default(trained, capsys):
    assert cli.main(["sample", f"--workdir={trained}", "--n=20"]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {trained / 'samples.png'}\n"
    assert said.err == "edm from step 20: 0/20\nedm from step 20: 20/20\n"
    with Image.open(trained / "samples.png") as picture:
        assert picture.size == (18 * 10, 90 * 10)  # 2 columns and 10 rows of 8 pixels and a gap, ten times as large


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--n=0", "n is 0, expected at least 1 image"),
        ("--n=-3", "n is -3, expected at least 1 image"),
        ("--steps=0", "a sampling grid got n=0 steps, expected a whole number of at least 1"),
        ("--labels=3,10", "label 10 is not a class of digits/train; expected numbers from 0 to 9"),
        ("--labels=-1", "label -1 is not a class of digits/train"),
        ("--sampler=eular", "config.sample.sampler.name is 'eular', expected one of ancestral, ancestral_2s, ddim"),
        ("--guidance=nan", "the guidance weight is nan, expected a finite number; 1 is no guidance"),
        ("--out=picture.gif", "the output is picture.gif, expected a file that ends in .png or .npz"),
    ],
)
def test_what_cannot_be_drawn(flag, sentence, trained, capsys):
    assert cli.main(["sample", f"--workdir={trained}", flag]) == 2
    assert capsys.readouterr().err.startswith(f"jaxdiff: {sentence}")


def test_a_run_without_a_checkpoint(spoiled, capsys):
    for step in (10, 20):
        (spoiled / "checkpoints" / str(step)).rename(spoiled / f"{step}.lost")
    assert cli.main(["sample", f"--workdir={spoiled}"]) == 2
    assert f"{spoiled} holds no checkpoint yet; let `jaxdiff train` save one there first" in capsys.readouterr().err


def test_grid():
    images = np.arange(1, 8, dtype=np.float32).reshape(7, 1, 1, 1) / 10
    cycled = grid(images, 3, rows=2)[:: 2 * 150, :: 2 * 150]  # 2 x 3 cells of one pixel and a gap, 150 times as large
    np.testing.assert_allclose(cycled[..., 0], [[0.1, 0.4, 0.7], [0.2, 0.5, 1.0]])
    square = grid(images, 5)  # the classes are not gone round twice
    np.testing.assert_allclose(
        square[:: 2 * 150, :: 2 * 150, 0], [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 1.0, 1.0]], rtol=1e-6
    )
    with Image.open(io.BytesIO(png(unit(np.array([[[0, 8, 16]]], np.uint8), 17)))) as picture:
        assert picture.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(("classes", "shape"), [(0, (12, 12)), (3, (3, 16)), (30, (20, 7)), (150, (12, 12))])
def test_the_pages_samples_for_any_number_of_classes(classes, shape):
    domain = Pixels("dots", (1, 1, 1), 2, tuple(map(str, range(classes))))
    (part,) = domain.show(np.zeros((200, 1, 1, 1), np.uint8), None)
    content, caption = re.search("base64,(.*)' alt='(.*)'", part).groups()
    zoom = max(1, 900 // (2 * max(shape)))
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (2 * shape[1] * zoom, 2 * shape[0] * zoom)
    words = {0: "drawn.", 3: "a row for each class.", 30: "a row for each of the first 20 of 30 classes."}
    assert caption.endswith(words.get(classes, "drawn."))


def test_progress_is_plain_lines_or_one_that_is_rewritten():
    class Stream:
        def __init__(self, terminal):
            self.said, self.isatty = "", lambda: terminal

        def write(self, text):
            self.said += text

        def flush(self):
            pass

    plain, live = Stream(False), Stream(True)
    for stream in (plain, live):
        progress = counter("drawing", stream)
        for done in range(0, 101, 10):
            progress(done, 100)
    assert plain.said.splitlines() == [f"drawing {done}/100" for done in (0, 30, 50, 80, 100)]
    assert live.said == "".join(f"\rdrawing {done}/100" for done in range(0, 101, 10)) + "\n"


# Evaluate and report ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """60 coloured pictures of 256 levels: in two folders they are two classes, without them they have none."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for i in range(60):
        content = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        for place in (folder / "two" / "ab"[i % 2], folder / "none"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(place / f"{i:02}.png")
    return folder


@pytest.mark.parametrize(("kind", "curve"), [("none", "(3,)"), ("two", "()")])
def test_evaluate_and_report(kind, curve, words, pictures, tmp_path, capsys):
    run, data = tmp_path / "run", f"data={{'name':'images','path':'{pictures / kind}'}}"
    changes = ("held_out=20", "train.steps=2", "theory.levels=3", "theory.draws=4", f"evaluate.curve={curve}", data)
    assert cli.main(words(run, *changes)) == 0
    assert cli.main(["report", f"--workdir={run}"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"jaxdiff: {run} has not been evaluated; run: jaxdiff evaluate --workdir={run}"

    assert cli.main(["evaluate", f"--workdir={run}"]) == 0
    said = capsys.readouterr()
    assert "measuring 16 samples beside 40 training and 20 held-out images" in said.out
    assert said.out.endswith(f"wrote {run / 'metrics.json'}; now: jaxdiff report --workdir={run}\n")
    assert said.err.splitlines()[:2] == ["drawing from step 2: 0/16", "drawing from step 2: 16/16"]

    def no_constant(name):
        raise AssertionError(f"{name} is no JSON")

    result = json.loads((run / "metrics.json").read_text(), parse_constant=no_constant)
    assert ("class_agreement" in result["metrics"]) == (kind == "two")
    assert result["features"] == "6 principal components"
    assert {*result["curve"]} == ({"euler", "edm", "ddim", "dpmpp_2m"} if kind == "none" else set())
    if kind == "none":
        assert said.err.splitlines()[-1] == "samplers and calls: 4/4"
        assert [calls for calls, _ in result["curve"]["edm"]] == [3]
        the_floor_is_honest(run, result)
        assert cli.main(["evaluate", f"--workdir={run}", "--theory", "--n=8"]) == 0
        assert json.loads((run / "theory.json").read_text(), parse_constant=no_constant)["images"] == 8

    assert cli.main(["report", f"--workdir={run}"]) == 0
    page = (run / "report.html").read_text()
    assert not re.search(r"(src|href)=.(?!data:)|url\(|@import|https?://", page)
    assert page.count("data:image/png;base64,") == (5 if kind == "none" else 3)
    assert ("beside the optimum of its training set" in page) == (kind == "none")
    assert ("a row for each class" in page) == (kind == "two")
    assert not [*run.glob("*.tmp")]


def the_floor_is_honest(run, result):
    """The curve's figures and the floor are at the same counts: as many samples, against as many training images."""
    counts = result["metrics"]["counts"]
    assert (counts["compared"], counts["reference"]) == (16, 40)
    trained = load(run)
    train, _ = trained.data()
    features = metrics.pca(train.to_model(), 6)
    pixels, _ = samples(trained.model.plan(Request({"name": "euler", "steps": 3})), 16, seed=2)
    x = 2 * unit(pixels, 256) - 1
    expected = metrics.frechet_distance(*(metrics.moments(features(y)) for y in (x, train.to_model())))
    np.testing.assert_allclose(result["curve"]["euler"], [[3, expected]], rtol=1e-4)


def test_guidance_needs_a_model_that_knows_no_class(pictures):
    config = tiny.get_config()
    config.data = {"name": "images", "path": str(pictures / "none")}
    unlabelled = image_run(config).model
    with pytest.raises(InputError, match="none/train has no classes"):
        unlabelled.plan(Request(guidance=2.0))
    with pytest.raises(InputError, match="none/train has no classes; leave the labels out"):
        samples(unlabelled.plan(), 2, seed=0, labels=[1, 1])
    config.data.path, config.label_dropout = str(pictures / "two"), 0.0
    with pytest.raises(InputError, match="trained with label_dropout=0"):
        image_run(config).model.plan(Request(guidance=2.0))


def test_a_figure_that_is_not_finite_is_null():
    tree = plain({"z": float("inf"), "rows": ([1, float("nan")],), "n": 3, "word": "x"})
    assert tree == {"z": None, "rows": [[1, None]], "n": 3, "word": "x"}
