"""One trained run that tests may read, and copies of it that they may spoil."""

import shutil
from pathlib import Path

import pytest

from jaxdiff import cli

TINY = Path(__file__).with_name("tiny.py")


@pytest.fixture(scope="session")
def words():
    """words(workdir, "train.steps=30", ...): the command line that trains the tiny config."""

    def made(workdir, *changes):
        return ["train", f"--config={TINY}", f"--workdir={workdir}", *(f"--config.{change}" for change in changes)]

    return made


@pytest.fixture(scope="session")
def trained(words, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(words(workdir)) == 0
    return workdir


@pytest.fixture
def spoiled(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")
