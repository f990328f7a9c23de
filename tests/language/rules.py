"""Rules of the style guide, applied to passages: openers, verbs, banned words, terms, length of sentences."""

import re
from typing import NamedTuple

from tests.language import vocabulary

# Words in a sentence. Up to TOLERATED, one sentence in fifty of a file may be longer.
MOST_WORDS = 25
TOLERATED = 32
TOLERATED_SHARE = 0.02

KINDS = ("opener", "verb", "word", "term", "long")

# Inline code, addresses, and the addresses of Markdown links: each is one word, whatever it contains.
CODE = re.compile(r"``[^`]+``|`[^`]+`|https?://[^\s)>\"]+")
LINK = re.compile(r"\]\([^)]*\)|[\[\]]")

# A docstring that begins with the description of one parameter: that is an entry of `Args`.
PARAMETER = re.compile(r"X+:\s")

SENTENCE_END = re.compile(r"[.!?]+[\"')*_]*(?=\s|$)")
ABBREVIATION = re.compile(r"(?:^|[\s(])(?:e\.g|i\.e|vs|al|cf|approx|etc|Nos?|St|Dr)\.$")
WORD = re.compile(r"\S*\w\S*")


class Violation(NamedTuple):
    line: int
    kind: str
    text: str


class Sentence(NamedTuple):
    position: int
    text: str
    words: int


def check(passages, words, *, product):
    """Return the violations in one file, by line. Rules about docstrings apply to the product only."""
    found = []
    tolerable = []
    total = 0
    for passage in passages:
        masked = mask(passage.text)
        if product and passage.owner:
            found += _opening(passage, masked, words.verbs)
        found += _words(passage, masked, "word", words.banned)
        found += _words(passage, masked, "term", words.replaced)
        for sentence in sentences(masked):
            total += 1
            if sentence.words > MOST_WORDS:
                line = passage.line + passage.text.count("\n", 0, sentence.position)
                long = Violation(line, "long", f"{sentence.words} words: {_short(passage.text[sentence.position :])}")
                (tolerable if sentence.words <= TOLERATED else found).append(long)
    found += sorted(tolerable)[int(total * TOLERATED_SHARE) :]
    return sorted(found)


def mask(text):
    """Return `text` with each piece of code as one word of the letter X, and without brackets of links. Positions stay."""
    text = CODE.sub(lambda match: "X" * len(match[0]), text)
    return LINK.sub(lambda match: " " * len(match[0]), text)


def sentences(masked):
    """Return the sentences of a masked passage."""
    found = []
    start = 0
    for end in SENTENCE_END.finditer(masked):
        if not _ends_sentence(masked, end):
            continue
        _add(found, masked, start, end.end())
        start = end.end()
    _add(found, masked, start, len(masked))
    return found


def _ends_sentence(masked, end):
    before, after = masked[: end.end()], masked[end.end() :].lstrip()
    if ABBREVIATION.search(before[-8:]):
        return False
    return not (end[0].startswith("..") and after[:1].islower())


def _add(found, masked, start, end):
    text = masked[start:end]
    if words := len(WORD.findall(text)):
        found.append(Sentence(start + len(text) - len(text.lstrip()), text.strip(), words))


def _opening(passage, masked, verbs):
    opening = masked.lstrip()
    word = re.match(r"[\w'-]*", opening)[0]
    line = _short(passage.text.lstrip())
    if (
        word.lower() in vocabulary.OPENERS
        or PARAMETER.match(opening)
        or opening.lower().startswith(vocabulary.OPENING_PHRASES)
    ):
        return [Violation(passage.line, "opener", line)]
    if passage.owner == "function" and word not in verbs:
        return [Violation(passage.line, "verb", line)]
    return []


def _words(passage, masked, kind, listed):
    return [
        Violation(passage.line + masked.count("\n", 0, position), kind, f"{word} -> {replacement}")
        for position, word, replacement in listed.find(masked)
    ]


def _short(text, most=90):
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."
