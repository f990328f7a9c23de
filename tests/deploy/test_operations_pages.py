"""The pages for operators: their code runs, and their links lead to files."""

import re
import ssl

import certifi
import pytest

from tests.deploy.pages import OPERATIONS, blocks_of, run_page, said_by

PAGES = sorted(OPERATIONS.glob("*.md"))
WITH_CODE = [page for page in PAGES if blocks_of(page)]


def test_pages_are_found():
    assert {"sizing", "compose", "kubernetes"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_of_a_page_runs_and_prints_what_its_comments_say(page, monkeypatch):
    monkeypatch.chdir(OPERATIONS.parents[1])  # paths on the pages begin at the checkout
    # The context of the page about TLS needs any authority. integration/test_tls_recipe.py runs that page on real servers.
    system = ssl.get_default_verify_paths().cafile or certifi.where()
    _, printed = run_page(page, [("/etc/evcache/tls/ca.crt", system)])
    assert printed == said_by(blocks_of(page))


def headings(page):
    """Return the anchors of a page."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path = (page.parent / target) if target else page
        assert path.exists(), target
        assert not anchor or path.suffix != ".md" or anchor in headings(path), f"{target}#{anchor}"
