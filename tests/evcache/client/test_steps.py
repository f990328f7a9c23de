"""Parts of long work: items done a few at once, and bytes in flight."""

import asyncio

import pytest

from evcache._helpers.steps import ByteBudget, run_concurrently
from tests.support.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_a_few_at_once_does_all_the_work():
    running = most = 0
    done = []

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(item % 3)
        running -= 1
        done.append(item)

    await run_concurrently(range(20), work, 4)
    assert (most, sorted(done)) == (4, list(range(20)))
    await run_concurrently([], work, 4)


@in_virtual_time
async def test_a_few_at_once_ends_with_the_first_error():
    begun = []

    async def work(item):
        begun.append(item)
        await asyncio.sleep(1)
        if item == 2:
            raise KeyError(item)

    with pytest.raises(KeyError):
        await run_concurrently(range(20), work, 4)
    assert begun == list(range(7))  # three others have ended at the same moment


@in_virtual_time
async def test_a_byte_budget_bounds_the_bytes_in_flight():
    """An item over the limit passes alone. A cancelled task takes nothing."""
    budget = ByteBudget(10)
    running = most = 0

    async def work(size):
        nonlocal running, most
        await budget.take(size)
        running += size
        most = max(most, running)
        await asyncio.sleep(1)
        running -= size
        budget.release(size)

    await asyncio.gather(*(work(4) for _ in range(7)))
    assert most == 8
    blocked = asyncio.ensure_future(work(25))
    await asyncio.sleep(0.5)
    waiting = asyncio.ensure_future(work(1))
    await settle()
    assert running == 25
    waiting.cancel()
    await asyncio.wait([waiting, blocked])
    await asyncio.wait_for(budget.take(10), 0.1)
