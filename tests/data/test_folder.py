"""Real digits written as pictures come back exactly, with their labels; every picture that does not fit is named."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdiff.data import digits, images
from jaxdiff.errors import InputError


def png(array, mode=None, **options):
    file = io.BytesIO()
    picture = Image.fromarray(np.asarray(array, np.uint8))
    (picture.convert(mode) if mode else picture).save(file, "png", **options)
    return file.getvalue()


@pytest.fixture(params=["folder", "zip"])
def write(request, tmp_path):
    def write(files):
        path = tmp_path / ("mine.zip" if request.param == "zip" else "mine")
        if request.param == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


GREY = digits().pixels[:6, ..., 0] * 15
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], -1)


def test_pictures_come_back_in_the_order_of_their_names(write):
    path = write({f"{name}.png": png(x) for name, x in zip("fbdace", GREY, strict=True)})
    got = images(path)
    np.testing.assert_array_equal(got.pixels[..., 0], GREY[[3, 1, 4, 2, 5, 0]])
    assert (got.labels, got.num_classes, got.levels, got.name) == (None, 0, 256, "mine")


def test_class_folders_are_labels(write):
    path = write({f"{kind}/{i}.PNG": png(GREY[i]) for i, kind in enumerate(["dog", "cat", "dog", "eel", "cat", "dog"])})
    got = images(path)
    np.testing.assert_array_equal(got.labels, [0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(got.pixels[..., 0], GREY[[1, 4, 0, 2, 5, 3]])
    assert got.class_names == ("cat", "dog", "eel")


def test_one_folder_is_no_label(write):
    assert images(write({f"all/{i}.png": png(GREY[i]) for i in range(3)})).labels is None


def test_dataset_json_wins_over_folders(write):
    files = {f"0000{i % 2}/img{i}.png": png(GREY[i]) for i in range(4)}
    index = {"labels": [[name, 7 - i] for i, name in enumerate(files)]}
    got = images(write(files | {"dataset.json": json.dumps(index)}))
    np.testing.assert_array_equal(got.labels, [7, 5, 6, 4])
    assert got.num_classes == 8
    assert images(write(files | {"dataset.json": '{"labels": null}'})).labels is None


def test_hidden_files_and_other_files_are_left_out(write):
    extra = {".hidden.png": b"x", "__MACOSX/a.png": b"x", "notes.txt": b"x", "a/.b/c.png": b"x"}
    assert len(images(write(extra | {"a.png": png(GREY[0])}))) == 1


def test_colours_palettes_and_opaque_alpha_are_read_exactly(write):
    alpha = np.concatenate([COLOUR[1], np.full((8, 8, 1), 255)], -1)
    palette = Image.fromarray(COLOUR[2]).quantize(64)
    got = images(
        write(
            {"a.png": png(COLOUR[0]), "b.png": png(alpha), "c.png": png(palette.convert("RGB")), "d.png": png(GREY[3])}
        )
    ).pixels
    np.testing.assert_array_equal(got[:2], COLOUR[:2])
    np.testing.assert_array_equal(got[2], np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(got[3], np.repeat(GREY[3][..., None], 3, -1))


def test_a_camera_turned_on_its_side_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn anticlockwise
    Image.fromarray(COLOUR[0][:, :6]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images(tmp_path).pixels[0], np.rot90(COLOUR[0][:, :6], -1))


def test_size_crops_the_middle_and_resizes(write):
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = COLOUR[0]
    path = write({"a.png": png(wide), "b.png": png(COLOUR[1]), "c.png": png(np.full((31, 17, 3), 77))})
    got = images(path, size=8).pixels
    np.testing.assert_array_equal(got[:2], COLOUR[:2])  # the middle 8 of 20 columns; no resampling at its own size
    np.testing.assert_array_equal(got[2], np.full((8, 8, 3), 77))
    assert images(path, size=(4, 6)).shape == (4, 6, 3)


def test_size_resizes_with_lanczos(write):
    got = images(write({"a.png": png(GREY[0])}), size=5).pixels[0, ..., 0]
    want = np.asarray(Image.fromarray(GREY[0]).resize((5, 5), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(got, want)


def test_two_sizes_are_named(write):
    path = write({"a.png": png(GREY[0]), "b.png": png(GREY[1]), "c/d.png": png(GREY[2][:6]), "e.png": png(GREY[3][:5])})
    with pytest.raises(
        InputError, match=r"a\.png is 8 x 8 pixels and c/d\.png is 6 x 8; expected one size; give size=6"
    ):
        images(path)


CUT = png(COLOUR[0])[:-40]
CLEAR = np.concatenate([COLOUR[0], GREY[0][..., None]], -1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "bad.png is damaged"),
        (b"no picture", "bad.png is damaged"),
        (CUT, "bad.png is damaged"),
        (png(CLEAR), "bad.png has transparent pixels"),
        (png(GREY[0], transparency=0), "bad.png has transparent pixels"),
        (png(GREY[0], mode="I;16"), "bad.png has pixels of kind 'I;16'"),
    ],
)
def test_a_picture_that_does_not_fit_is_named(write, data, message):
    with pytest.raises(InputError, match=message):
        images(write({"a.png": png(GREY[0]), "bad.png": data}))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "dataset.json cannot be read"),
        ("{}", "dataset.json cannot be read"),
        ("[1]", "dataset.json cannot be read"),
        ('{"labels": []}', "labels of another form"),
        ('{"labels": [["a.png", 0.5], ["b.png", 1]]}', "labels of another form"),
        ('{"labels": [["a.png", -1], ["b.png", 1]]}', "labels of another form"),
        ('{"labels": [["a.png", true], ["b.png", 1]]}', "labels of another form"),
        ('{"labels": {"a.png": 1}}', "labels of another form"),
        ('{"labels": [["a.png", 1]]}', "leaves b.png, a picture without a label"),
        ('{"labels": [["a.png", 1], ["b.png", 1], ["c.png", 1]]}', "leaves c.png, a label without a picture"),
    ],
)
def test_a_wrong_index_is_said(write, index, message):
    with pytest.raises(InputError, match=message):
        images(write({"a.png": png(GREY[0]), "b.png": png(GREY[1]), "dataset.json": index}))


def test_a_picture_beside_the_class_folders_is_named(write):
    with pytest.raises(InputError, match=r"b\.png lies beside the class folders a and c"):
        images(write({"a/a.png": png(GREY[0]), "b.png": png(GREY[1]), "c/a.png": png(GREY[2])}))


def test_sources_without_pictures_are_said(write, tmp_path):
    with pytest.raises(InputError, match="holds no pictures"):
        images(write({"notes.txt": b"x"}))
    with pytest.raises(InputError, match="does not exist"):
        images(tmp_path / "none")
    (tmp_path / "a.tar").write_bytes(b"not a zip")
    with pytest.raises(InputError, match=r"a\.tar is damaged or no zip"):
        images(tmp_path / "a.tar")
    with pytest.raises(InputError, match="size is 0"):
        images(tmp_path, size=0)


def test_a_damaged_zip_names_the_zip_or_the_picture(tmp_path):
    path = tmp_path / "mine.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", png(GREY[i]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"mine\.zip is damaged or no zip"):
        images(path)
    start = whole.index(png(GREY[1])) + 50
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    with pytest.raises(InputError, match=r"mine\.zip: 1\.png cannot be unpacked"):
        images(path)


def test_missing_pillow_names_its_cure(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"Pillow.*not installed.*pip install 'jaxdiff\[data\]'"):
        images(tmp_path)
