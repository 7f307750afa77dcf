"""Validity, uniqueness and novelty are counted by hand, both sides of novelty canonical; floors are real molecules."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED

from jaxdiff.errors import InputError
from jaxdiff.metrics import molecules

# ethanol three ways, benzene twice, propane; then what is no molecule
SAMPLES = ["CCO", "OCC", "C(C)O", "c1ccccc1", "C1=CC=CC=C1", "CCC", "C1CC", "", "C C", "C<pad>C"]
TRAIN = ["OCC", "C1=CC=CC=C1", "N"]
REAL = (Path(__file__).parents[1] / "data" / "files" / "qm9.smi").read_text().splitlines()[1:]


def test_the_counts_are_those_made_by_hand(capfd):
    found = molecules.measure(SAMPLES, TRAIN)
    assert (found.samples, found.valid, found.unique, found.novel) == (10, 6, 3, 1)  # propane alone is new
    assert found.validity == (0.6, pytest.approx(math.sqrt(0.024)), 10)
    assert (found.uniqueness, found.novelty, found.novel_of_samples) == (1 / 2, 1 / 3, 1 / 10)
    assert capfd.readouterr() == ("", "")


def test_the_training_set_is_canonical_whoever_made_it():
    plain = molecules.measure(SAMPLES, TRAIN)
    known = molecules.canonical_set([*TRAIN, "C1CC"])
    assert known == {"CCO", "c1ccccc1", "N"}
    assert molecules.flat(molecules.measure(SAMPLES, known)) == molecules.flat(plain)
    without = molecules.measure(SAMPLES)
    assert (without.novel, without.novelty, without.novel_of_samples, without.novel_means) == (None, None, None, {})
    assert without.means == plain.means


def test_properties_are_over_valid_and_over_novel_samples():
    found = molecules.measure(["CCC", *SAMPLES], TRAIN)
    qed = [QED.qed(Chem.MolFromSmiles(text)) for text in ["CCC", *SAMPLES[:6]]]
    assert found.means["qed"] == (pytest.approx(np.mean(qed)), pytest.approx(np.std(qed, ddof=1) / 7**0.5), 7)
    assert found.means["rings"].value == pytest.approx(2 / 7)
    assert found.novel_means["qed"].value == pytest.approx(qed[0])  # propane, once
    assert found.novel_means["qed"].n == 1
    assert found.quantiles["qed"][0.5] == pytest.approx(np.median(qed))
    assert list(molecules.measure(["C"], properties=["rings"], quantiles=[0.1]).quantiles["rings"]) == [0.1]


def test_nothing_valid_is_said_as_nan():
    found = molecules.measure(["C1CC", "x"], TRAIN)
    assert (found.valid, found.unique, found.novel, found.validity.value) == (0, 0, 0, 0.0)
    assert all(math.isnan(x) for x in (found.uniqueness, found.novelty, found.means["qed"].value))
    assert math.isnan(found.quantiles["rings"][0.5])
    molecules.as_text(found)


def test_floors_are_real_molecules_at_the_same_count():
    key = jax.random.key(0)
    floor = molecules.floors(REAL, 27, REAL[:3], key=key, draws=40)
    assert floor.mean["samples"] == floor.mean["valid"] == 27
    assert (floor.mean["validity"], floor.std["validity"], floor.draws) == (1, 0, 40)
    truth = np.array([QED.qed(Chem.MolFromSmiles(text)) for text in REAL])
    spread = truth.std(ddof=1) / 27**0.5  # of fresh molecules; 40 draws know it to 1 / sqrt(78)
    assert abs(floor.std["qed/mean"] / spread - 1) < 5 / 78**0.5
    assert abs(floor.mean["qed/mean"] - truth.mean()) < 5 * spread * (3 / 30 / 40) ** 0.5
    assert abs(floor.mean["novel"] - 24.3) < 5 * (27 * 0.1 * 0.9 * (3 / 29) / 40) ** 0.5  # hypergeometric
    assert molecules.floors(REAL, 4, key=key, draws=2) == molecules.floors(REAL, 4, key=key, draws=2)
    assert np.isnan(molecules.floors(REAL, 30, key=key, draws=2).std["qed/mean"])  # all of them, every time


def test_a_table_says_each_figure_beside_its_floor():
    found = molecules.measure(SAMPLES, TRAIN)
    text = molecules.as_text(found, molecules.floors(REAL, 10, TRAIN, key=jax.random.key(0), draws=2))
    assert ["validity", "0.6", "0.15", "1", "0"] in [line.split() for line in text.splitlines()]
    assert len(text.splitlines()) == 1 + len(molecules.flat(found)) == 1 + 8 + 4 + 10
    assert "novel" not in molecules.as_text(molecules.measure(SAMPLES))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: molecules.measure([]), "at least one, got a string or none"),
        (lambda: molecules.measure("CCO"), "got a string"),
        (lambda: molecules.measure(["C"], properties=["logp"]), "no property 'logp'"),
        (lambda: molecules.floors(["C"] * 4, 5, key=jax.random.key(0)), "n must be 1 to 4"),
        (lambda: molecules.floors(["C"] * 4, 2, key=jax.random.key(0), draws=1), "draws must be 2"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(InputError, match=message):
        call()
