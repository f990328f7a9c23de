"""Hooks of the site's build: the address of the repository, the pages of a folder in the navigation, links to sources."""

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
