"""Write-behind with a full buffer: who waits, how long, and what is left by those who give up."""

import asyncio

import pytest

from evcache import CacheError, InvalidArgument, UsageError
from evcache.write_behind import BufferFull, WriteBehind
from evcache.write_behind.buffer import Buffer
from evcache.write_behind.capacity import Capacity
from tests.support.virtual_time import in_virtual_time, now, run, settle
from tests.support.write_behind_source import Source


@in_virtual_time
async def test_a_full_buffer_makes_new_keys_wait_and_no_others():
    """They go on in their order when a flush, which begins at once, has made room."""
    source = Source(takes=1.0)
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
        # "a" has a newer value, so one key's room was made first
        assert [key for key, _ in done] == ["a", "c", "c", "d", "e"]
        await behind.flush()
        assert source.values == {"a": 2, "b": 1, "c": 2, "d": 2, "e": 2}
        assert all(len(batch) <= 2 for batch in source.batches)


@pytest.mark.parametrize("timeout", [0, 0.5, 3])
def test_a_full_buffer_says_so_when_the_time_is_over(timeout):
    async def main():
        source = Source(fails=10**9)
        behind = WriteBehind(None, source, max_keys=1, timeout=timeout)
        await behind.add("a", 1)
        with pytest.raises(BufferFull, match="1 keys wait") as caught:
            await behind.set("b", 1)
        assert now() == timeout
        assert isinstance(caught.value, CacheError)
        await behind.add("a", 1)
        assert await behind.close(0) == {"a": 2}

    run(main())


@pytest.mark.parametrize("when", ["in line", "called"])
def test_a_cancelled_wait_for_room_leaves_nothing(when):
    """Neither the value, nor a room that nobody takes: also when its turn has just come."""

    async def main():
        source = Source(takes=2.0)
        async with WriteBehind(None, source, max_keys=1, timeout=None) as behind:
            await behind.set("a", 1)
            first = asyncio.create_task(behind.set("b", 2))
            second = asyncio.create_task(behind.set("c", 3))
            if when == "in line":
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
async def test_a_merge_that_fails_does_not_keep_the_room_of_its_key():
    source = Source()
    async with WriteBehind(None, source, max_keys=1, timeout=None, interval=0.1) as behind:
        await behind.set("a", 1)
        with pytest.raises(InvalidArgument):
            await behind.add("b", "no number")
        await behind.set("c", 1)
        await behind.flush()
        assert source.values == {"a": 1, "c": 1}


@in_virtual_time
async def test_close_ends_waits_for_room():
    behind = WriteBehind(None, Source(fails=10**9), max_keys=1, timeout=None)
    await behind.set("a", 1)
    waiting = asyncio.create_task(behind.set("b", 1))
    await settle()
    assert await behind.close(1) == {"a": 1}
    with pytest.raises(UsageError):
        await waiting


@in_virtual_time
async def test_nobody_takes_the_room_of_those_whose_turn_it_is():
    """Between their being told so and their going on, calls that came later may look."""
    buffer = Buffer(max_batch=1, interval=1.0, max_attempts=1)
    room = Capacity(buffer, 1)
    buffer.put("a", 1, is_delta=False, now=0)
    turn = asyncio.create_task(room.turn("b"))
    await settle()
    buffer.wrote(buffer.next(now=0))
    room.call()
    assert not room.has("c")
    await turn
    assert room.has("b")
    assert not room.has("c")
    room.done("b")  # without having put anything
    assert room.has("c")
