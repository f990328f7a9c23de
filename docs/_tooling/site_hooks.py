"""Hooks of the site's build.

They find the address of the repository and the pages of a folder, and turn links to sources into addresses. They link
public names to the reference.
"""

import ast
import logging
import posixpath
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BRANCH = "main"

# A fenced block, or inline code. Links in them are examples.
CODE = re.compile(
    r"^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence) *$|(?P<tick>`+)(?!`).*?(?<!`)(?P=tick)(?!`)", re.DOTALL | re.MULTILINE
)
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
ADDRESS = re.compile(r"[a-z]+:|#|/")
REST_OF_FOLDER = "/*"

# Inline code that is a name, and elements in which a name stays as it is.
NAME = re.compile(r"<(?P<kept>a|pre|h[1-6]|autoref)\b.*?</(?P=kept)>|<code>(?P<name>[A-Z]\w+)</code>", re.DOTALL)
REFERENCE = ("reference/", "index.md")

# Below the logger of mkdocs: a warning makes a strict build fail.
_log = logging.getLogger("mkdocs.hooks.evcache")


def on_config(config: Any) -> None:
    """Set the address of the repository, and expand the entries `folder/*` of the navigation."""
    config.repo_url = repository(config.repo_url)
    pages = [path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")]
    config.nav = expanded(config.nav, pages)


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return the text of a page with links to sources as addresses in the repository."""
    return with_addresses(markdown, page.file.src_uri, config.repo_url)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Return a page with links to the reference."""
    return html if page.file.src_uri.startswith(REFERENCE) else with_entries(html, public_names())


def public_names(root: Path = ROOT) -> frozenset[str]:
    """Return the names in `__all__` of the package, which is not imported for that."""
    tree = ast.parse((root / "evcache" / "__init__.py").read_text("utf-8"))
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    return frozenset(name for each in lists for name in ast.literal_eval(each))


def with_entries(html: str, names: frozenset[str]) -> str:
    """Return the HTML of a page with the first occurrence of each name linked to its entry in the reference.

    mkdocstrings resolves the element `autoref`, and reports one without an entry as a warning.
    """
    linked = set()

    def link(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in names or name in linked:
            return found[0]
        linked.add(name)
        return f'<autoref identifier="evcache.{name}">{found[0]}</autoref>'

    return NAME.sub(link, html)


def repository(default: str, root: Path = ROOT) -> str:
    """Return the address of the repository in `[project.urls]`, or `default` if the project names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", default)).rstrip("/")


def expanded(nav: list[Any], pages: list[str]) -> list[Any]:
    """Return the navigation with the pages that each entry `folder/*` stands for, by file name, the index first.

    Sections without pages are left out.

    Args:
        nav: Entries as in mkdocs.yml.
        pages: Paths of all pages.
    """
    named = set(_entries(nav))
    pages = sorted(pages, key=lambda page: (posixpath.basename(page) != "index.md", page))

    def expand(entry: Any) -> list[Any]:
        if isinstance(entry, dict):
            ((title, below),) = entry.items()
            if isinstance(below, str):
                return [entry]
            inner = [one for child in below for one in expand(child)]
            return [{title: inner}] if inner else []
        if not entry.endswith(REST_OF_FOLDER):
            return [entry]
        folder = entry.removesuffix("*")
        return [page for page in pages if posixpath.dirname(page) + "/" == folder and page not in named]

    return [one for entry in nav for one in expand(entry)]


def _entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for below in nav.values() if isinstance(nav, dict) else nav:
            yield from _entries(below)


def with_addresses(markdown: str, page: str, repo_url: str, root: Path = ROOT) -> str:
    """Return `markdown` with each relative link that leaves `docs/` as an address in the repository.

    Args:
        markdown: Text of the page.
        page: Path of the page, relative to `docs/`.
        repo_url: Address of the repository.
        root: Folder of the repository. A link to a file that it does not have is reported as a warning.
    """

    def address(link: re.Match[str]) -> str:
        path, mark, anchor = link[0].partition("#")
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
        if ADDRESS.match(link[0]) or target.startswith("docs/"):
            return link[0]
        if not (root / target).exists():
            _log.warning("%s: link to a missing file: %s", page, link[0])
        kind = "tree" if (root / target).is_dir() else "blob"
        return f"{repo_url}/{kind}/{BRANCH}/{target}{mark}{anchor}"

    parts = []
    end = 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(address, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(address, markdown[end:])])
