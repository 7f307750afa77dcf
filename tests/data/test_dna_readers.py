"""DNA keeps its official split, genomes are cut into whole windows, and other letters are counted, never bent."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from jaxdiff.data import sequences
from jaxdiff.errors import InputError

TABLE = Path(__file__).parent / "files" / "dna.tsv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines(), delimiter="\t"))


def fasta(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(("split", "chromosome"), [("train", None), ("valid", "chr2"), ("test", "chr1"), ("all", None)])
def test_regulatory_sequences_are_as_their_table_says(split, chromosome):
    data = sequences.dna_diffusion(split, folder=TABLE)
    names = {"train": "training", "valid": "validation", "test": "test"}
    rows = [row for row in ROWS if split == "all" or row["data_label"] == names[split]]
    assert len(rows) == (12 if split == "all" else 4)
    assert data.texts() == [row["sequence"] for row in rows]
    assert [data.class_names[i] for i in data.labels] == [row["TAG"].split("_")[0] for row in rows]
    assert sorted(data.labels)[:: 3 if split == "all" else 1] == [0, 1, 2, 3]
    assert (data.shape, data.vocab, data.num_classes) == ((200,), 4, 4)
    if chromosome:
        assert {row["chr"] for row in rows} == {chromosome}


def test_a_damaged_table_is_named(tmp_path):
    text = TABLE.read_text()
    for change, options, message in (
        (text.replace("K562_", "HeLa_"), {}, "cell type 'HeLa'; expected one of GM12878"),
        (text.replace("TAG", "tag", 1), {}, "has no column TAG"),
        (text.replace("CAG", "CNG", 1), {}, r"of 12 texts 1 with unknown tokens \('N' 1"),
    ):
        with pytest.raises(InputError, match=message):
            sequences.dna_diffusion(folder=fasta(tmp_path / "dna.tsv", change), **options)
    data = sequences.dna_diffusion(folder=tmp_path / "dna.tsv", skip=True)
    assert (len(data), data.omitted) == (11, {"with unknown tokens": 1})
    rows = [row for row in ROWS if row["sequence"] in data.texts()]
    assert [data.class_names[i] for i in data.labels] == [row["TAG"].split("_")[0] for row in rows]
    with pytest.raises(InputError, match=r"pip install --no-deps dnadiffusion==0\.0\.0\.dev0"):
        sequences.dna_diffusion(folder=tmp_path / "nowhere")
    with pytest.raises(InputError, match="the split is 'validation'"):
        sequences.dna_diffusion("validation", folder=TABLE)


def test_windows_of_a_genome(tmp_path):
    path = fasta(tmp_path / "small.fa", ">one first\nACGT\nacg\n>two\nTTTTT\n>empty\n")
    data = sequences.genome(path, 3)
    assert data.texts() == ["ACG", "TAC", "TTT"]  # windows do not cross records; small letters are capitals
    assert data.omitted == {"bases after the last window": 3}
    assert data.name == "small"
    dense = sequences.genome(path, 3, stride=2)
    assert (dense.texts(), dense.omitted) == (["ACG", "GTA", "ACG", "TTT", "TTT"], {})
    with gzip.open(tmp_path / "small.fna.gz", "wt") as file:
        file.write(path.read_text())
    np.testing.assert_array_equal(sequences.genome(tmp_path / "small.fna.gz", 3).tokens, data.tokens)
    long = "".join(np.random.default_rng(0).choice(list("ACGT"), 1000))
    lines = "\n".join(long[i : i + 60] for i in range(0, 1000, 60))
    assert sequences.genome(fasta(tmp_path / "long.fa", f">x\n{lines}\n"), 250).texts() == [
        long[i : i + 250] for i in range(0, 1000, 250)
    ]


def test_other_letters_are_counted_and_their_windows_skipped_on_request(tmp_path):
    path = fasta(tmp_path / "g.fa", ">a\nACGNNTTRTA\n")
    with pytest.raises(InputError, match=r"g\.fa: 3 letters are not A, C, G, T: 'N' 2, 'R' 1; give skip=True"):
        sequences.genome(path, 2)
    data = sequences.genome(path, 2, skip=True)
    assert data.texts() == ["AC", "TA"]  # GN, NT and TR are left out
    assert data.omitted == {"windows with other letters": 3}
    with pytest.raises(InputError, match="1 letters are not A, C, G, T, N: 'R' 1"):
        sequences.genome(path, 2, n=True)
    assert sequences.genome(path, 2, n=True, skip=True).texts() == ["AC", "GN", "NT", "TA"]
    with pytest.raises(InputError, match="no window of 4 clean bases"):
        sequences.genome(path, 4, stride=3, skip=True)


def test_a_class_for_each_genome(tmp_path):
    paths = {"one": fasta(tmp_path / "1.fa", ">\nAACC\n"), "two": fasta(tmp_path / "2.fa", ">\nGGTTA\n>\nN\n")}
    with pytest.raises(InputError, match=r"2\.fa: 1 letters"):
        sequences.genomes(paths, 2)
    data = sequences.genomes(paths, 2, skip=True)
    assert data.texts() == ["AA", "CC", "GG", "TT"]
    assert (data.labels.tolist(), data.class_names) == ([0, 0, 1, 1], ("one", "two"))
    assert data.omitted == {"bases after the last window": 2}
    with pytest.raises(InputError, match="no genomes"):
        sequences.genomes({}, 2)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("ACGT\n", {}, "begins with 'ACGT'; expected FASTA"),
        (">only a name\n", {}, "holds no bases"),
        ("", {}, "holds no bases"),
        (">a\nACGT\n", {"length": 0}, "windows of 0 every 0"),
        (">a\nACGT\n", {"length": 2, "stride": 0}, "windows of 2 every 0"),
        (">a\nACGT\n", {"length": 5}, "no window of 5"),
    ],
)
def test_mistakes_in_a_genome(tmp_path, content, options, message):
    with pytest.raises(InputError, match=message):
        sequences.genome(fasta(tmp_path / "g.fa", content), **{"length": 2} | options)


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "g.fa.gz").write_bytes(gzip.compress(b">a\nACGT\n" * 100)[:-12])
    with pytest.raises(InputError, match=r"g\.fa\.gz cannot be read"):
        sequences.genome(tmp_path / "g.fa.gz", 2)
