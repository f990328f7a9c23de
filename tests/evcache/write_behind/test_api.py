"""Flushes of write-behind under virtual time: when they begin, and what follows a failure."""

import asyncio
import logging

import pytest

from evcache import UsageError
from evcache.write_behind import BufferFull, WriteBehind
from evcache.write_behind.flusher import RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS
from tests.support.sources import BatchWriter
from tests.support.virtual_time import in_virtual_time, now, run, settle


@in_virtual_time
async def test_flush_begins_one_interval_after_the_first_value():
    """Later values join the batch. It holds the last value of each key."""
    source = BatchWriter()
    async with WriteBehind(None, source, interval=2.0) as behind:
        for number in range(19):
            await behind.set(f"k{number % 2}", number)
            await behind.add("n", number)
            await asyncio.sleep(0.1)
        assert source.tries == []
        await asyncio.sleep(1)
        assert source.times == [2.0]
        assert source.batches == [{"k0": 18, "n": 171, "k1": 17}]
        assert behind.stats().waiting == 0
        assert behind.stats().coalesced == 35


@in_virtual_time
async def test_flush_begins_with_max_batch_keys():
    source = BatchWriter()
    async with WriteBehind(None, source, max_batch=3, interval=60) as behind:
        for number in range(8):
            await behind.set(f"k{number}", number)
        await settle()
        assert source.batches == [{"k0": 0, "k1": 1, "k2": 2}, {"k3": 3, "k4": 4, "k5": 5}]
        assert source.times == [0, 0]


@in_virtual_time
async def test_nothing_runs_before_the_first_call_and_nothing_after_close():
    before = asyncio.all_tasks()
    behind = WriteBehind(None, BatchWriter())
    assert asyncio.all_tasks() == before
    assert await behind.close() == {}
    with pytest.raises(UsageError):
        await behind.set("k", 1)
    used = WriteBehind(None, BatchWriter())
    await used.set("k", 1)
    assert len(asyncio.all_tasks()) == len(before) + 1
    assert await used.close() == {}
    assert asyncio.all_tasks() == before


def test_buffer_belongs_to_one_event_loop():
    behind = WriteBehind(None, BatchWriter())

    async def use():
        await behind.set("k", 1)
        await behind.flush()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(UsageError):
            asyncio.run(use())
        runner.run(behind.close())


@in_virtual_time
async def test_flush_waits_for_present_values_only():
    source = BatchWriter(takes=1.0)
    async with WriteBehind(None, source, max_batch=2, interval=60) as behind:
        assert await behind.flush()
        assert now() == 0
        for key in "abc":
            await behind.set(key, 1)
        flushing = asyncio.create_task(behind.flush())
        await asyncio.sleep(1.5)
        await behind.set("late", 1)
        await behind.set("b", 2)
        await behind.set("c", 2)  # "c" is in flight
        assert await flushing
        assert now() == 2.0
        assert source.values == {"a": 1, "b": 1, "c": 1}
    assert source.values == {"a": 1, "b": 2, "c": 2, "late": 1}


@in_virtual_time
async def test_flush_after_its_timeout_continues_in_the_background():
    source = BatchWriter(takes=1.0)
    async with WriteBehind(None, source, interval=60) as behind:
        await behind.set("k", 1)
        assert not await behind.flush(timeout=0.5)
        flushing = asyncio.create_task(behind.flush())
        await settle()
        flushing.cancel()
        await asyncio.wait([flushing])
        assert flushing.cancelled()
        await asyncio.sleep(1)
        assert source.values == {"k": 1}
        assert len(source.tries) == 1


# Failures.


@in_virtual_time
async def test_failed_batch_is_repeated_unchanged_with_growing_pauses(caplog):
    """The batch keeps its id and its content. A success resets the pause. Each outage is logged once."""
    caplog.set_level(logging.INFO, "evcache")
    source = BatchWriter(fails=2)
    async with WriteBehind(None, source) as behind:
        await behind.add("n", 1)
        await asyncio.sleep(1.05)
        await behind.add("n", 10)
        await behind.set("k", 1)
        assert behind.waiting("n") == 11
        await asyncio.sleep(3)
        assert source.batches == [{"n": 1}, {"n": 1}, {"n": 1}, {"k": 1, "n": 10}]
        assert len(set(source.ids)) == 2
        first, second = source.times[1] - source.times[0], source.times[2] - source.times[1]
        assert RETRY_FIRST_SECONDS <= first <= 2 * RETRY_FIRST_SECONDS
        assert 2 * RETRY_FIRST_SECONDS <= second <= 3 * RETRY_FIRST_SECONDS
        assert source.values == {"n": 11, "k": 1}
        stats = behind.stats()
        assert (stats.flushes, stats.flushed, stats.failures, stats.retried) == (2, 3, 2, 2)
        source.fails = 1
        await behind.set("k", 2)
        await asyncio.sleep(2)
        assert source.times[-1] - source.times[-2] <= 2 * RETRY_FIRST_SECONDS
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[1] for text in said] == ["batch", "source", "batch", "source"]
    assert "the source is down" in said[0]


@in_virtual_time
async def test_an_outage_of_hours_loses_nothing():
    """The source gets six attempts a minute, and all values within seconds of its recovery."""
    source = BatchWriter(fails=lambda _: now() < 6 * 3600)
    async with WriteBehind(None, source, max_batch=10, max_keys=100, max_attempts=2) as behind:
        for number in range(100):
            await behind.set(f"k{number}", number)
        with pytest.raises(BufferFull):
            await behind.set("one more", 1)
        await asyncio.sleep(3600)
        asked = len(source.tries)
        await asyncio.sleep(3600)
        assert len(source.tries) - asked <= 3600 / RETRY_LONGEST_SECONDS
        assert behind.stats().oldest > 7200
        assert behind.stats().waiting == 100
        await asyncio.sleep(4 * 3600 + RETRY_LONGEST_SECONDS)
        assert source.values == {f"k{number}": number for number in range(100)}
        assert behind.stats().given_up == 0


@in_virtual_time
async def test_flush_does_not_wait_for_the_end_of_a_pause():
    source = BatchWriter(fails=lambda _: now() < 600)
    async with WriteBehind(None, source) as behind:
        await behind.set("k", 1)
        await asyncio.sleep(600 + RETRY_LONGEST_SECONDS / 100)
        tried = len(source.tries)
        assert await behind.flush(timeout=0.01) or len(source.tries) == tried + 1
        assert source.values == {"k": 1}


@in_virtual_time
async def test_one_bad_row_is_given_up_and_reported(caplog):
    """All other keys are written. Later keys are written without long pauses."""
    lost = []
    source = BatchWriter(fails=lambda batch: "bad" in batch)
    async with WriteBehind(None, source, max_attempts=3, on_lost=lost.append) as behind:
        for number in range(50):
            await behind.set(f"k{number}", number)
        await behind.set("bad", "row")
        for number in range(50, 100):
            await behind.set(f"k{number}", number)
        await asyncio.sleep(10)
        assert source.values == {f"k{number}": number for number in range(100)}
        assert lost == []  # no other batch shows that the source works
        for number in range(100, 120):
            await behind.set(f"k{number}", number)
            await asyncio.sleep(1.01)
            assert f"k{number}" in source.values  # the pauses after failures of "bad" do not delay it
        assert lost == [{"bad": "row"}]
        assert behind.stats().given_up == 1
        assert behind.stats().waiting == 0
    assert any("'bad'" in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)


@in_virtual_time
async def test_writer_that_hangs_is_cancelled():
    """The batch is repeated, because its outcome is unknown."""
    ended = []

    async def writer(batch):
        ended.append("began")
        try:
            await asyncio.sleep(0 if len(ended) > 2 else 1000)
        except asyncio.CancelledError:
            ended.append(now())
            raise

    async with WriteBehind(None, writer, flush_timeout=5.0) as behind:
        await behind.set("k", 1)
        await behind.flush()
        assert ended == ["began", 5.0, "began"]
        assert behind.stats().failures == 1


async def cancels_itself(batch):
    raise asyncio.CancelledError


async def names_others(batch):
    return ["other"]


async def returns_a_str(batch):
    return "k"


async def returns_a_number(batch):
    return 1


async def writes_none(batch):
    return list(batch)


async def times_out(batch):
    raise TimeoutError


def is_no_coroutine(batch):
    return None


@pytest.mark.parametrize(
    "writer", [cancels_itself, names_others, returns_a_str, returns_a_number, writes_none, times_out, is_no_coroutine]
)
def test_each_misbehaviour_of_a_writer_counts_as_a_failure(writer):
    """Invalid results are failures too. The batch is repeated under its id, and nothing is lost."""

    async def main():
        ids = set()

        def flaky(batch):
            ids.add(batch.id)
            return writer(batch) if now() < 2 else BatchWriter()(batch)

        async with WriteBehind(None, flaky) as behind:
            await behind.set("k", 1)
            assert await behind.flush(timeout=5)
            assert behind.stats().failures > 1
            assert len(ids) == 1

    run(main())


@in_virtual_time
async def test_keys_that_a_writer_returns_are_repeated():
    given = []

    async def writer(batch):
        given.append((dict(batch), batch.id))
        return list(batch)[1:]  # a source that accepts one row for each call

    async with WriteBehind(None, writer) as behind:
        for key in "abc":
            await behind.set(key, key)
        assert await behind.flush()
        assert [list(batch) for batch, _ in given] == [["a", "b", "c"], ["b", "c"], ["c"]]
        assert len({batch_id for _, batch_id in given}) == 3
        stats = behind.stats()
        assert (stats.flushes, stats.flushed, stats.failures, stats.retried) == (3, 3, 0, 3)


@in_virtual_time
async def test_value_that_arrives_during_a_flush_of_its_key_is_written_next():
    """The newer value is never lost, and never overtaken by repetitions of the older one."""
    source = BatchWriter(fails=1, takes=1.0)
    async with WriteBehind(None, source) as behind:
        await behind.set("k", "old")
        await asyncio.sleep(1.5)
        await behind.set("k", "new")
        assert behind.waiting("k") == "new"
        await behind.flush()
        assert [batch["k"] for batch in source.batches] == ["old", "old", "new"]
        assert behind.waiting("k", "nothing") == "nothing"


@in_virtual_time
async def test_flusher_restarts_after_an_unexpected_exception(monkeypatch, caplog):
    """A call of `flush` returns False when the flusher ends."""

    def broken(at):
        raise RuntimeError("a bug")

    source = BatchWriter()
    async with WriteBehind(None, source) as behind:
        await behind.set("k", 1)
        with monkeypatch.context() as patch:
            patch.setattr(behind._buffer, "next_batch", broken)
            assert await behind.flush() is False
        assert "write-behind flusher failed: unexpected exception" in caplog.text
        assert await behind.flush()
        assert source.values == {"k": 1}
