"""Contract of every journal: failures of its file while it is in use, and cancelled calls."""

import asyncio
import gc
import logging
import threading
from pathlib import Path

import pytest

from tests.support.journals import Bench, OfHints, OfWriteBehind, allow_writes, fail_writes, idle, noise


@pytest.fixture(params=[OfHints, OfWriteBehind])
def bench(request, tmp_path):
    return Bench(request.param, tmp_path / "file")


# Failures in use.


@pytest.mark.parametrize("another", [True, False])
def test_a_failed_write_is_logged_once_and_tried_again_with_the_next_change_or_close(bench, caplog, another):
    async def main():
        file = await bench.filled(bench.record(0))
        fail_writes(file)
        for number in (1, 2, 3):
            bench.put(file, bench.record(number))
            assert not await file.flush()
            assert file.error.startswith(str(bench.path))
        bench.remove(file, bench.record(0))
        assert not await file.flush()
        allow_writes(file).result()
        if another:
            bench.put(file, bench.record(4))
        assert await file.close()
        assert file.error is None
        assert await bench.content() == [bench.record(number) for number in ((1, 2, 3, 4) if another else (1, 2, 3))]

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    file = bench.kind.file
    cause = f"{bench.path}: attempt to write a readonly database"
    assert [(record.levelname, record.getMessage()) for record in caplog.records if record.name == bench.kind.logger] == [
        ("ERROR", f"{file.kind} unusable: {cause}; {file.content} are kept in memory only"),
        ("INFO", f"{file.kind} in use again: {bench.path}"),
    ]


def damage_under(file):
    """Overwrite the file while it is open, so that the next write meets the damage."""
    database = file._database
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("PRAGMA cache_size = 0")
    database.execute("PRAGMA shrink_memory")
    noise(Path(file.path))


def raise_a_bug(file):
    file._save_all = lambda: 1 / 0


@pytest.mark.parametrize(("fail", "says"), [(damage_under, "malformed"), (raise_a_bug, "division by zero")])
def test_a_file_damaged_in_use_is_given_up_and_keeps_no_more_changes(bench, caplog, fail, says):
    async def main():
        file = await bench.filled(*(bench.record(number, b"x" * 500) for number in range(100)))
        file._thread.submit(fail, file).result()
        bench.put(file, bench.record(200))
        await idle(file)
        assert says in file.error
        bench.put(file, bench.record(201))
        bench.remove(file, bench.record(0))
        assert file._writing is None
        assert (file._unsaved, file._changes) == ({}, {})
        assert not await file.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    (line,) = [record for record in caplog.records if record.name == bench.kind.logger]
    assert line.levelname == "ERROR"
    assert line.getMessage().startswith(f"{bench.kind.file.kind} unusable: {bench.path}")


def test_a_file_that_fails_for_long_is_given_up(bench, monkeypatch):
    """Changes that wait for the file must not fill the memory."""
    monkeypatch.setattr("evcache._helpers.sqlite_journal.MAX_UNSAVED", 10)

    async def main():
        file = await bench.filled(bench.record(0))
        fail_writes(file)
        for number in range(10):
            bench.put(file, bench.record(number))
            await idle(file)
        assert len(file._unsaved) == 10
        bench.put(file, bench.record(10))
        await idle(file)
        assert file._unsaved == {}
        allow_writes(file).result()
        bench.put(file, bench.record(11))
        assert file.error is not None
        await file.close()
        assert await bench.content() == [bench.record(0)]

    asyncio.run(main())


# Cancellation.


def test_an_open_that_fails_after_its_cancellation_reports_no_lost_error(bench):
    """asyncio reports errors that no code has retrieved."""
    problems = []
    bench.path = bench.path.parent / "nowhere" / "file"

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        file = bench.new()
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
def test_a_cancelled_open_can_be_closed_and_frees_the_file(bench, moment):
    async def main():
        file = bench.new()
        opening = asyncio.create_task(file.open())
        if moment == "during":
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await file.close()
        assert await bench.content() == []

    asyncio.run(main())


def test_a_cancelled_close_leaves_no_task_no_thread_and_no_lock(bench):
    async def main():
        file = await bench.filled(bench.record(0))
        bench.put(file, bench.record(1))
        closing = asyncio.create_task(file.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await idle(file)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert bench.record(0) in await bench.content()

    asyncio.run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_close_writes_the_changes_that_wait(bench, fails):
    """Changes that came during a transaction, and those of a transaction that failed."""

    async def main():
        file = await bench.filled(bench.record(0))
        go_on = threading.Event()
        if fails:
            fail_writes(file)
        file._thread.submit(go_on.wait, 10)
        bench.put(file, bench.record(1))
        await asyncio.sleep(0)  # the thread has the change now, after its wait
        if fails:
            allow_writes(file)
        bench.put(file, bench.record(2))
        bench.remove(file, bench.record(0))
        closing = asyncio.create_task(file.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await idle(file)
        assert await bench.content() == [bench.record(1), bench.record(2)]
        assert await file.close()

    asyncio.run(main())


def test_a_transaction_is_written_after_its_task_is_cancelled(bench):
    """The end of a loop cancels all tasks before the client closes the file."""

    async def main():
        file = await bench.filled(bench.record(0))
        go_on = threading.Event()
        file._thread.submit(go_on.wait, 10)
        bench.put(file, bench.record(1))
        await asyncio.sleep(0)  # the thread has the change now, after its wait
        file._writing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await file.close()
        assert await bench.content() == [bench.record(0), bench.record(1)]

    asyncio.run(main())
