"""Rows of hints. The contract of journals is in `tests/evcache/test_sqlite_journal.py`."""

import asyncio
import math

import pytest

from evcache import InvalidArgument
from evcache.replication.handoff.hints import Kind
from tests.support.journals import Bench, OfHints
from tests.support.unusable_files import run_sql


def hint(number=0, kind=Kind.SET, **changes):
    """Return a hint. A higher number is younger."""
    return OfHints.record(number, b"data" if kind is Kind.SET else b"")._replace(kind=kind, **changes)


@pytest.fixture
def bench(tmp_path):
    return Bench(OfHints, tmp_path / "hints")


def test_hints_of_all_kinds_and_zones_come_back_the_oldest_first(bench):
    hints = [hint(2), hint(0, Kind.DELETE), hint(1, Kind.CHECK), hint(3, zone="b"), hint(4, Kind.TOUCH)]

    async def main():
        await (await bench.filled(*hints)).close()
        assert await bench.content() == sorted(hints, key=lambda one: one.made_at)

    asyncio.run(main())


def test_one_hint_is_kept_for_each_zone_and_key(bench):
    async def main():
        file = await bench.filled(hint(0), hint(0, zone="b"))
        file.put(hint(0, Kind.DELETE, version=99))
        await file.close()
        assert sorted(await bench.content()) == sorted([hint(0, Kind.DELETE, version=99), hint(0, zone="b")])

    asyncio.run(main())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2**64 - 1},
        {"version": 2**63},
        {"version": 0},
        {"expires_at": math.inf},
        {"flags": 2**32 - 1},
        {"ttl": 2**31 - 1},
        {"ttl": 0},
        {"key": bytes(range(33, 256))},
        {"key": b"\x80\xff"},
        {"data": b""},
        {"data": bytes(range(256)) * 5000},
        {"zone": "eu-1ä"},
        {"made_at": 1_800_000_000.123456},
    ],
)
def test_each_field_comes_back_unchanged(bench, changes):
    """A version has 64 bits, which are more than SQLite's numbers hold."""
    one = hint(**changes)

    async def main():
        await (await bench.filled(one)).close()
        (found,) = await bench.content()
        assert found == one
        assert type(found.kind) is Kind

    asyncio.run(main())


@pytest.mark.parametrize(
    "damage",
    [
        "kind = 9",
        "kind = 'x'",
        "zone = X'61'",
        "key = 'text'",
        "key = X''",
        "key = X'0D0A'",
        "key = X'6120'",
        "key = X'00'",
        "key = zeroblob(251)",
        "version = X'01'",
        "version = 5",
        "data = 'text'",
        "flags = -1",
        "flags = 4294967296",
        "flags = 'x'",
        "ttl = 'x'",
        "ttl = 1.5",
        "made_at = 'x'",
        "expires_at = X'00'",
    ],
)
def test_a_file_with_a_damaged_hint_is_refused_and_stays_unchanged(bench, damage):
    """The client sends the key unchanged, so a damaged key could inject a command."""

    async def fill():
        await (await bench.filled(*map(hint, range(50)))).close()

    asyncio.run(fill())
    run_sql(bench.path, f"UPDATE hints SET {damage} WHERE key = X'6B30'")
    before = bench.path.read_bytes()
    with pytest.raises(InvalidArgument, match="damaged record: .*(no hint|valid Kind)"):
        asyncio.run(bench.content())
    assert bench.path.read_bytes() == before
