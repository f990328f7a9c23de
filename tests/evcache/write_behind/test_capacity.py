"""Write-behind with a full buffer: order and length of waits, and the effect of their cancellation."""

import asyncio

import pytest

from evcache import CacheError, InvalidArgument, UsageError
from evcache.write_behind import BufferFull, WriteBehind
from evcache.write_behind.buffer import Buffer
from evcache.write_behind.capacity import Capacity
from tests.support.sources import BatchWriter
from tests.support.virtual_time import in_virtual_time, now, run, settle


@in_virtual_time
async def test_full_buffer_makes_only_new_keys_wait():
    """A flush begins at once. The waiting calls continue in their order as it frees places."""
    source = BatchWriter(takes=1.0)
    async with WriteBehind(None, source, max_keys=2, interval=60, timeout=None) as behind:
        await behind.set("a", 1)
        await behind.set("b", 1)
        done = []

        async def put(key):
            await behind.set(key, 2)
            done.append((key, now()))

        async with asyncio.TaskGroup() as group:
            for key in ["c", "d", "e", "c"]:
                group.create_task(put(key))
            await settle()
            await put("a")
            assert done == [("a", 0)]
            await asyncio.sleep(0.5)
        # "a" has a newer value, so the flush freed one place first
        assert [key for key, _ in done] == ["a", "c", "c", "d", "e"]
        await behind.flush()
        assert source.values == {"a": 2, "b": 1, "c": 2, "d": 2, "e": 2}
        assert all(len(batch) <= 2 for batch in source.batches)


@pytest.mark.parametrize("timeout", [0, 0.5, 3])
def test_full_buffer_raises_after_its_timeout(timeout):
    async def main():
        source = BatchWriter(fails=10**9)
        behind = WriteBehind(None, source, max_keys=1, timeout=timeout)
        await behind.add("a", 1)
        with pytest.raises(BufferFull, match="1 keys are pending") as caught:
            await behind.set("b", 1)
        assert now() == timeout
        assert isinstance(caught.value, CacheError)
        await behind.add("a", 1)
        assert await behind.close(0) == {"a": 2}

    run(main())


@pytest.mark.parametrize("when", ["queued", "woken"])
def test_cancelled_wait_for_a_place_leaves_nothing(when):
    """Neither the value nor a reserved place remains, also if the call was just woken."""

    async def main():
        source = BatchWriter(takes=2.0)
        async with WriteBehind(None, source, max_keys=1, timeout=None) as behind:
            await behind.set("a", 1)
            first = asyncio.create_task(behind.set("b", 2))
            second = asyncio.create_task(behind.set("c", 3))
            if when == "queued":
                await asyncio.sleep(1)
            else:
                await asyncio.sleep(2)
                for _ in range(20):
                    if behind.waiting("a") is None:
                        break
                    await asyncio.sleep(0)
                assert behind.waiting("a") is None
                assert not first.done()
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            await second
            await behind.flush()
            assert source.values == {"a": 1, "c": 3}
            await behind.set("d", 4)

    run(main())


@in_virtual_time
async def test_failed_merge_frees_the_place_of_its_key():
    source = BatchWriter()
    async with WriteBehind(None, source, max_keys=1, timeout=None, interval=0.1) as behind:
        await behind.set("a", 1)
        with pytest.raises(InvalidArgument):
            await behind.add("b", "no number")
        await behind.set("c", 1)
        await behind.flush()
        assert source.values == {"a": 1, "c": 1}


@in_virtual_time
async def test_close_ends_waits_for_a_place():
    behind = WriteBehind(None, BatchWriter(fails=10**9), max_keys=1, timeout=None)
    await behind.set("a", 1)
    waiting = asyncio.create_task(behind.set("b", 1))
    await settle()
    assert await behind.close(1) == {"a": 1}
    with pytest.raises(UsageError):
        await waiting


@in_virtual_time
async def test_reserved_place_is_not_given_to_a_later_call():
    """A later call may run between the wake of a waiting call and its first step."""
    buffer = Buffer(max_batch=1, interval=1.0, max_attempts=1)
    capacity = Capacity(buffer, 1)
    buffer.put("a", 1, is_delta=False, now=0)
    turn = asyncio.create_task(capacity.wait("b"))
    await settle()
    buffer.succeeded(buffer.next_batch(now=0))
    capacity.wake_next()
    assert not capacity.admits("c")
    await turn
    assert capacity.admits("b")
    assert not capacity.admits("c")
    capacity.release("b")  # it stored nothing
    assert capacity.admits("c")
