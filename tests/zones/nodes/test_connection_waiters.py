"""Calls that wait for a connection: one timer for all, and the time that the event loop lost is given back."""

import asyncio

import pytest

from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.nodes.connection_waiters import ConnectionWaiters
from tests.support.virtual_time import in_virtual_time

CALLS = 1_000


def now():
    return asyncio.get_running_loop().time()


def waiters(*, watched=True):
    loop = asyncio.get_running_loop()
    return ConnectionWaiters(loop, LoopLag(loop) if watched else None)


def timers():
    loop = asyncio.get_running_loop()
    return sum("ConnectionWaiters" in repr(handle) and not handle.cancelled() for handle in loop._scheduled)  # noqa: SLF001


@in_virtual_time
async def test_wake_ends_every_wait_and_the_timer():
    waiting = waiters()
    began = now()
    calls = [asyncio.create_task(waiting.wait(began + 1 + number)) for number in range(CALLS)]
    await asyncio.sleep(0.5)
    assert timers() == 1
    waiting.wake()
    assert await asyncio.gather(*calls) == [began + 1 + number for number in range(CALLS)]
    assert timers() == 0
    assert now() - began == pytest.approx(0.5)


@in_virtual_time
async def test_each_wait_ends_at_its_own_deadline():
    """Also one that begins later and ends sooner, and one whose deadline has passed before it begins."""
    waiting = waiters()
    began = now()
    ends = {}

    async def wait(name, deadline):
        assert await waiting.wait(deadline) is None
        ends[name] = now() - began

    first = asyncio.create_task(wait("first", began + 0.3))
    await asyncio.sleep(0.05)
    await asyncio.gather(first, wait("second", began + 0.1), wait("late", began), wait("third", began + 0.2))
    assert ends == {
        name: pytest.approx(end) for name, end in (("late", 0.05), ("second", 0.1), ("third", 0.2), ("first", 0.3))
    }
    assert timers() == 0


@in_virtual_time
async def test_a_cancelled_wait_disturbs_no_other():
    waiting = waiters()
    calls = [asyncio.create_task(waiting.wait(now() + 0.1)) for _ in range(4)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0.05)
    calls[1].cancel()
    waiting.wake()
    calls[2].cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, True, True, False]
    assert ends[3] is not None
    assert not waiting._waiting  # noqa: SLF001


@pytest.mark.parametrize("watched", [True, False])
@in_virtual_time
async def test_a_deadline_moves_by_the_time_that_the_loop_lost(watched):
    """A deadline moves by no more than the stalls, so a wait ends also in a loop that stalls repeatedly."""
    waiting = waiters(watched=watched)
    began = now()
    call = asyncio.create_task(waiting.wait(began + 0.1))
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().advance(0.5)
    await asyncio.sleep(0.001)
    assert call.done() is not watched
    while not call.done():
        assert now() - began < 5
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().advance(0.05)
    assert call.result() is None
