"""Pictures hold what they were given: a molecule or its absence in each cell, shares as heights, words in order."""

import io
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxdiff.domains import plots as pictures
from jaxdiff.errors import InputError

SMILES = ["CCO", "c1ccccc1", "C1CC", "", "FC(F)F"]


def text_of(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    axes = figure.axes[0]
    return axes, [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_sheet_has_a_cell_for_each_molecule(capfd):
    width, height = pictures.CELL
    for columns, size in ((2, (2, 3)), (9, (5, 1)), (5, (5, 1))):
        picture = Image.open(io.BytesIO(pictures.molecule_png(SMILES, columns=columns)))
        assert picture.size == (size[0] * width, size[1] * height)
    ink = np.asarray(picture.convert("L")) < 250
    assert [bool(ink[:, i * width : (i + 1) * width].any()) for i in range(5)] == [True] * 5  # absence is written
    svg = pictures.molecule_svg(SMILES, columns=5)
    box = [float(x) for x in ET.fromstring(svg).get("viewBox").split()]
    assert box == [0, 0, 5 * width, height]
    assert capfd.readouterr() == ("", "")
    assert pictures.molecule_svg(SMILES, legends=["a"] * 5) != pictures.molecule_svg(SMILES)


def test_a_whole_number_has_a_bar():
    figure = pictures.property_histogram({"real": [0, 1, 1, 3], "ours": [1, 1]}, "rings", reference="real")
    axes, legend = text_of(figure)
    assert legend == ["real (mean 1.25)", "ours (mean 1)"]
    steps = [patch.get_data() for patch in axes.patches]
    np.testing.assert_allclose(steps[0].edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose([s.values for s in steps], [[0.25, 0.5, 0, 0.25], [0, 1, 0, 0]])
    assert axes.get_xlabel() == "rings"


def test_other_numbers_have_forty_bins_over_all():
    rng = np.random.default_rng(0)
    sets = {"a": rng.random(500), "b": rng.random(50) + 1}
    axes, _ = text_of(pictures.property_histogram(sets, "QED"))
    for patch, x in zip(axes.patches, sets.values(), strict=True):
        data = patch.get_data()
        assert len(data.values) == 40
        assert data.values.sum() == pytest.approx(1)  # the largest number is inside
        assert (data.edges[0], data.edges[-1]) == (sets["a"].min(), pytest.approx(sets["b"].max()))
        np.testing.assert_allclose(data.values, np.histogram(x, data.edges)[0] / len(x))


def test_words_stand_in_the_order_of_the_reference():
    counts = {"ours": [1, 1, 1, 1], "real": [10, 40, 20, 30]}
    figure = pictures.kmer_histogram(counts, 1, reference="real", note="JS .1")
    axes, legend = text_of(figure)
    assert legend == ["ours", "real"]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["C", "T", "G", "A"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 0.25)
    assert axes.get_title(loc="left") == "JS .1"
    many, _ = text_of(pictures.kmer_histogram({"real": np.arange(4096)}, 6, reference="real", top=100))
    assert len(many.patches) == 100
    assert len(many.get_xticks()) == 0


def test_guidance_has_a_panel_a_label_and_every_line():
    rows = {str(i): [(2, 0.6, 0.1, 0.7, 0.1), (0, 0.5, 0.1, 0.9, 0.1)] for i in range(8)}
    figure = pictures.guidance_curves(rows, ["QED", "validity"])
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    assert [axes.get_ylabel() for axes in figure.axes] == ["QED", "validity"]
    assert [len(axes.containers) for axes in figure.axes] == [8, 8]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xydata(), [[0, 0.9], [2, 0.7]])  # in order of strength


def test_no_window_is_opened():
    assert "matplotlib.pyplot" not in vars(pictures)
    assert matplotlib.figure.Figure is type(pictures.property_histogram({"a": [1]}, "x"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pictures.molecule_svg([]), "got 0 SMILES"),
        (lambda: pictures.molecule_png(["C"], legends=["a", "b"]), "got 1 SMILES, 2 legends"),
        (lambda: pictures.molecule_png(["C"], columns=0), "0 columns"),
        (lambda: pictures.property_histogram({}, "x"), "nothing to draw"),
        (lambda: pictures.property_histogram({"a": []}, "x"), "a has 0 numbers"),
        (lambda: pictures.property_histogram({"a": [1, np.nan]}, "x"), "1 not finite"),
        (
            lambda: pictures.property_histogram({"a": [1]}, "x", reference="b"),
            "the reference 'b' is none of the sets a",
        ),
        (lambda: pictures.kmer_histogram({"a": [1, 2]}, 1, reference="a"), r"shape \(2,\); expected \(4,\)"),
        (lambda: pictures.kmer_histogram({"a": [0] * 4}, 1, reference="a"), "not all 0"),
        (lambda: pictures.guidance_curves({"a": [(1, 2, 3)]}, ["x", "y"]), "of 5 numbers a point"),
    ],
)
def test_mistakes_are_said(call, message):
    with pytest.raises(InputError, match=message):
        call()
