"""docs/consistency-table.md holds, row by row: its tables are the data of these tests."""

import re
from itertools import product
from pathlib import Path

import pytest

from evcache import CacheUnavailable, Consistency, ConsistencyError
from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.virtual_time import run

PAGE = Path(__file__).parents[3] / "docs" / "consistency-table.md"
POLICIES = [member.name for member in Consistency]


def table(section):
    """{(zones, down): {policy: outcome}} of the table under a heading."""
    text = PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    head, _, *rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert head == ["zones", "down", *POLICIES]
    return {(int(zones), int(down)): dict(zip(POLICIES, cells, strict=True)) for zones, down, *cells in rows}


READS, WRITES = table("Reads"), table("Writes")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (READS, {"ok", "miss", "ConsistencyError", "CacheUnavailable"}),
        (WRITES, {"true", "false", "CacheUnavailable"}),
    ],
)
def test_the_page_is_complete(rows, words):
    """One to five zones, none to all of them down, and no word that is not explained."""
    assert list(rows) == [(zones, down) for zones in range(1, 6) for down in range(zones + 1)]
    assert {outcome for row in rows.values() for outcome in row.values()} == words


def test_the_numbers_of_the_page_are_those_of_the_policies():
    """What the page says in words about `required` fits its tables: true exactly when enough zones are up."""
    for (zones, down), row in WRITES.items():
        for policy, outcome in row.items():
            enough = zones - down >= Consistency[policy].required(zones)
            assert (outcome == "true") is enough
    assert re.search(r"`n // 2 \+ 1` at `QUORUM`", PAGE.read_text("utf-8"))


async def outcome_of(call, shown):
    try:
        return shown(await call)
    except (CacheUnavailable, ConsistencyError) as error:
        return type(error).__name__


# Each row runs twice. First the zones die right before the call, the local one last. Then the client knows that the zones
# are down, the local one first.
STATES = {"just died": False, "known to be down": True}


async def wrong_outcomes(row, operations, expected):
    """Where what happens is not what is expected: {(operation, policy, state): (what happens, what should)}."""
    zones, down = row
    wrong = {}
    for (name, (call, shown)), policy, (state, known) in product(operations.items(), Consistency, STATES.items()):
        kit = MemoryZones(zones)
        cache = await kit.ready()
        assert await cache.set("k", "value", consistency="all")
        await kit.kill(*(kit.names if known else kit.names[::-1])[:down])
        if known:
            await cache.get_many(["other"], consistency="all", errors="miss")
            await pass_time(0.01)
        outcome = await outcome_of(call(cache, policy), shown)
        await kit.close_clients()
        if outcome != expected(name, policy.name):
            wrong[name, policy.name, state] = outcome, expected(name, policy.name)
    return wrong


def truth(result):
    """ "true" or "false", of a result or of the only one in a mapping."""
    if isinstance(result, dict):
        (result,) = result.values()
    return str(bool(result)).lower()


def hit(value):
    """ "ok" for a value that was found, "miss" for a default."""
    return "ok" if value in ("value", {"k": "value"}) or getattr(value, "value", None) == "value" else "miss"


READING = {
    "get": (lambda cache, policy: cache.get("k", "default", consistency=policy), hit),
    "get_item": (lambda cache, policy: cache.get_item("k", consistency=policy), hit),
    "get_many": (lambda cache, policy: cache.get_many(["k"], consistency=policy), hit),
}
WRITING = {
    "set": (lambda cache, policy: cache.set("k", 1, consistency=policy), truth),
    "delete": (lambda cache, policy: cache.delete("k", consistency=policy), truth),
    "touch": (lambda cache, policy: cache.touch("k", 5, consistency=policy), truth),
    "set_many": (lambda cache, policy: cache.set_many({"k": 1}, consistency=policy), truth),
    "delete_many": (lambda cache, policy: cache.delete_many(["k"], consistency=policy), truth),
}
DECIDING = {
    "add": (lambda cache, policy: cache.add("new", 1, consistency=policy), truth),
    "replace": (lambda cache, policy: cache.replace("k", 1, consistency=policy), truth),
    "append": (lambda cache, policy: cache.append("k", "1", consistency=policy), truth),
    "incr": (lambda cache, policy: cache.incr("n", initial=1, consistency=policy), truth),
}

rows = pytest.mark.parametrize("row", READS, ids=lambda row: f"{row[1]} of {row[0]} down")


@rows
def test_reads(row):
    """A value that is in all zones, read with some of them down."""
    assert run(wrong_outcomes(row, READING, lambda _, policy: READS[row][policy])) == {}


@rows
def test_writes_to_every_zone(row):
    """A write to every zone, some of which are down."""
    assert run(wrong_outcomes(row, WRITING, lambda _, policy: WRITES[row][policy])) == {}


@rows
def test_writes_that_one_zone_decides(row):
    """As the page says below the table: nothing can be decided when every zone is down, and counters tell what was decided."""
    zones, down = row

    def expected(operation, policy):
        if zones == down:
            return "CacheUnavailable"
        return "true" if operation == "incr" else WRITES[row][policy]

    assert run(wrong_outcomes(row, DECIDING, expected)) == {}
