"""Violations in the files of the project."""

import ast

from tests.language import vocabulary
from tests.language.passages import of_hash_comments, of_markdown
from tests.language.python_source import error_names, of_python
from tests.language.rules import check
from tests.language.sources import ROOT, files, is_product

# Pages with examples of what is not to be written.
QUOTING = frozenset({"docs/style.md", "docs/glossary.md"})


def survey(only=None, *, root=ROOT):
    """Return the violations by path of each file, or of the files in `only`: paths relative to `root`."""
    words = vocabulary.load()
    paths = files(root)
    texts = {path: (root / path).read_text("utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items() if path.suffix == ".py"}
    errors = error_names(tree for path, tree in trees.items() if is_product(path))
    found = {}
    for path in paths if only is None else only:
        passages = passages_of(path, texts[path], trees.get(path), errors)
        found[path.as_posix()] = check(passages, words, product=is_product(path))
    return found


def passages_of(path, text, tree=None, errors=frozenset()):
    """Return the passages of a file by what its name says it is."""
    if path.suffix == ".py":
        return of_python(text, errors, tree)
    if path.suffix == ".md":
        return of_markdown(text, quotes=path.as_posix() in QUOTING)
    return of_hash_comments(text)
