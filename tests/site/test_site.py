"""The site of the documentation is built without a warning and without a request, and has an entry for each public name."""

import html
import inspect
import os
import re
import subprocess
import sys
import zlib

import pytest

from docs._tooling.site_hooks import ROOT
from evcache import EVCache
from tests.support.public_names import PUBLIC, value_of

# The build in a process without a network. A request would make it depend on other hosts.
BUILD = """
import sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo"}:
        raise RuntimeError(f"the build makes a request: {event} {arguments}")

sys.addaudithook(refuse)
from mkdocs.__main__ import cli
cli()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make docs` does. Without mkdocs, which requirements-dev.lock has, this fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"^(?:WARNING|ERROR) .*", done.stderr, re.MULTILINE)
    return folder


@pytest.fixture(scope="module")
def entries(site):
    """Return the names of the reference, as other projects look them up, with the page and anchor of each."""
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    rows = (line.split(" ") for line in inventory.splitlines())
    return {name: address.replace("$", name) for name, _, _, address, *_ in rows}


@pytest.fixture(scope="module")
def texts(site):
    """Return the HTML of each page, by its path."""
    return {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in site.rglob("*.html")}


def test_site_has_each_page_of_the_docs(texts):
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    built = {path.removesuffix("index.html").rstrip("/") for path in texts}
    assert {page.removesuffix("index").rstrip("/") for page in pages} <= built


def test_each_public_name_has_an_entry(entries, texts):
    assert [name for name in PUBLIC if name not in entries] == []
    for name in PUBLIC:
        page, _, anchor = entries[name].partition("#")
        assert f'id="{anchor}"' in texts[f"{page}index.html"], name


def test_each_public_member_of_a_class_has_an_entry(entries):
    missing = []
    for name in PUBLIC:
        value = value_of(name)
        if inspect.isclass(value):
            members = [member for member in [*vars(value), *fields_of(value)] if not member.startswith("_")]
            missing += [
                f"{name}.{member}"
                for member in members
                if f"{value.__module__}.{value.__qualname__}.{member}" not in entries
            ]
    assert missing == []


def fields_of(kind):
    """Return the annotated fields of a class, which have no attribute without a default."""
    return [name for name, annotation in vars(kind).get("__annotations__", {}).items() if "ClassVar" not in str(annotation)]


def test_pages_link_public_names_to_their_entries(texts):
    entry = 'href="../reference/api/errors/#evcache.CacheUnavailable"><code>CacheUnavailable</code>'
    assert texts["errors/index.html"].count(entry) == 1
    assert not [path for path, text in texts.items() if "<autoref" in text]


def test_operations_are_shown_as_async_functions(texts):
    page = texts["reference/api/client/index.html"]
    headings = dict(re.findall(r'id="evcache\.EVCache\.(\w+)" class="doc doc-heading">(.*?)</h\d>', page, re.DOTALL))
    operations = [name for name, value in vars(EVCache).items() if name in headings and inspect.isfunction(value)]
    marked = {name for name in operations if "doc-label-async" in headings[name]}
    assert marked == set(operations) - {"cached", "confirm_topology", "stats"}
    assert "Coroutine" not in page


def test_defaults_are_shown_as_values(texts):
    """A reader of the reference has no use for the name of a constant."""
    signatures = {
        path: html.unescape(re.sub(r"<[^>]+>", "", text)) for path, text in texts.items() if path.startswith("reference/")
    }
    assert "read_timeout: float = 0.1," in signatures["reference/api/client/index.html"]
    for path, text in signatures.items():
        assert re.findall(r"\w+: [^=\n]+ = (?:[a-z]\w*\.)?[A-Z][A-Z_]+\b", text) == [], path
        assert "field(" not in text, path


def test_pages_load_nothing_from_other_hosts(texts):
    """Scripts, styles, fonts and images are files of the site. Links are followed by the reader only."""
    for path, text in texts.items():
        loaded = re.findall(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]+)"', text)
        loaded += re.findall(r'<link\b(?![^>]*\brel="(?:canonical|prev|next)")[^>]*\bhref="([^"]+)"', text)
        assert loaded, path
        assert [address for address in loaded if re.match(r"(?:https?:)?//", address)] == [], path
        assert 'data-md-component="source"' not in text  # it asks GitHub


def test_links_to_sources_lead_to_files(texts):
    found = {link for text in texts.values() for link in re.findall(r'href="https://[^"]+/(blob|tree)/main/([^"#]+)', text)}
    assert len(found) > 10
    for kind, path in found:
        target = ROOT / path
        assert target.is_dir() if kind == "tree" else target.is_file(), path


def test_no_markdown_is_left_in_the_text_of_a_page(texts):
    """Builders differ: a list without an empty line before it is one for a repository's file view, and text for the site."""
    for path, text in texts.items():
        article = re.sub(
            r"<pre.*?</pre>|<code.*?</code>",
            "CODE",
            "".join(re.findall(r"<article.*</article>", text, re.DOTALL)),
            flags=re.DOTALL,
        )
        for passage in re.findall(r"<(?:p|li|td)\b[^>]*>(.*?)</(?:p|li|td)>", article, re.DOTALL):
            plain = html.unescape(re.sub(r"<[^>]+>", "", passage))
            assert not re.search(
                r"^ *(?:[-*] |#+ |\|.*\|)|```|\]\(|:::|^ *(?:Args|Returns|Raises):\n", plain, re.MULTILINE
            ), (path, plain)
