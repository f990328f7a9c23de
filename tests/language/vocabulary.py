"""Words of the style guide and the glossary, read from their tables, so that each is written down once."""

import re
from pathlib import Path
from typing import NamedTuple

from tests.language.sources import ROOT

STYLE = ROOT / "docs" / "style.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
VERBS = Path(__file__).with_name("verbs.txt")

# Of a docstring, whatever it belongs to. They begin subordinate clauses, prepositional phrases or references to another text.
OPENERS = frozenset({
    "what", "whatever", "whether", "how", "however", "who", "whoever", "whom", "whose", "which", "where", "wherever",
    "when", "whenever", "why", "while",
    "because", "if", "unless", "until", "since", "after", "before", "as", "so", "than", "though", "although",
    "it", "its", "they", "their", "these", "those", "this", "that", "there", "he", "she",
    "of", "for", "to", "by", "like", "with", "without", "in", "on", "at", "from", "into", "upon", "under", "over",
    "none", "not", "nor", "and", "or", "but", "likewise", "otherwise", "nobody", "somebody", "everybody", "something",
    "everything",
})  # fmt: skip
OPENING_PHRASES = ("the same", "one that", "one who")


class WordList:
    """Words and phrases with their replacements."""

    def __init__(self, replacements):
        self.replacements = {" ".join(word.lower().split()): replacement for word, replacement in replacements.items()}
        # The longest first: `let go of` and not `let go`.
        phrases = sorted(self.replacements, key=len, reverse=True)
        parts = [r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases]
        self._pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(parts) or '(?!)'})(?![\w-])", re.IGNORECASE)

    def __len__(self):
        return len(self.replacements)

    def find(self, text):
        """Return position, word and replacement of each word of the list that is a whole word in `text`."""
        words = [(match.start(), " ".join(match[0].split())) for match in self._pattern.finditer(text)]
        return [(position, word, self.replacements[word.lower()]) for position, word in words]


class Vocabulary(NamedTuple):
    banned: WordList
    replaced: WordList
    """Words in whose place the glossary has a term."""
    verbs: frozenset


class GlossaryEntry(NamedTuple):
    line: int
    term: str
    meaning: str
    source: str
    code: str


def load(style=STYLE, glossary=GLOSSARY, verbs=VERBS):
    """Return the vocabulary of the project."""
    return Vocabulary(
        banned=WordList(_pairs(style.read_text("utf-8"), ["Banned", "Write"])),
        replaced=WordList(_pairs(glossary.read_text("utf-8"), ["Not", "Term"])),
        verbs=frozenset(verb.capitalize() for verb in verbs.read_text("utf-8").split()),
    )


def glossary_entries(text):
    """Return the rows of the table of terms."""
    return [GlossaryEntry(line, *cells) for line, cells in _rows(text, ["Term", "Meaning", "Source", "In the code"])]


def _pairs(text, heads):
    pairs = {}
    for line, (words, replacement) in _rows(text, heads):
        for word in re.findall(r"`([^`]+)`", words):
            if not replacement or word in pairs:
                raise ValueError(f"line {line}: `{word}` needs one replacement")
            pairs[word] = replacement
    return pairs


def _rows(text, heads):
    """Return line and cells of each row of the tables whose columns are `heads`."""
    found = []
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            inside = False
        elif cells == heads:
            inside = True
        elif inside and not set(line) <= set("|-: "):
            if len(cells) != len(heads):
                raise ValueError(f"line {number}: {len(cells)} cells, {len(heads)} are needed")
            found.append((number, cells))
    return found
