"""Reads that were on their way while a load ended: what they bring is older than what was loaded."""

from __future__ import annotations

import asyncio

import pytest

from evcache import LoadPolicy
from tests.support.memory_zones import PATIENT, on_zones, pass_time

ALONE = LoadPolicy(lease=False, xfetch_beta=0)


class Source:
    """Counts its loads."""

    def __init__(self):
        self.loads = 0

    async def one(self):
        self.loads += 1
        number = self.loads
        await asyncio.sleep(0.01)
        return number

    async def several(self, keys):
        value = await self.one()
        return dict.fromkeys(keys, value)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@on_zones()
async def test_a_miss_that_took_longer_than_the_load_is_not_loaded_again(zones, many):
    """A read whose second zone hangs ends after the load that it might have joined: it looks again, and finds the value."""
    cache = await zones.ready(read_timeout=1, write_timeout=0.1, circuit=PATIENT)
    source = Source()

    async def ask():
        if many:
            return (await cache.get_or_load_many(["key"], source.several, policy=ALONE))["key"]
        return await cache.get_or_load("key", source.one, policy=ALONE)

    first = asyncio.create_task(ask())
    while not source.loads:
        await asyncio.sleep(0.001)
    zones.pause("b", "c")
    late = asyncio.create_task(ask())
    assert await first == 1
    assert not late.done()
    assert await late == 1
    assert source.loads == 1


@on_zones()
async def test_a_load_that_failed_meanwhile_is_made_again(zones):
    """The late caller does not inherit an error that came before its own load could begin."""
    cache = await zones.ready(read_timeout=1, write_timeout=0.1, circuit=PATIENT)
    loads = 0

    async def load():
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)
        if loads == 1:
            raise ValueError("down")
        return loads

    first = asyncio.create_task(cache.get_or_load("key", load, policy=ALONE))
    while not loads:
        await asyncio.sleep(0.001)
    zones.pause("b", "c")
    late = asyncio.create_task(cache.get_or_load("key", load, policy=ALONE))
    with pytest.raises(ValueError, match="down"):
        await first
    assert await late == 2
    await pass_time()
