"""Files that hold prose, and the kind of each."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]

PRODUCT = ("evcache", "zones")
TESTS = ("tests", "integration", "benchmarks", "fuzz")
FOLDERS = (*PRODUCT, *TESTS, "deploy", "docs", "examples")
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", ".ci/run")

# Besides Python and Markdown. Their prose is in comments that begin with `#`.
WITH_HASH_COMMENTS = frozenset({".service", ".sh", ".toml", ".yaml", ".yml"})


def files(root=ROOT):
    """Return the path of each file with prose, relative to `root`, in order.

    Links to folders are not followed: `evcache/zones` may be a link to `zones`, and each file has one path.
    """
    found = [Path(name) for name in FILES if (root / name).is_file()]
    for folder in FOLDERS:
        for here, below, names in os.walk(root / folder, followlinks=False):
            below[:] = [name for name in below if name != "__pycache__" and not name.startswith(".")]
            paths = [Path(here, name) for name in names]
            found += [path.relative_to(root) for path in paths if _has_prose(path) and not path.is_symlink()]
    return sorted(found)


def is_product(path):
    return path.parts[0] in PRODUCT


def area(path):
    """Return `product`, `tests` or `docs`."""
    if is_product(path):
        return "product"
    return "tests" if path.parts[0] in TESTS else "docs"


def _has_prose(path):
    return path.suffix in {".py", ".md"} or path.suffix in WITH_HASH_COMMENTS
