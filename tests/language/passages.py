"""Passages of prose in a file: paragraphs, list items, table cells, comments, log messages and error texts."""

import re
from typing import NamedTuple

# Sections of a Google style docstring. Those in the second set hold code.
SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Note|Notes|Warning|Warnings|Examples?):")
CODE_SECTIONS = frozenset({"Example", "Examples"})

LIST_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
# Text with this indent, in spaces, is a diagram, a protocol transcript or code.
PREFORMATTED = 4

# Columns of the style guide and the glossary that quote what is not to be written.
QUOTING_COLUMNS = frozenset({"Before", "Banned", "Not"})


class Passage(NamedTuple):
    line: int
    text: str
    """As in the file, with its line breaks, without markers of lists, comments and tables."""
    source: str
    """`docstring`, `comment`, `log`, `error` or `markdown`."""
    owner: str = ""
    """Of the first passage of a docstring: `module`, `class`, `function`, `property` or `attribute`."""


def of_plain_text(text, line, source, owner=""):
    """Return the passages of a docstring or a comment block: paragraphs, list items and entries of sections."""
    lines = _dedented(text, docstring=source == "docstring")
    found = []
    current = []
    began = line
    section = ""
    entry_indent = None
    skips_below = None  # the indent of a line that ends with "::"

    def end():
        if any(part.strip() for part in current):
            found.append(Passage(began, "\n".join(current), source, "" if found else owner))
        current.clear()

    for number, raw in enumerate(lines, line):
        stripped = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        if not stripped:
            end()
            continue
        if skips_below is not None:
            if indent > skips_below:
                continue
            skips_below = None
        if (header := SECTION.fullmatch(stripped)) and indent == 0:
            end()
            section, entry_indent = header[1], None
            continue
        if section and indent == 0 and not current:
            section = ""
        if section in CODE_SECTIONS or stripped.startswith(">>>"):
            continue
        if section:
            entry_indent = indent if entry_indent is None else entry_indent
            if indent <= entry_indent:
                end()
        elif indent >= PREFORMATTED and not (current and LIST_ITEM.match(current[0])):
            continue
        if item := LIST_ITEM.match(raw):
            end()
            began = number
            current.append(" " * item.end() + raw[item.end() :])
        else:
            began = began if current else number
            current.append(raw)
        if stripped.endswith("::"):
            skips_below = indent
            end()
    end()
    return found


def _dedented(text, *, docstring):
    """Return the lines without their common indent. That of a docstring is not found in its first line."""
    lines = text.split("\n")
    counted = lines[1:] if docstring else lines
    # A line of blanks counts if it is the one of the closing quotes.
    indents = [len(line) - len(line.lstrip()) for line in counted if line.strip()]
    if docstring and len(lines) > 1 and not lines[-1].strip():
        indents.append(len(lines[-1]))
    common = min(indents, default=0)
    if docstring:
        return [lines[0].strip(), *(line[common:].rstrip() for line in counted)]
    return [line[common:].rstrip() for line in counted]


def of_hash_comments(text):
    """Return the comments of a Makefile, a shell script or a TOML file."""
    found = []
    block = []
    began = 0
    for number, line in enumerate([*text.split("\n"), ""], 1):
        stripped = line.strip()
        if stripped.startswith("#") and not stripped.startswith("#!"):
            began = began if block else number
            block.append(stripped.lstrip("#").removeprefix(" "))
            continue
        if block:
            found += of_plain_text("\n".join(block), began, "comment")
            block = []
        if trailing := re.search(r"\s##? (.*)", line):
            found.append(Passage(number, trailing[1], "comment"))
        elif said := re.match(r'\s*say "(.*)"', line):
            found.append(Passage(number, said[1], "log"))
    return found


def of_markdown(text, *, quotes=False):
    """Return paragraphs, headings, list items, table cells, and comments in code blocks of Python.

    If `quotes`, columns of tables that show bad examples are left out.
    """
    found = []
    paragraph = []
    began = 0
    fence = None
    columns = None  # the heads of the table that the last line belongs to

    def end():
        if paragraph:
            found.append(Passage(began, "\n".join(paragraph), "markdown"))
            paragraph.clear()

    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith("```"):
            end()
            fence = None if fence is not None else stripped[3:]
            continue
        if fence is not None:
            comment = re.search(r"(?:^|\s)# (.*)", line) if fence == "python" else None
            if comment:
                found.append(Passage(number, comment[1], "comment"))
            continue
        if stripped.startswith("|"):
            end()
            cells = _cells(stripped)
            if columns is None:
                columns = cells
            elif not all(re.fullmatch(r":?-+:?", cell) or not cell for cell in cells):
                named = zip(cells, [*columns, *[""] * len(cells)], strict=False)
                found += [
                    Passage(number, cell, "markdown")
                    for cell, column in named
                    if cell and not (quotes and column in QUOTING_COLUMNS)
                ]
            continue
        columns = None
        if not stripped:
            end()
        elif stripped.startswith("#"):
            end()
            found.append(Passage(number, stripped.lstrip("# "), "markdown"))
        else:
            if item := LIST_ITEM.match(line):
                end()
                line = " " * item.end() + line[item.end() :]
            began = began if paragraph else number
            paragraph.append(line.lstrip("> ") if stripped.startswith(">") else line)
    end()
    return found


def _cells(row):
    """Split a row of a table. A bar in code belongs to its cell."""
    inner = re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\0"), row.strip().strip("|"))
    return [cell.replace("\0", "|").strip() for cell in re.split(r"(?<!\\)\|", inner)]
