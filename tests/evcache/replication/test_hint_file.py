"""Hints in a file. Its calls run on a thread, so these tests run on an ordinary event loop, and wait for nothing but it."""

import asyncio
import gc
import logging
import math
import sqlite3
import threading
from pathlib import Path

import pytest

from evcache import InvalidArgument
from evcache.replication.handoff.hints import Hint, Kind
from evcache.replication.handoff.journal import FORMAT, HintFile
from evcache.write_behind.journal import WriteBehindJournal

DELETE, SET, CHECK, TOUCH = Kind


def hint(number=0, kind=SET, **changes):
    """A hint; those with a higher number are younger."""
    data = b"data" if kind is SET else b""
    made = Hint("a", b"k%d" % number, kind, number + 1, data, 7, 60, 1000.0 + number, 1060.5 + number)
    return made._replace(**changes)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "hints")


async def filled(path, *hints):
    """An open file with these hints, written."""
    file = HintFile(path)
    assert await file.open() == []
    for one in hints:
        file.put(one)
    await written(file)
    return file


async def written(file):
    """Wait until everything is in the file."""
    while file._writing is not None:
        await asyncio.wait([file._writing])


def abandon(file):
    """What the end of a process does to its file: the connection is gone, and nothing was closed in order."""
    database, file._database = file._database, None
    file._thread.submit(database.close).result()
    file._thread.shutdown()


async def content(path):
    """What the next process finds."""
    file = HintFile(path)
    try:
        return await file.open()
    finally:
        await file.close()


@pytest.mark.parametrize("how", ["close", "abandon"])
def test_what_was_put_is_there_for_the_next_process(path, how):
    """All of it, the oldest first, whether the last process ended in order or not."""
    hints = [hint(2), hint(0, DELETE), hint(1, CHECK), hint(3, zone="b"), hint(3)]

    async def main():
        file = await filled(path, *hints)
        if how == "close":
            await file.close()
        else:
            abandon(file)
        assert sorted(await content(path)) == sorted(hints)
        assert [one.made_at for one in await content(path)] == sorted(one.made_at for one in hints)

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
def test_every_part_comes_back_as_it_was(path, changes):
    """Versions of 64 bits, which are more than sqlite's numbers hold, and "never", among them."""
    one = hint(**changes)

    async def main():
        await (await filled(path, one)).close()
        (found,) = await content(path)
        assert found == one
        assert type(found.kind) is Kind

    asyncio.run(main())


def test_the_latest_of_a_key_is_kept(path):
    """One for each zone and key, as in the book, and one that was removed is not there."""

    async def main():
        file = await filled(path, hint(0), hint(1), hint(2), hint(2, zone="b"))
        file.put(hint(0, version=99))
        file.remove(hint(1))
        file.remove(hint(2))
        file.put(hint(2, DELETE))
        file.put(hint(3))
        file.remove(hint(3))
        await file.close()
        assert sorted(await content(path)) == sorted([hint(0, version=99), hint(2, DELETE), hint(2, zone="b")])

    asyncio.run(main())


def test_close_writes_what_was_put_just_before(path):
    """Nothing that was noted is lost by closing, and closing again does no harm."""

    async def main():
        file = HintFile(path)
        await file.open()
        for number in range(1000):
            file.put(hint(number))
        await file.close()
        await file.close()
        assert len(await content(path)) == 1000

    asyncio.run(main())


def test_what_comes_after_close_is_dropped(path):
    """A request that ends late is no reason for an error that nobody handles."""
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        file = await filled(path, hint(0))
        await file.close()
        file.put(hint(1))
        file.remove(hint(0))
        await asyncio.sleep(0)
        assert file._writing is None
        assert await content(path) == [hint(0)]

    asyncio.run(main())
    assert problems == []


def test_a_second_opener_is_refused(path):
    """One file for one process: two would deliver, and lose, each other's. When the first lets go, it is free."""

    async def main():
        first = await filled(path, hint(0))
        second = HintFile(path)
        with pytest.raises(InvalidArgument) as caught:
            await second.open()
        await second.close()
        assert caught.value.argument == "hints.path"
        assert f"{path}: another process uses it" in str(caught.value)
        first.put(hint(1))
        await first.close()
        assert len(await content(path)) == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evcache.replication.handoff.journal.BUSY_SECONDS", 0.0)  # it would be waited for in real time
        asyncio.run(main())


def make_text(path):
    path.write_text("this is no database, and long enough for sqlite to see that it is none" * 20)


def run_sql(path, *statements):
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def make_later_format(path):
    asyncio.run(content(str(path)))
    run_sql(path, f"PRAGMA user_version = {FORMAT + 1}")


def make_other_table(path):
    run_sql(path, "CREATE TABLE hints (something TEXT)", "INSERT INTO hints VALUES ('else')")


def make_other_database(path):
    run_sql(path, "CREATE TABLE users (name TEXT)", "INSERT INTO users VALUES ('Ada')")


def make_other_database_with_our_marks(path):
    make_other_database(path)
    run_sql(path, f"PRAGMA user_version = {FORMAT}")


def make_ours_with_a_table_of_others(path):
    asyncio.run(content(str(path)))
    make_other_database(path)


def make_other_kind(path):
    async def main():
        file = WriteBehindJournal(str(path))
        await file.open()
        await file.close()

    asyncio.run(main())


def make_directory(path):
    path.mkdir()


@pytest.mark.parametrize(
    "make",
    [
        make_text,
        make_later_format,
        make_other_table,
        make_other_database,
        make_other_database_with_our_marks,
        make_ours_with_a_table_of_others,
        make_other_kind,
        make_directory,
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, make):
    """Its content can't be read, nor thrown away: it stays as it was, to the byte, and the error names it."""
    path = tmp_path / "file"
    make(path)
    before = None if path.is_dir() else path.read_bytes()

    async def main():
        file = HintFile(str(path))
        with pytest.raises(InvalidArgument) as caught:
            await file.open()
        await file.close()
        assert caught.value.argument == "hints.path"
        assert str(path) in str(caught.value)

    asyncio.run(main())
    assert path.is_dir() or path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def make_noise(path):
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:3000] + b"\xa5" * (size - 3000))


def make_short(path):
    path.write_bytes(path.read_bytes()[:-3000])


@pytest.mark.parametrize(
    "damage",
    [
        make_noise,
        make_short,
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
def test_a_damaged_file_is_refused_as_a_whole(tmp_path, damage):
    """What it says can't be trusted, and a damaged key on the wire could be a command. The error says what is wrong."""
    path = tmp_path / "file"

    async def fill():
        await (await filled(str(path), *[hint(number, data=b"x" * 500) for number in range(50)])).close()

    asyncio.run(fill())
    if isinstance(damage, str):
        run_sql(path, f"UPDATE hints SET {damage} WHERE key = X'6B30'")
    else:
        damage(path)
    before = path.read_bytes()
    with pytest.raises(InvalidArgument, match="damaged|malformed|disk image|valid Kind"):
        asyncio.run(content(str(path)))
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_one(tmp_path):
    """As a program that makes its file before it knows what will be in it leaves one."""
    path = tmp_path / "file"
    path.touch()

    async def main():
        await (await filled(str(path), hint(0))).close()
        assert await content(str(path)) == [hint(0)]

    asyncio.run(main())


def test_a_file_that_cannot_be_made_is_refused(tmp_path):
    """No directory, say."""
    with pytest.raises(InvalidArgument, match="nowhere.*its directory does not exist"):
        asyncio.run(content(str(tmp_path / "nowhere" / "hints")))


@pytest.mark.parametrize("another", [True, False])
def test_a_write_that_fails_is_logged_once_and_tried_again(path, caplog, another):
    """A full disk must not break calls: the hints are in memory still. They are written with the next, or on close."""

    async def main():
        file = await filled(path, hint(0))
        database = file._database
        # A connection that can read only is what a disk without room is like: every write fails, nothing else does.
        file._thread.submit(database.execute, "PRAGMA query_only = ON").result()
        for number in (1, 2, 3):
            file.put(hint(number))
            await written(file)
            assert file.error.startswith(path)
        file.remove(hint(0))
        await written(file)
        file._thread.submit(database.execute, "PRAGMA query_only = OFF").result()
        if another:
            file.put(hint(4))
        await file.close()
        assert file.error is None
        assert await content(path) == [hint(number) for number in ((1, 2, 3, 4) if another else (1, 2, 3))]

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert [
        (record.levelname, record.getMessage()) for record in caplog.records if record.name == "evcache.replication"
    ] == [
        ("ERROR", UNUSABLE + f"{path}: attempt to write a readonly database; hints are kept in memory only"),
        ("INFO", f"hint file in use again: {path}"),
    ]


UNUSABLE = "hint file unusable: "


def damage_under(file):
    """Overwrite the file while it is open, so that the next write meets it."""
    database = file._database
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("PRAGMA cache_size = 0")
    database.execute("PRAGMA shrink_memory")
    make_noise(Path(file.path))


def fail_with_a_bug(file):
    file._save_all = lambda: 1 / 0


@pytest.mark.parametrize(("fail", "says"), [(damage_under, "malformed"), (fail_with_a_bug, "division by zero")])
def test_a_file_that_is_damaged_in_use_is_given_up(path, caplog, fail, says):
    """Its content can't be trusted and cannot recover. The client keeps no more changes for it."""

    async def main():
        file = await filled(path, *[hint(number, data=b"x" * 500) for number in range(100)])
        file._thread.submit(fail, file).result()
        file.put(hint(200))
        await written(file)
        assert says in file.error
        file.put(hint(201))
        file.remove(hint(0))
        assert file._writing is None
        assert (file._unsaved, file._changes) == ({}, {})
        assert not await file.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    (said,) = [record for record in caplog.records if record.name == "evcache.replication"]
    assert said.levelname == "ERROR"
    assert said.getMessage().startswith(UNUSABLE + path)


def test_a_file_that_fails_for_long_is_given_up(path, monkeypatch):
    """Changes that wait for the file must not fill the memory."""
    monkeypatch.setattr("evcache._sqlite_journal.MAX_UNSAVED", 10)

    async def main():
        file = await filled(path, hint(0))
        file._thread.submit(file._database.execute, "PRAGMA query_only = ON").result()
        for number in range(10):
            file.put(hint(number))
            await written(file)
        assert len(file._unsaved) == 10
        file.put(hint(10))
        await written(file)
        assert file._unsaved == {}
        file._thread.submit(file._database.execute, "PRAGMA query_only = OFF").result()
        file.put(hint(11))
        assert file.error is not None
        await file.close()
        assert await content(path) == [hint(0)]

    asyncio.run(main())


def test_an_open_that_fails_after_it_was_cancelled_is_no_lost_error(tmp_path):
    """asyncio reports errors that no code has retrieved."""
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        file = HintFile(str(tmp_path / "nowhere" / "hints"))
        go_on = threading.Event()
        file._thread.submit(go_on.wait, 10)
        opening = asyncio.create_task(file.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()
        await file.close()
        gc.collect()

    asyncio.run(main())
    assert problems == []


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_cancelled_open_leaves_nothing(path, moment):
    """Whoever gives up while the file is opened can close it, and the next process may have it."""

    async def main():
        file = HintFile(path)
        opening = asyncio.create_task(file.open())
        if moment == "during":
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await file.close()
        assert await content(path) == []

    asyncio.run(main())


def test_a_cancelled_close_lets_go_of_the_file(path):
    """Whoever is cancelled while the last hints are written leaves no task, no thread and no lock."""

    async def main():
        file = await filled(path, hint(0))
        file.put(hint(1))
        closing = asyncio.create_task(file.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await written(file)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert hint(0) in await content(path)

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_close_hands_over_what_is_not_written_yet(path, fails):
    """What came while others were written, and what could not be written the first time, as on a disk that was full."""

    async def main():
        file = await filled(path, hint(0))
        go_on = threading.Event()
        if fails:
            file._thread.submit(file._database.execute, "PRAGMA query_only = ON").result()
        file._thread.submit(go_on.wait, 10)
        file.put(hint(1))
        await asyncio.sleep(0)  # now the thread has it, after the wait
        if fails:
            file._thread.submit(file._database.execute, "PRAGMA query_only = OFF")
        file.put(hint(2))
        file.remove(hint(0))
        closing = asyncio.create_task(file.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await written(file)
        assert await content(path) == [hint(1), hint(2)]
        assert await file.close()

    asyncio.run(main())


def test_what_the_thread_was_given_is_written_whatever_becomes_of_the_task(path):
    """As when the loop ends, and cancels all tasks before anybody closes the file."""

    async def main():
        file = await filled(path, hint(0))
        go_on = threading.Event()
        file._thread.submit(go_on.wait, 10)
        file.put(hint(1))
        await asyncio.sleep(0)  # now the thread has it, after the wait
        file._writing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await file.close()
        assert await content(path) == [hint(0), hint(1)]

    asyncio.run(main())
