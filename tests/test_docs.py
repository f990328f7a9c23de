"""What the docs say is so: links lead somewhere, and tables are the code's own."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evcache import LoadPolicy, NearCache, Telemetry
from evcache.compatibility import features_table
from evcache.consistency import Consistency
from evcache.telemetry.metric_table import DURATION, METRICS
from tests.support.page_code import python_blocks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def path_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_links_lead_to_files_that_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_a_list_in_a_list_is_indented_by_four_spaces(page):
    """The site shows one with fewer as a part of the outer list."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^ {1,3}(?:[-*+]|\d+\.) .*", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=path_of)
def test_a_block_in_a_list_is_indented_by_four_spaces(page):
    """The site ends the list at a block with fewer. Behind a block, it shows the next item as text unless an empty line is between."""
    text = page.read_text("utf-8")
    assert re.findall(r"^ {1,3}```.*", text, re.MULTILINE) == []
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\n\n {1,3}\S.*", text) == []
    assert re.findall(r"\n\n {4}\w[^\n]*\n(?:\d+\.|[-*+]) .*", text) == []


def test_the_table_of_capabilities_is_the_codes_own():
    assert features_table() in (ROOT / "docs" / "capabilities.md").read_text("utf-8")


def as_written(default):
    """A default as the pages write it."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return str(default)
    return f"{default // 2**20} MiB" if default > 2**20 else f"{default:,.10g}"


@pytest.mark.parametrize(
    ("settings", "page"), [(LoadPolicy, "loading.md"), (NearCache, "near-cache.md"), (Telemetry, "telemetry.md")]
)
def test_every_setting_has_a_row_that_says_its_default(settings, page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    for field in dataclasses.fields(settings):
        row = re.search(rf"^\| `{field.name}` \| `?([^|`]*)`? \|", text, re.MULTILINE)
        assert row is not None, field.name
        assert re.match(rf"{re.escape(as_written(field.default))}(?![.,]?\d)", row[1]), field.name


def test_the_table_of_levels_is_what_the_code_asks_for():
    text = (ROOT / "docs" / "consistency.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \| (\d) \| (\d) \| (\d) \| (\d) \|$", text, re.MULTILINE)
    assert {name for name, *_ in rows} == set(Consistency.__members__)
    for name, *numbers in rows:
        assert [Consistency[name].required(zones) for zones in (1, 2, 3, 5)] == [int(number) for number in numbers]


TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text("utf-8")

# What runs the code of the page: in a process of its own, since an SDK that is installed stays.
HARNESS = """
import ast, asyncio, sys
from evcache import EVCache
from evcache.testing import LocalZones

async def main():
    async with LocalZones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}, backend="embedded") as zones:
        names = {"ZONES": zones.zones, "EVCache": EVCache}
        for block in sys.stdin.read().split("---"):
            result = eval(compile(block, "telemetry.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if asyncio.iscoroutine(result):
                await result

asyncio.run(main())
"""


def test_the_code_of_the_page_on_telemetry_exports_what_it_says():
    """To the console, as it is set up there: the calls under the request, and the metrics at the end of the process."""
    blocks = python_blocks(ROOT / "docs" / "telemetry.md")
    done = subprocess.run(
        [sys.executable, "-c", HARNESS],
        input="---".join(blocks),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    exported, text = [], done.stdout.lstrip()
    while text:
        found, end = json.JSONDecoder().raw_decode(text)
        exported.append(found)
        text = text[end:].lstrip()
    spans = {one["name"]: one for one in exported if "context" in one}
    assert spans.keys() == {"GET /users/42", "set sessions", "get sessions"}
    request = spans["GET /users/42"]["context"]
    for name in ("set sessions", "get sessions"):
        assert (spans[name]["parent_id"], spans[name]["context"]["trace_id"]) == (request["span_id"], request["trace_id"])
    metrics = [one for one in exported if "resource_metrics" in one]
    names = [
        metric["name"]
        for one in metrics
        for scope in one["resource_metrics"][0]["scope_metrics"]
        for metric in scope["metrics"]
    ]
    assert DURATION in names


def rows_of(title):
    """The rows of the first table under a heading: their cells as written."""
    text = TELEMETRY.partition(f"\n{title}\n")[2]
    table = text[text.index("\n| ") :].partition("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def test_the_table_of_metrics_is_the_codes_own():
    """Every metric has a row, and every row a metric: name, type, unit, attributes and meaning."""
    duration, *rows = rows_of("## Metrics")
    assert duration[:3] == [f"`{DURATION}`", "histogram", "`s`"]
    assert rows == [
        [
            f"`{metric.name}`",
            metric.kind,
            f"`{metric.unit}`",
            ", ".join(f"`{name}`" for name in metric.attributes),
            metric.description,
        ]
        for metric in METRICS
    ]


def test_the_page_on_telemetry_names_what_spans_and_events_have():
    """Every attribute and event that the code writes is in a table, and what is in the tables is written by the code."""
    sources = [path for path in (ROOT / "evcache" / "telemetry").glob("*.py") if path.stem != "metric_table"]
    written = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"(evcache|db|server|error)\.[a-z_.]+", node.value)
        and node.value != "evcache.telemetry"  # the logger
    }
    text = TELEMETRY.partition("## Traces")[2].partition("## Metrics")[0]
    documented = set(re.findall(r"`((?:evcache|db|server|error)\.[a-z_.]+)`", text))
    assert documented == written
    assert len(documented) > 25


PAGES_OF_FAILURES = {"failure-modes.md": 20, "discovery.md": 40}


def tables_with_tests(page):
    """Return the rows of each table whose last column is `Test`."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^\|.* Test \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)


TESTS_OF_FAILURES = [
    found
    for page in PAGES_OF_FAILURES
    for table in tables_with_tests(page)
    for found in re.findall(r"\| `(\S+)::(\w+)` \|$", table, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "least"), PAGES_OF_FAILURES.items())
def test_every_failure_mode_names_a_test(page, least):
    rows = [row for table in tables_with_tests(page) for row in table.splitlines()]
    assert len(rows) > least
    assert [row for row in rows if not re.search(r"\| `\S+::\w+` \|$", row)] == []


@pytest.mark.parametrize(("file", "test"), TESTS_OF_FAILURES)
def test_the_tests_of_failure_modes_exist(file, test):
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
