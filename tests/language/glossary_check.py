"""Defects of the glossary: order, doubles, missing sources, classes that are not in the code."""

import ast
import re

from tests.language import vocabulary
from tests.language.rules import mask, sentences
from tests.language.sources import ROOT, files, is_product

MOST_SENTENCES = 2


def class_names(root=ROOT):
    """Return the names of all classes of the product."""
    names = set()
    for path in files(root):
        if path.suffix == ".py" and is_product(path):
            tree = ast.parse((root / path).read_text("utf-8"))
            names.update(node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return names


def problems(text, names):
    """Return a line for each defect. `names` are the classes of the product."""
    entries = vocabulary.glossary_entries(text)
    found = []
    terms = [entry.term for entry in entries]
    if terms != sorted(terms, key=str.lower):
        found.append("terms are not in alphabetical order")
    found += [f"{term}: described twice" for term in sorted({term for term in terms if terms.count(term) > 1})]
    for entry in entries:
        if not entry.source:
            found.append(f"line {entry.line}: {entry.term}: no source")
        if len(sentences(mask(entry.meaning))) > MOST_SENTENCES:
            found.append(f"line {entry.line}: {entry.term}: more than {MOST_SENTENCES} sentences")
        found += [
            f"line {entry.line}: {entry.term}: no class `{name}`"
            for name in re.findall(r"`(\w+)`", entry.code)
            if name not in names
        ]
    return found
