"""Close of write-behind: values that are written, values that are lost, and reports of both."""

import asyncio

import pytest

from evcache.write_behind import WriteBehind
from tests.support.sources import BatchWriter
from tests.support.virtual_time import in_virtual_time, now, run, settle


@in_virtual_time
async def test_close_writes_pending_values():
    source = BatchWriter(fails=2)
    behind = WriteBehind(None, source, interval=60, max_batch=2)
    for key in "abc":
        await behind.set(key, key)
    assert await behind.close() == {}
    assert source.values == {"a": "a", "b": "b", "c": "c"}
    assert now() < 2


@in_virtual_time
async def test_close_shortens_pauses():
    """After an outage the pause is longer than the drain time, and the source may recover at any moment."""
    source = BatchWriter(fails=lambda batch: now() < 100.1)
    behind = WriteBehind(None, source)
    await behind.set("k", 1)
    await asyncio.sleep(100)
    assert await behind.close(1.0) == {}
    assert source.values == {"k": 1}


@pytest.mark.parametrize("drain", [0, 2.0])
def test_close_returns_unwritten_values(drain, caplog):
    """Deltas in flight and later deltas are added up. The log and `on_lost` get one report."""

    async def main():
        lost = []
        source = BatchWriter(fails=lambda batch: "n" in batch, takes=0.5)
        behind = WriteBehind(None, source, on_lost=lost.append)
        await behind.add("n", 1)
        await asyncio.sleep(1.2)
        await behind.add("n", 10)
        await behind.set("k", 1)
        began = now()
        first, second = await asyncio.gather(behind.close(drain), behind.close(drain))
        assert now() - began <= drain + 0.01
        assert first == second == {"n": 11, "k": 1}
        assert await behind.close() == first
        assert lost == [first]
        assert len([record for record in caplog.records if "values are lost" in record.getMessage()]) == 1
        assert source.at_once == 0
        assert behind.waiting("n") == 11

    run(main())


@in_virtual_time
async def test_cancelled_close_ends_the_task_and_keeps_values():
    lost = []
    source = BatchWriter(takes=100)
    behind = WriteBehind(None, source, flush_timeout=1000, on_lost=lost.append)
    await behind.set("k", 1)
    closing = asyncio.create_task(behind.close(50))
    await asyncio.sleep(1)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert behind.waiting("k") == 1
    assert lost == []
    assert await behind.close() == {"k": 1}
    assert lost == [{"k": 1}]


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("drain", [0, 50])
@in_virtual_time
async def test_close_after_a_cancelled_close_waits_for_the_writer(turns, drain):
    """The second close does not interrupt the cleanup of the writer, and nothing runs afterwards."""
    cleaned = []

    async def write(batch):
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            cleaned.append(batch)

    behind = WriteBehind(None, write, flush_timeout=1000)
    await behind.set("k", 1)
    flushing = asyncio.create_task(behind.flush(timeout=1000))
    await asyncio.sleep(1)
    for _ in range(2):
        closing = asyncio.create_task(behind.close(drain))
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
    assert await behind.close(0) == {"k": 1}
    await asyncio.wait([flushing])
    assert len(cleaned) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_close_ends_a_waiting_flush():
    behind = WriteBehind(None, BatchWriter(fails=10**9))
    await behind.set("k", 1)
    flushing = asyncio.create_task(behind.flush())
    await settle()
    await behind.close(0.5)
    assert await flushing is False


@in_virtual_time
async def test_exception_of_on_lost_is_logged(caplog):
    def on_lost(values):
        raise RuntimeError("no receiver")

    behind = WriteBehind(None, BatchWriter(fails=10**9), on_lost=on_lost)
    await behind.set("k", 1)
    assert await behind.close(0) == {"k": 1}
    assert "callback on_lost failed" in caplog.text
