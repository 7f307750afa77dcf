"""Texts come back from their tokens, and what a vocabulary cannot write is counted and said, never bent."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdiff.data import Tokeniser
from jaxdiff.data.sequences import tokeniser as tokenisers
from jaxdiff.errors import InputError

QM9 = (Path(__file__).parent / "files" / "qm9.smi").read_text().splitlines()[1:]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("CCl", ["C", "Cl"]),
        ("BrCB", ["Br", "C", "B"]),
        ("C[C@@H](N)O", ["C", "[C@@H]", "(", "N", ")", "O"]),
        ("[13CH4].[Na+]", ["[13CH4]", ".", "[Na+]"]),
        ("C%12=C%12", ["C", "%12", "=", "C", "%12"]),
        ("C%(123)C1", ["C", "%(123)", "C", "1"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("c1c[nH]cc1S", ["c", "1", "c", "[nH]", "c", "c", "1", "S"]),
        ("C<N C[", ["C", "<", "N", " ", "C", "["]),  # what is no SMILES comes out letter by letter
    ],
)
def test_smiles_are_cut_into_atoms_bonds_and_brackets(text, parts):
    assert tokenisers.CUTS["smiles"](text) == parts
    assert "".join(parts) == text


@pytest.mark.parametrize(
    ("tokeniser", "texts"),
    [
        (tokenisers.smiles(QM9), QM9),
        (tokenisers.characters("naïve Ωmega 𝔾"), ["Ω𝔾 va", "n", "ï ï"]),
        (tokenisers.letters(), ["in the beginning", " a z "]),
        (tokenisers.utf8(), ["naïve Ωmega 𝔾 \n\x00", "any 文 text"]),
        (tokenisers.dna(), ["GATTACA", "ACGT"]),
        (tokenisers.dna(n=True), ["GANNACA"]),
    ],
)
def test_texts_come_back(tokeniser, texts, tmp_path):
    for text in texts:
        ids = tokeniser.encode(text)
        assert ids.dtype == np.int32
        assert ids.min() >= 0
        assert ids.max() < tokeniser.vocab
        assert tokeniser.decode(ids) == text
        assert "".join(tokeniser.tokens[i] for i in tokeniser.read(text)).encode("utf8", "replace")
    tokeniser.save(tmp_path / "tokens.json")
    loaded = Tokeniser.load(tmp_path / "tokens.json")
    assert loaded == tokeniser
    assert hash(loaded) == hash(tokeniser)


def test_ids_are_places_in_the_list():
    assert tokenisers.dna(n=True).encode("TNGCA").tolist() == [3, 4, 2, 1, 0]
    assert tokenisers.letters().encode("z a").tolist() == [26, 0, 1]
    assert tokenisers.utf8().encode("é").tolist() == list("é".encode())
    smiles = tokenisers.smiles(["CCl", "[nH]"])
    assert smiles.tokens == ("<pad>", "<bos>", "<eos>", "C", "Cl", "[nH]")
    assert smiles.encode("ClC").tolist() == [1, 4, 3, 2]
    assert (smiles.pad, smiles.bos, smiles.eos, smiles.vocab) == (0, 1, 2, 6)
    assert (tokenisers.dna().pad, tokenisers.dna().bos, tokenisers.dna().eos) == (None, None, None)


def test_rows_are_framed_and_padded():
    smiles = tokenisers.smiles(["CCl"])
    found = smiles.encode_all(["C", "ClC", ""], 4)
    np.testing.assert_array_equal(found.tokens, [[1, 3, 2, 0], [1, 4, 3, 2], [1, 2, 0, 0]])
    assert found.kept.all()
    assert found.omitted == {}
    assert smiles.decode_all(found.tokens) == ["C", "ClC", ""]


def test_what_cannot_be_written_is_counted_and_skipped_on_request():
    smiles = tokenisers.smiles(["CCO"])
    texts = ["C", "CN", "CCCCC", "NN", "O", "CCCC", "CCC"]
    message = (
        r"mine: of 7 texts 2 with unknown tokens \('N' 3; the vocabulary has 5\), 2 over the length of 5 tokens "
        r"\(the longest has 7\), the first 'CN' at row 1; give skip=True"
    )
    with pytest.raises(InputError, match=message):
        smiles.encode_all(texts, 5, name="mine")
    found = smiles.encode_all(texts, 5, skip=True)
    assert smiles.decode_all(found.tokens) == ["C", "O", "CCC"]
    np.testing.assert_array_equal(found.kept, [True, False, False, False, True, False, True])
    assert found.omitted == {"with unknown tokens": 2, "over the length": 2}
    assert tokenisers.dna().encode_all(["AC", "A", "ACG"], 2, skip=True).omitted == {
        "under the length": 1,
        "over the length": 1,
    }
    with pytest.raises(InputError, match=r"'GATXACA' holds 'X' 1, outside the vocabulary of 4 tokens"):
        tokenisers.dna().encode("GATXACA")


def test_a_broken_row_does_not_pass_for_a_whole_one():
    smiles = tokenisers.smiles(["CO"])  # pad 0, bos 1, eos 2, C 3, O 4
    assert smiles.decode(np.array([1, 3, 4, 2, 4, 3])) == "CO"  # what follows <eos> is not read
    assert smiles.decode(np.array([1, 3, 2, 4, 2])) == "C"  # the first <eos> ends it
    assert smiles.decode(np.array([1, 3, 4, 0, 0])) == "CO"  # no <eos>: the padding ends it
    assert smiles.decode(np.array([1, 3, 0, 4, 2])) == "C<pad>O"
    assert smiles.decode(np.array([1, 3, 1, 4, 2])) == "C<bos>O"
    assert smiles.decode(np.array([1, 3, 0, 4, 2, 0]), strict=False) == "CO"
    assert smiles.decode(np.array([0, 0])) == ""


def test_an_id_outside_the_vocabulary_is_refused_or_marked():
    dna = tokenisers.dna()
    with pytest.raises(
        InputError, match=r"2 of 4 ids lie outside the vocabulary of 4 tokens, the first 4; a mask is 4"
    ):
        dna.decode(np.array([0, 4, 1, 7]))
    with pytest.raises(InputError, match="1 of 2 ids"):
        dna.decode(np.array([-1, 0]))
    assert dna.decode_all(np.array([[0, 4, 1, -1]]), outside="?") == ["A?C?"]


def test_bytes_that_are_no_text_are_marked():
    assert tokenisers.utf8().decode(np.array([65, 0xFF, 66])) == "A\ufffdB"


@pytest.mark.parametrize(
    ("cut", "tokens", "message"),
    [
        ("words", ("a",), "cuts by 'words'; expected one of smiles, characters, bytes"),
        ("characters", ("a", "b", "a"), "'a' twice"),
        ("characters", (), "no tokens"),
        ("characters", ("a", "bc"), "got the token 'bc'; expected one character"),
        ("bytes", ("Ω",), "got the token 'Ω'"),
    ],
)
def test_mistakes_in_a_vocabulary(cut, tokens, message):
    with pytest.raises(InputError, match=message):
        Tokeniser(cut, tokens)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", json.dumps({"cut": "bytes"}), json.dumps({"cut": "smiles", "tokens": [1]})]
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"tokens\.json: no tokeniser"):
        Tokeniser.load(path)
    with pytest.raises(InputError, match=r"nowhere\.json cannot be read"):
        Tokeniser.load(tmp_path / "nowhere.json")


def test_smiles_with_rubbish_make_no_vocabulary():
    with pytest.raises(InputError, match=r"some SMILES hold '<' 1, 'x' 1, which no SMILES has"):
        tokenisers.smiles(["CC", "C<x"])


def test_a_length_below_one_is_refused():
    with pytest.raises(InputError, match="the length is 0"):
        tokenisers.dna().encode_all(["A"], 0)
