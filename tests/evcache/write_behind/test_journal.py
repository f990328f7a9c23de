"""Write-behind with a journal: its rows, and the buffer that it restores.

The contract of journals is in `tests/evcache/test_sqlite_journal.py`. A journal works on a thread, so these tests run on an
ordinary event loop, and wait for the journal only.
"""

import asyncio
import contextlib
import sqlite3
from decimal import Decimal

import pytest

from evcache import EncodeError, InvalidArgument
from evcache.write_behind import WriteBehind
from evcache.write_behind.batch import PendingWrite, SavedWrite
from evcache.write_behind.journal import WriteBehindJournal
from tests.support.journals import abandon
from tests.support.unusable_files import CAUSES, run_sql

NEVER = 10_000.0  # seconds


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "behind")


async def content(path):
    """Return what the next process finds."""
    file = WriteBehindJournal(path)
    try:
        return await file.open()
    finally:
        await file.close()


def test_writes_of_batches_and_of_none_come_back_in_their_order(path):
    """A key may be there twice: in a batch, and with a newer value in none."""

    def entry(number, data=b"data", *, is_delta=False, flags=7):
        return PendingWrite(None, is_delta, number, 0.0, data, flags)

    async def main():
        file = WriteBehindJournal(path)
        assert await file.open() == []
        file.note("", "b", entry(2, bytes(range(256)) * 50))
        file.note("", "ä\0x", entry(1, b"", is_delta=True, flags=2**32 - 1))
        file.note("id/0", "b", entry(5, b"new"))
        assert await file.close()
        assert await content(path) == [
            SavedWrite("", "ä\0x", True, 1, b"", 2**32 - 1),
            SavedWrite("", "b", False, 2, bytes(range(256)) * 50, 7),
            SavedWrite("id/0", "b", False, 5, b"new", 7),
        ]

    asyncio.run(main())


BAD_KEY = "('', X'FF', 0, 1, X'', 0)"
BAD_VALUE = "('', X'61', 0, 1, X'00', 1)"


@pytest.mark.parametrize("row", [BAD_KEY, BAD_VALUE])
def test_a_file_with_a_damaged_write_is_refused_and_keeps_its_rows(path, row):
    """A strict buffer refuses each call. Another buffer keeps its values in memory, and reports the file."""
    asyncio.run(content(path))
    run_sql(path, f"INSERT INTO waiting VALUES {row}")

    async def main():
        behind = WriteBehind(None, Source(), path=path, strict=True)
        for _ in range(2):
            with pytest.raises(InvalidArgument) as caught:
                await behind.set("k", 1)
            assert caught.value.argument == "path"
            assert path in str(caught.value)
        assert await behind.close() == {}
        async with WriteBehind(None, Source(), path=path) as lenient:
            assert path in lenient.stats().file_error

    asyncio.run(main())
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM waiting").fetchone() == (1,)
    database.close()


# The buffer with its file.


class Source:
    """A writer that fails or hangs on request."""

    def __init__(self, *, fails=False, hangs=False):
        self.fails = fails
        self.hangs = hangs
        self.called = asyncio.Event()
        self.tries = []
        self.values = {}
        self.applied = set()

    async def __call__(self, batch):
        self.tries.append((batch.id, dict(batch)))
        self.called.set()
        if not self.fails and self.applied.isdisjoint(batch.ids):
            self.applied.add(batch.id)
            for key, value in batch.items():
                self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise OSError("the source is down")


async def crash(behind):
    """What the end of a process leaves of it: the file as it is, and nothing else."""
    await behind._journal.flush()
    abandon(behind._journal)
    task = behind._flusher.task
    task.cancel()
    await asyncio.wait([task])


def test_what_waits_outlives_the_process(path):
    """Values and sums, of which the next process flushes what the last one has not."""

    async def main():
        source = Source()
        behind = WriteBehind(None, source, path=path, interval=NEVER)
        await behind.set("written", 1)
        await behind.flush()
        await behind.add("n", 1)
        await behind.add("n", 2)
        await behind.set("row", {"a": 1})
        await crash(behind)
        assert source.values == {"written": 1}
        async with WriteBehind(None, source, path=path, interval=NEVER) as again:
            assert again.waiting("row") == {"a": 1}
            await again.add("n", 10)
            assert again.waiting("n") == 13
        assert source.values == {"written": 1, "n": 13, "row": {"a": 1}}
        assert await content(path) == []

    asyncio.run(main())


def test_a_batch_in_flight_is_tried_again_with_its_id(path):
    """The source recognizes a batch that it has applied. Later values are not mixed into it, so no delta counts twice."""

    async def main():
        source = Source(hangs=True)
        behind = WriteBehind(None, source, path=path, interval=NEVER, max_batch=2)
        await behind.add("n", 1)
        await behind.add("m", 5)
        await source.called.wait()
        await behind.add("n", 10)
        await crash(behind)
        source.hangs = False
        async with WriteBehind(None, source, path=path, interval=NEVER) as again:
            assert again.waiting("n") == 11
        assert source.values == {"n": 11, "m": 5}
        assert [batch for _, batch in source.tries] == [{"n": 1, "m": 5}, {"n": 1, "m": 5}, {"n": 10}]
        assert source.tries[0][0] == source.tries[1][0] != source.tries[2][0]

    asyncio.run(main())


def test_a_batch_is_in_the_file_before_the_writer_sees_it(path):
    """A process that ends in the middle of the writer's first line has kept its id."""

    async def main():
        seen = []

        async def writer(batch):
            seen.append(batch.id)
            abandon(behind._journal)
            await asyncio.Event().wait()

        behind = WriteBehind(None, writer, path=path, max_batch=1)
        await behind.set("k", 1)
        while not seen:
            await asyncio.sleep(0)
        behind._flusher.task.cancel()
        await asyncio.wait([behind._flusher.task])
        assert [(saved.batch, saved.key) for saved in await content(path)] == [(seen[0], "k")]

    asyncio.run(main())


def test_what_close_could_not_write_is_kept_and_not_lost(path, caplog):
    """The report has it; the next process, too."""
    lost = []

    async def main():
        behind = WriteBehind(None, Source(fails=True), path=path, on_lost=lost.append)
        await behind.set("k", "v")
        assert await behind.close(0) == {"k": "v"}
        assert await behind.close(0) == {"k": "v"}
        source = Source()
        async with WriteBehind(None, source, path=path):
            pass
        assert source.values == {"k": "v"}

    asyncio.run(main())
    assert lost == []
    assert not [record for record in caplog.records if "lost" in record.getMessage()]


def test_a_cancelled_close_keeps_everything_in_the_file(path):
    """Also what came just before, and it leaves no task, no thread and no lock."""

    async def main():
        behind = WriteBehind(None, Source(hangs=True), path=path, interval=NEVER)
        await behind.set("a", 1)
        await behind.set("b", 2)
        closing = asyncio.create_task(behind.close(NEVER))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert {saved.key for saved in await content(path)} == {"a", "b"}

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(4))
def test_a_cancelled_first_call_leaves_nothing(path, turns):
    """A caller that is cancelled while the file is opened does not affect the next caller."""

    async def main():
        source = Source()
        behind = WriteBehind(None, source, path=path)
        first, second = asyncio.create_task(behind.set("a", 1)), asyncio.create_task(behind.set("b", 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled()
        assert second.exception() is None
        await behind.close()
        assert source.values == {"b": 2}

    asyncio.run(main())


def test_what_cannot_be_kept_in_a_file_is_refused(path):
    """Before anything is kept; without a file it is the writer's business alone."""

    async def main():
        source = Source()
        async with WriteBehind(None, source, path=path) as behind:
            with pytest.raises(EncodeError):
                await behind.set("k", object())
            assert behind.stats().waiting == 0
        async with WriteBehind(None, source) as behind:
            await behind.set("k", Decimal(1))
        assert source.values == {"k": Decimal(1)}

    asyncio.run(main())


def test_a_file_that_cannot_be_written_holds_no_flush_up(path, caplog):
    async def main():
        source = Source()
        behind = WriteBehind(None, source, path=path, interval=NEVER)
        await behind.set("a", 1)
        await behind._journal.flush()
        behind._journal._thread.submit(behind._journal._database.execute, "PRAGMA query_only = ON").result()
        await behind.set("b", 2)
        assert await behind.flush()
        assert source.values == {"a": 1, "b": 2}
        source.fails = True
        await behind.set("c", 3)
        assert await behind.close(0) == {"c": 3}

    asyncio.run(main())
    assert "write-behind closed with 1 unwritten keys: no file, values are lost" in caplog.text


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("first", ["set", "add", "flush", "async with"])
def test_calls_go_on_when_the_file_is_unusable(tmp_path, caplog, cause, first):
    """Values are kept in memory; one line of the log says why, and so does `stats()`."""

    async def main(path, says):
        source = Source()
        behind = WriteBehind(None, source, path=str(path), interval=NEVER)
        calls = {"set": lambda: behind.set("a", 1), "add": lambda: behind.add("a", 1), "flush": behind.flush}
        await calls.get(first, behind.__aenter__)()
        await behind.set("b", 2)
        assert behind.stats().file_error.startswith(f"{path}: {says}")
        assert await behind.flush()
        assert source.values["b"] == 2
        source.fails = True
        await behind.set("c", 3)
        assert await behind.close(0) == {"c": 3}

    with cause(tmp_path) as (path, says), pytest.MonkeyPatch.context() as patch:
        patch.setattr("evcache.write_behind.journal.BUSY_SECONDS", 0.0)
        asyncio.run(main(path, says))
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith(f"write-behind file unusable: {path}: {says}")
    assert "write-behind closed with 1 unwritten keys: no file, values are lost" in caplog.text


@pytest.mark.parametrize("cause", CAUSES)
def test_a_strict_buffer_refuses_an_unusable_file(tmp_path, cause):
    """Each call, until the file can be used."""

    async def main(path, says):
        behind = WriteBehind(None, Source(), path=str(path), strict=True)
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="path: ") as caught:
                await behind.set("a", 1)
            assert says in str(caught.value)
            assert behind.stats().waiting == 0
        cause_ends.close()
        await behind.set("a", 1)
        assert await behind.close() == {}

    with contextlib.ExitStack() as cause_ends, pytest.MonkeyPatch.context() as patch:
        path, says = cause_ends.enter_context(cause(tmp_path))
        patch.setattr("evcache.write_behind.journal.BUSY_SECONDS", 0.0)
        asyncio.run(main(path, says))
