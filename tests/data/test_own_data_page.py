"""The page on noise levels says what the code does: its programs run, and its table is the one that is printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdiff import data

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")


def test_the_programs_run(tmp_path, monkeypatch, capsys):
    digits = data.digits()
    (tmp_path / "my-pictures.zip").mkdir()  # a folder reads like a zip
    for i, picture in enumerate(digits.pixels[:50, ..., 0] * 15):
        Image.fromarray(picture).save(tmp_path / "my-pictures.zip" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    names = {"images": digits, "latents": np.random.default_rng(0).normal(size=(100, 2, 2, 4))}
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(programs) == 4
    for program in programs:
        exec(program, names)
    assert capsys.readouterr().out.count("P_mean") == 3


def test_the_table_is_the_printed_one():
    (table,) = re.findall(r"```\n(sigma_data.*?)\n```", PAGE, re.S)
    assert table == str(data.suggest(data.digits()))


@pytest.mark.parametrize(("load", "law"), [(data.digits, "(-0.72, 1.16)"), (data.mnist_5k, "(-0.87, 1.55)")])
def test_the_quoted_laws_are_the_suggested_ones(load, law):
    advice = data.suggest(load())
    assert f"({advice.P_mean.value:.2f}, {advice.P_std.value:.2f})" == law
    assert law in PAGE
    s = advice.sigma_data.value
    assert f"({-1.2 + np.log(2 * s):.2f}, 1.2)" in PAGE
