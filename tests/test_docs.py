"""What the docs say is so: the README's code runs, its links lead somewhere, its tables are the code's own."""

import asyncio
import contextlib
import io
import re
from pathlib import Path

import pytest

from evcache import EVCache
from evcache.consistency import Consistency
from evcache.testing import LocalZones
from zones.capabilities import features_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def readme_says():
    """Run the README's code from top to bottom, on embedded servers in place of its addresses; what it prints."""
    blocks = python_blocks(ROOT / "README.md")
    assert len(blocks) == 3
    with LocalZones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}, backend="embedded").running() as zones:
        names = {}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for block in blocks:
                for number, (address,) in enumerate(zones.zones.values(), 1):
                    block = block.replace(f"10.0.{number}.4:11211", address)
                exec(compile(block, "README.md", "exec"), names)

            async def use():
                async with EVCache("sessions", zones.zones, local_zone="eu-1a") as cache:
                    await names["more"](cache)

            asyncio.run(use())
        return printed.getvalue().splitlines()


def test_the_readmes_code_runs_and_prints_what_it_says(readme_says):
    assert readme_says == ["{'name': 'Ada'} {'name': 'Ada'}", "{'a': 1, 'b': 2.5, 'c': [True, None]}"]


def test_the_readmes_comments_are_true(readme_says):
    """The comment behind a print is what it prints."""
    said = re.findall(r"print\(await .*\) +# (\{.*\})$", python_blocks(ROOT / "README.md")[1], re.MULTILINE)
    assert said == [readme_says[1]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_capabilities_is_the_codes_own():
    assert features_table() in (ROOT / "docs" / "capabilities.md").read_text("utf-8")


def test_the_table_of_levels_is_what_the_code_asks_for():
    text = (ROOT / "docs" / "consistency.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| (\d) \| (\d) \| (\d) \| (\d) \|$", text, re.MULTILINE)
    assert {name for name, *_ in rows} == set(Consistency.__members__)
    for name, *numbers in rows:
        assert [Consistency[name].required(zones) for zones in (1, 2, 3, 5)] == [int(number) for number in numbers]


TESTS_OF_FAILURES = re.findall(
    r"^\|.*\| `(\S+)::(\w+)` \|$", (ROOT / "docs" / "failure-modes.md").read_text("utf-8"), re.MULTILINE
)


def test_every_failure_mode_names_a_test():
    rows = (ROOT / "docs" / "failure-modes.md").read_text("utf-8").partition("\n## ")[0].count("\n| ") - 2  # less the head
    assert rows == len(TESTS_OF_FAILURES) > 20


@pytest.mark.parametrize(("file", "test"), TESTS_OF_FAILURES)
def test_the_tests_of_failure_modes_exist(file, test):
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
