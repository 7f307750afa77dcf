"""The README's tour runs as it stands, with fewer steps; its commands exist."""

import re
from pathlib import Path

import jax

import jaxdiff as jd

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_tour_runs(capsys):
    (tour,) = re.findall(r"```python\n(.*?)```", README, re.S)
    short = tour.replace("range(2000)", "range(3)").replace("hidden=256", "hidden=16").replace("steps=18", "steps=3")
    assert short != tour
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(compile(short, "README.md", "exec"), {})
    assert "class_agreement" in capsys.readouterr().out


def test_the_tour_is_short_enough_to_read():
    (tour,) = re.findall(r"```python\n(.*?)```", README, re.S)
    lines = [line for line in tour.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 30


def test_every_namespace_of_the_table_exists_with_its_names():
    for row in re.findall(r"^\| (`jd\..*?) \|(.*)\|$", README, re.M):
        spaces = re.findall(r"`jd\.(\w+)`", row[0])
        members = set().union(*(dir(getattr(jd, space)) for space in spaces))
        known = {"steps", "sigma_data"}
        for word in re.findall(r"`(\w+)", row[1]):
            assert word in members | known, f"{row[0]} has no {word}"


def test_every_linked_file_exists():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for target in re.findall(r"\bmake ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_command_that_is_claimed_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"\b((?:tests|benchmarks)/[\w/]+(?:\.py)?)", text):
        assert (ROOT / path).exists(), path
