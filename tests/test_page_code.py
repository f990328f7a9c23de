"""The code of README and docs/ runs, and prints what its comments say."""

import asyncio
import contextlib
import io
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import evcache
import evcache.testing
import evcache.zones
from evcache import EVCache
from evcache.testing import LocalZones
from tests.support.page_code import (
    ZONES,
    Database,
    files_of,
    printed_by,
    python_blocks,
    run_files,
    said_by,
    syntax_errors_of,
)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

# What the first exports is compared in tests/test_docs.py, in a process of its own. The second runs on a server with TLS, in
# integration/test_tls_recipe.py.
RUN_ELSEWHERE = {DOCS / "telemetry.md", DOCS / "operations" / "tls.md"}


def public(module):
    return {name: getattr(module, name) for name in module.__all__}


async def my_service(zones):
    async with EVCache("sessions", zones, local_zone=next(iter(zones)), read_timeout=1) as cache:
        await cache.get("user:42")


# Pages whose code is in fragments find these names.
GIVEN = {
    "configuration.md": public(evcache),
    "discovery.md": {**public(evcache), **public(evcache.zones), "ssl": ssl, "AsyncIterator": AsyncIterator},
    "testing.md": {
        **public(evcache),
        **public(evcache.testing),
        "asyncio": asyncio,
        "pytest": pytest,
        "my_service": my_service,
        "node": "127.0.0.1:11211",
    },
}


def path_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def readme_says():
    """Run the README's code from top to bottom, and return the lines that it prints."""
    blocks = python_blocks(ROOT / "README.md")
    assert len(blocks) == 4
    with LocalZones(ZONES, backend="embedded").running() as zones:
        names = {}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(blocks[0], "README.md", "exec"), {"__name__": "__main__"})  # runs as it is pasted
            for block in blocks[1:]:
                exec(compile(block, "README.md", "exec"), names)

            async def use():
                async with EVCache("sessions", zones.zones, local_zone="eu-1a") as cache:
                    await names["more"](cache)
                    await names["users"](cache, Database())

            asyncio.run(use())
        return printed.getvalue().splitlines()


def test_the_readmes_code_runs_and_prints_what_it_says(readme_says):
    said = said_by(python_blocks(ROOT / "README.md"))
    assert len(said) == 5
    assert readme_says == said


def with_code(blocks_of):
    return [page for page in PAGES if page not in RUN_ELSEWHERE and blocks_of(page)]


@pytest.mark.parametrize("page", with_code(python_blocks), ids=path_of)
def test_the_code_of_a_page_runs_and_prints_what_its_comments_say(page):
    blocks = python_blocks(page)
    assert printed_by(blocks, page.name, GIVEN.get(page.relative_to(DOCS).as_posix())) == said_by(blocks)


@pytest.mark.parametrize("page", with_code(files_of), ids=path_of)
def test_the_files_of_a_page_run_and_print_what_their_comments_say(page, tmp_path):
    files = files_of(page)
    printed = run_files(files, tmp_path)
    assert printed
    for name, lines in printed.items():
        if name == "tests":
            tests = "".join(code for file, code in files.items() if file.startswith("test_"))
            assert re.search(r"(\d+) passed", lines[-1]), lines
            assert int(re.search(r"(\d+) passed", lines[-1])[1]) >= len(re.findall(r"^def test_", tests, re.MULTILINE))
        else:
            assert lines == said_by([files[name]])


def has_session(page):
    return "`python -m asyncio`" in page.read_text("utf-8")


@pytest.mark.parametrize("page", list(filter(has_session, PAGES)), ids=path_of)
def test_the_session_of_a_page_can_be_pasted_into_the_interpreter(page):
    sessions = [block for block in python_blocks(page) if "def test_" not in block]  # a test is a part of a file
    assert sessions
    assert [error for block in sessions for error in syntax_errors_of(block)] == []


def test_pages_with_code_are_found():
    assert len(with_code(python_blocks)) > 10
    assert len(with_code(files_of)) > 2
