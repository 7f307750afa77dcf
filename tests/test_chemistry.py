"""What counts as a molecule, its canonical form and its numbers are RDKit's; the cache changes nothing but the time."""

import subprocess
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import QED

from jaxdiff import chemistry
from jaxdiff.errors import InputError

REAL = ["CCO", "C1=CC=CC=C1", "[O-]C(=O)C1CNC=[NH+]C1", "CC1(C)OC2C3CC1C23", "N", "C.C"]
CUBANE = "C12C3C4C1C5C2C3C45"  # six faces; a smallest set of smallest rings has five of them


def test_numbers_are_rdkits():
    found = chemistry.describe(REAL)
    molecules = [Chem.MolFromSmiles(text) for text in REAL]
    assert found.canonical.tolist() == [Chem.MolToSmiles(m) for m in molecules] == chemistry.canonical(REAL)
    np.testing.assert_array_equal(found.properties["qed"], [QED.qed(m) for m in molecules])
    np.testing.assert_array_equal(found.properties["rings"], [0, 1, 1, 3, 0, 0])


def test_rings_are_those_of_the_symmetric_set():
    assert chemistry.describe([CUBANE], ["rings"]).properties["rings"] == 6
    assert len(Chem.GetSSSR(Chem.MolFromSmiles(CUBANE))) == 5


@pytest.mark.parametrize(
    "text", ["", " ", "C C", "CCO ethanol", "C\tC", "C\n", "CC |$a;b$|", "C<pad>C", "C1CC", "c1cc1", "x", "."]
)
def test_what_is_no_molecule(text, capfd):
    found = chemistry.describe(["CCO", text])
    assert found.canonical.tolist() == ["CCO", ""]
    assert all(np.isnan(values).tolist() == [False, True] for values in found.properties.values())
    assert capfd.readouterr() == ("", "")  # RDKit's log is silent in here, and only in here


def test_rdkit_is_heard_again_afterwards():
    code = (
        "from rdkit import Chem; from jaxdiff import chemistry; chemistry.canonical(['C1CC']);"
        "print('silent so far', flush=True); Chem.MolFromSmiles('C1CC')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "silent so far"
    assert done.stderr.count("unclosed ring") == 1


def test_the_cache_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(chemistry, "CHUNK", 2)
    truth = chemistry.describe([*REAL, "C1CC"])
    parts = []
    compute = chemistry._compute

    def counted(smiles, names):
        if len(parts) == 2:
            raise KeyboardInterrupt
        parts.append(smiles)
        return compute(smiles, names)

    monkeypatch.setattr(chemistry, "_compute", counted)
    with pytest.raises(KeyboardInterrupt):
        chemistry.describe([*REAL, "C1CC"], cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(chemistry, "_compute", compute)
    first, second = tmp_path.glob("*.npz")
    first.write_bytes(b"damaged")
    second.write_bytes(second.read_bytes()[:-50])
    for _ in range(2):
        found = chemistry.describe([*REAL, "C1CC"], cache=tmp_path)
        np.testing.assert_array_equal(found.canonical, truth.canonical)
        for name, values in truth.properties.items():
            np.testing.assert_array_equal(found.properties[name], values)
    monkeypatch.setattr(chemistry, "_compute", None)  # everything is there now
    chemistry.describe([*REAL, "C1CC"], cache=tmp_path)
    with pytest.raises(TypeError):  # other properties are another file
        chemistry.describe(REAL, ["qed"], cache=tmp_path)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAXDIFF_CACHE", raising=False)
    assert chemistry.cache_folder() == tmp_path / "jaxdiff" / "molecules"
    monkeypatch.setenv("JAXDIFF_CACHE", str(tmp_path / "mine"))
    assert chemistry.cache_folder() == tmp_path / "mine" / "molecules"


def test_mistakes(monkeypatch):
    with pytest.raises(InputError, match="no property 'logp'; expected some of qed, rings"):
        chemistry.describe(["C"], ["logp"])
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(InputError, match=r"RDKit.*not installed.*pip install 'jaxdiff\[sequences\]'"):
        chemistry.describe(["C"])
    with pytest.raises(InputError, match="RDKit, which is not installed"):
        chemistry.describe(["C"], cache="nowhere")
