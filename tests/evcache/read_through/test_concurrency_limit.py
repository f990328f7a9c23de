"""How many loaders run at once: the limit, who is next, and loaders that wait for other loaders."""

import asyncio

import pytest

from evcache.read_through.loads.concurrency_limit import LoadLimiter
from tests.support.memory_zones import on_zones
from tests.support.virtual_time import run


def test_those_over_the_limit_wait_their_turn():
    async def main():
        slots = LoadLimiter(2)
        tickets = [slots.ticket(at_once=False) for _ in range(5)]
        assert [ticket.done() for ticket in tickets] == [True, True, False, False, False]
        slots.release()
        assert [ticket.done() for ticket in tickets] == [True, True, True, False, False]
        assert slots.taken == 2
        assert slots.is_full

    run(main())


def test_whoever_comes_does_not_overtake_those_who_wait():
    async def main():
        slots = LoadLimiter(1)
        slots.ticket(at_once=True)
        slots.ticket(at_once=True)  # over the limit
        first = slots.ticket(at_once=False)
        slots.release()
        second = slots.ticket(at_once=False)
        assert not first.done(), "one is still over the limit"
        slots.release()
        assert first.done()
        assert not second.done()

    run(main())


@pytest.mark.parametrize("given", [False, True])
def test_who_is_cancelled_leaves_the_place_to_the_next(given):
    """This includes a slot that was granted before its caller has run again."""

    async def main():
        slots = LoadLimiter(1)
        slots.ticket(at_once=False)
        tickets = [slots.ticket(at_once=False) for _ in range(2)]
        waiting = asyncio.ensure_future(slots.wait(tickets[0]))
        await asyncio.sleep(0)
        if given:
            slots.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if not given:
            slots.release()
        assert tickets[1].done()
        assert slots.taken == 1

    run(main())


def test_one_can_be_let_in_over_the_limit():
    async def main():
        slots = LoadLimiter(1)
        slots.ticket(at_once=False)
        first, second = slots.ticket(at_once=False), slots.ticket(at_once=False)
        slots.expedite(second)
        slots.expedite(second)  # no second slot for it
        assert (first.done(), second.done(), slots.taken) == (False, True, 2)
        slots.release()
        assert not first.done()
        slots.release()
        assert first.done()

    run(main())


@on_zones()
async def test_a_loader_that_loads_something_else_does_not_wait_for_itself(zones):
    """With one slot, a loader needs a second key. Either no caller loads it, or its load waits for this slot."""
    cache = await zones.ready(max_loads=1)

    async def leaf():
        await asyncio.sleep(0.1)
        return "leaf"

    async def nested():
        await asyncio.sleep(0.1)
        return [await cache.get_or_load("a", leaf), await cache.get_or_load("b", leaf)]

    outer = asyncio.ensure_future(cache.get_or_load("outer", nested))
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(cache.get_or_load("a", leaf))  # its loader waits for the slot
    assert await asyncio.wait_for(outer, 5) == ["leaf", "leaf"]
    assert await waiting == "leaf"
    assert cache.stats().loads.loads == 3


@on_zones()
async def test_a_load_that_was_joined_before_it_asked_for_a_slot_does_not_wait_either(zones):
    """It waits for the process that holds the lease, which is stuck; then the one slot is held by who waits for this load."""
    cache, stuck = await zones.ready(max_loads=1), await zones.ready()
    holds_the_lease = asyncio.ensure_future(stuck.get_or_load("a", asyncio.Event().wait))
    await asyncio.sleep(0.1)

    async def leaf():
        return "leaf"

    async def nested():
        return await cache.get_or_load("a", leaf)

    other = asyncio.ensure_future(cache.get_or_load("a", leaf))
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(cache.get_or_load("outer", nested), 5) == "leaf"
    assert await other == "leaf"
    holds_the_lease.cancel()
