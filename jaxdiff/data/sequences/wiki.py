"""A Wikipedia dump as the plain text that a reader sees, in the 27 letters of text8.

The recipe is Mahoney's ("About the test data", 2006): keep the text that a browser shows and the captions of images;
remove tables, references and links to other languages; turn links into their text; spell digits out; make capitals
small; every other character is a space, and runs of spaces are one. These rules are our own reading of it."""

import re
from collections.abc import Iterator
from html import unescape

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAGE = re.compile(r"<text\b[^>]*>(.*?)</text>", re.DOTALL)
REDIRECT = re.compile(r"\s*#redirect", re.IGNORECASE)
HIDDEN = re.compile(
    r"<!--.*?-->"  # comments
    r"|<(ref|math|gallery|timeline|source|syntaxhighlight|score|imagemap)\b[^>]*?(?:/>|>.*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
TEMPLATE = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)  # an innermost one
TABLE = re.compile(r"^[:\s]*\{\|(?:(?!^[:\s]*\{\|).)*?^\s*\|\}", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
OUTWARD = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]*([^\[\]]*)\]", re.IGNORECASE)
TAG = re.compile(r"<[^<>]*>")
MAGIC = re.compile(r"__[A-Z]+__")
LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple|[a-z]{2,3}(?:-[a-z]+)+):")
OPTION = re.compile(
    r"\s*(?:thumb(?:nail)?|frame(?:d|less)?|border|left|right|center|centre|none|baseline|middle|sub|super|top|bottom"
    r"|text-top|text-bottom|upright|\d*x?\d+\s*px|\w+\s*=.*)\s*",
    re.IGNORECASE | re.DOTALL,
)
OTHER = re.compile(r"[^a-z]+")


def articles(xml: str) -> Iterator[str]:
    """The wikitext of each page of a dump that is not a redirect."""
    for match in PAGE.finditer(xml):
        text = unescape(match.group(1))  # the dump's own escapes
        if not REDIRECT.match(text):
            yield text


def visible(wikitext: str) -> str:
    """What a browser shows of a page, about: without comments, references, templates, tables and markup."""
    text = HIDDEN.sub(" ", wikitext)
    for nested in (TEMPLATE, TABLE):
        text = _until_stable(nested, " ", text)
    for _ in range(2):  # links outward stand in captions, and captions in them
        text = OUTWARD.sub(r"\1", text)
        text = _until_stable(LINK, _shown, text)
    text = OUTWARD.sub(r"\1", text)
    return unescape(MAGIC.sub(" ", TAG.sub(" ", text)))


def plain(text: str) -> str:
    """The text in 27 letters: small a to z and single spaces, digits spelled out, everything else a space."""
    text = text.translate({ord(str(i)): f" {word} " for i, word in enumerate(DIGITS)})
    return OTHER.sub(" ", text.translate(SMALL)).strip()


SMALL = {capital: capital + 32 for capital in range(ord("A"), ord("Z") + 1)}  # ASCII alone: str.lower() makes ı from İ


def wikifil(xml: str) -> str:
    """The articles of a Wikipedia dump as one text of 27 letters."""
    return plain("\n".join(visible(text) for text in articles(xml)))


def _until_stable(pattern: re.Pattern, to, text: str) -> str:
    """Replace innermost matches until none is left."""
    count = 1
    while count:
        text, count = pattern.subn(to, text)
    return text


def _shown(match: re.Match) -> str:
    """The text of a link: its caption, its label, or its target."""
    parts = match.group(1).split("|")
    target = parts[0].strip()
    space = target.split(":", 1)[0].strip().lower() if ":" in target else ""
    if space in ("file", "image"):
        return "" if len(parts) == 1 or OPTION.fullmatch(parts[-1]) else f" {parts[-1]} "
    if space == "category":
        return f" {target.split(':', 1)[1]} "
    if len(parts) == 1 and LANGUAGE.match(target):
        return ""
    return parts[-1].strip() or target.lstrip(":")
