"""Contract of every journal: what its file holds, and which files it refuses.

A journal works on a thread, so these tests run on an ordinary event loop, and wait for the journal only.
"""

import asyncio

import pytest

from evcache import InvalidArgument
from tests.support.journals import Bench, OfHints, OfWriteBehind, abandon, noise
from tests.support.unusable_files import run_sql


@pytest.fixture(params=[OfHints, OfWriteBehind])
def bench(request, tmp_path):
    return Bench(request.param, tmp_path / "file")


# What the file holds.


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_records_are_there_for_the_next_process_the_oldest_first(bench, end):
    records = [bench.record(number) for number in (2, 0, 1, 3)]

    async def main():
        file = await bench.filled(*records)
        if end == "close":
            assert await file.close()
        else:
            abandon(file)
        assert await bench.content() == sorted(records)

    asyncio.run(main())


def test_the_latest_record_of_a_place_is_kept_and_a_removed_one_is_not(bench):
    async def main():
        file = await bench.filled(*map(bench.record, range(3)))
        bench.put(file, bench.record(0, b"new"))
        bench.remove(file, bench.record(1))
        bench.remove(file, bench.record(2))
        bench.put(file, bench.record(2, b"again"))
        bench.put(file, bench.record(3))
        bench.remove(file, bench.record(3))
        assert await file.close()
        assert await bench.content() == [bench.record(0, b"new"), bench.record(2, b"again")]

    asyncio.run(main())


def test_close_writes_the_changes_just_before_it(bench):
    async def main():
        file = bench.new()
        await file.open()
        for number in range(1000):
            bench.put(file, bench.record(number))
        assert await file.close()
        assert await file.close()
        assert len(await bench.content()) == 1000

    asyncio.run(main())


def test_changes_after_close_have_no_effect(bench):
    """A request that ends late is no reason for an unhandled error."""
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        file = await bench.filled(bench.record(0))
        await file.close()
        bench.put(file, bench.record(1))
        bench.remove(file, bench.record(0))
        assert await file.flush()
        assert file._writing is None
        assert await bench.content() == [bench.record(0)]

    asyncio.run(main())
    assert problems == []


def test_an_empty_file_is_a_new_one(bench):
    """Some programs create a file before they know its content."""
    bench.path.touch()

    async def main():
        await (await bench.filled(bench.record(0))).close()
        assert await bench.content() == [bench.record(0)]

    asyncio.run(main())


# Files that are refused.


def test_a_second_opener_is_refused_until_the_first_closes(bench, monkeypatch):
    """Two processes with one file would each deliver, and lose, the records of the other."""
    monkeypatch.setattr(bench.kind.module, "BUSY_SECONDS", 0.0)  # the journal waits in real time

    async def main():
        first = await bench.filled(bench.record(0))
        second = bench.new()
        with pytest.raises(InvalidArgument) as caught:
            await second.open()
        await second.close()
        assert caught.value.argument == bench.kind.file.argument
        assert f"{bench.path}: another process uses it" in str(caught.value)
        bench.put(first, bench.record(1))
        await first.close()
        assert len(await bench.content()) == 2

    asyncio.run(main())


def text(bench):
    bench.path.write_text("this is no database, and long enough for SQLite to see that it is none" * 20)


def later_format(bench):
    asyncio.run(bench.content())
    run_sql(bench.path, f"PRAGMA user_version = {bench.kind.module.FORMAT + 1}")


def other_table(bench):
    table = bench.kind.file.table.name
    run_sql(bench.path, f"CREATE TABLE {table} (something TEXT)", f"INSERT INTO {table} VALUES ('else')")


def other_database(bench):
    run_sql(bench.path, "CREATE TABLE users (name TEXT)", "INSERT INTO users VALUES ('Ada')")


def other_database_with_our_marks(bench):
    other_database(bench)
    table = bench.kind.file.table
    run_sql(bench.path, f"PRAGMA application_id = {table.application}", f"PRAGMA user_version = {table.format}")


def ours_with_another_table(bench):
    asyncio.run(bench.content())
    other_database(bench)


def other_journal(bench):
    other = OfHints if bench.kind is OfWriteBehind else OfWriteBehind
    asyncio.run(Bench(other, bench.path).content())


def directory(bench):
    bench.path.mkdir()


@pytest.mark.parametrize(
    "make",
    [
        text,
        later_format,
        other_table,
        other_database,
        other_database_with_our_marks,
        ours_with_another_table,
        other_journal,
        directory,
    ],
)
def test_a_file_of_another_kind_is_refused_and_stays_unchanged(bench, make):
    make(bench)
    before = None if bench.path.is_dir() else bench.path.read_bytes()

    async def main():
        with pytest.raises(InvalidArgument) as caught:
            await bench.content()
        assert caught.value.argument == bench.kind.file.argument
        assert str(bench.path) in str(caught.value)

    asyncio.run(main())
    assert bench.path.is_dir() or bench.path.read_bytes() == before
    assert list(bench.path.parent.iterdir()) == [bench.path]


def truncation(path):
    path.write_bytes(path.read_bytes()[:-3000])


@pytest.mark.parametrize("damage", [noise, truncation])
def test_a_damaged_file_is_refused_and_stays_unchanged(bench, damage):
    async def fill():
        await (await bench.filled(*(bench.record(number, b"x" * 500) for number in range(50)))).close()

    asyncio.run(fill())
    damage(bench.path)
    before = bench.path.read_bytes()
    with pytest.raises(InvalidArgument, match="malformed|disk image|damaged record"):
        asyncio.run(bench.content())
    assert bench.path.read_bytes() == before


def test_a_file_without_its_directory_is_refused(bench):
    bench.path = bench.path.parent / "nowhere" / "file"
    with pytest.raises(InvalidArgument, match="nowhere.*its directory does not exist"):
        asyncio.run(bench.content())
