"""Loads of very many keys, on zones in memory: leases and stores are bounded, and no lease is left."""

import asyncio

import pytest

from evcache.zones.transport.limits import ConnectionLimits
from tests.evcache.writes.test_bulk_writes import names, nodes_of
from tests.support.memory_zones import on_zones, pass_time
from tests.support.sources import Source, assert_nothing_left, no_stubs, started
from tests.support.virtual_time import settle


@pytest.fixture(autouse=True)
def portions(monkeypatch):
    """Read ten keys in a portion, so that fifty are many."""
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS", 10)
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS_PER_NODE", 1)


@pytest.fixture
def at_once(monkeypatch):
    """Ask for eight leases, and store eight values, at a time."""
    monkeypatch.setattr("evcache.read_through.loads.load.AT_ONCE", 8)
    monkeypatch.setattr("evcache.read_through.loads.bulk_fill.AT_ONCE", 8)
    return 8


@pytest.mark.parametrize("warm", [True, False])
def test_a_load_of_more_keys_than_a_connection_may_have_in_flight(at_once, warm):
    """The loader is called once. Every zone gets every value, in spite of the limits on requests and background tasks."""

    @on_zones()
    async def scenario(zones):
        cache, source = zones.client(limits=ConnectionLimits(max_pending=16)), Source("loaded")
        if warm:
            await zones.connect(cache)
        cache._runtime.background._max_tasks = 12
        keys = names(200)
        assert await cache.get_or_load_many(keys, source.load_many) == dict.fromkeys(keys, "loaded")
        assert source.asked == [keys]
        await pass_time(1)
        for key in keys:
            assert zones.values(key) == dict.fromkeys("abc", "loaded")
        assert no_stubs(zones)
        await assert_nothing_left(cache)

    scenario()


@on_zones()
async def test_a_zone_that_hangs_takes_a_bounded_number_of_loaded_values(zones, at_once, monkeypatch):
    """The other values wait for the zone in its lane, and are stored when it resumes."""
    monkeypatch.setattr("evcache.replication.lanes.WINDOW", 4)
    cache, source = await zones.ready(), Source("loaded")
    keys = names(60)
    loading = asyncio.ensure_future(cache.get_or_load_many(keys, source.load_many))
    await started(source)
    zones.pause("c")
    asyncio.get_running_loop().call_later(0.3, zones.resume, "c")
    await pass_time(0.2)
    assert [node.pending for node in nodes_of(cache, "c")] == [4]
    assert await loading == dict.fromkeys(keys, "loaded")
    await pass_time(1)
    for key in keys:
        assert zones.values(key) == dict.fromkeys("abc", "loaded")


@on_zones(zones=2)
async def test_keys_that_another_process_loads_are_looked_at_a_few_at_a_time(zones, at_once):
    first, second = await zones.ready(), await zones.ready(limits=ConnectionLimits(max_pending=16))
    slow, unused = Source("slow", seconds=0.5), Source("unused")
    keys = names(100)
    waiting = asyncio.create_task(first.get_or_load_many(keys, slow.load_many))
    await started(slow)
    assert await second.get_or_load_many(keys, unused.load_many) == dict.fromkeys(keys, "slow")
    assert unused.calls == 0
    assert await waiting == dict.fromkeys(keys, "slow")
    assert no_stubs(zones)
    await assert_nothing_left(first, second)


@pytest.mark.parametrize("moment", ["leases", "loader", "stores"])
@on_zones()
async def test_a_cancelled_load_gives_back_every_lease(zones, at_once, moment):
    """At any moment of the load. Values that were loaded are stored in any case."""
    cache, source = await zones.ready(), Source("loaded", seconds=1 if moment == "loader" else 0)
    keys = names(60)
    loading = asyncio.create_task(cache.get_or_load_many(keys, source.load_many, timeout=30))
    if moment == "leases":
        while not cache.stats().loads.waiting:
            await asyncio.sleep(0)
    else:
        while not source.calls:
            await asyncio.sleep(0)
    zones.pause("a", "b", "c")
    await pass_time(0.05)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    zones.resume("a", "b", "c")
    await pass_time(1)
    if moment == "stores":
        assert {zones.values(key)["a"] for key in keys} == {"loaded"}
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("moment", ["loader", "stores"])
@on_zones()
async def test_close_in_the_middle_of_a_load_leaves_no_task(zones, at_once, moment):
    cache, source = await zones.ready(), Source("loaded", seconds=1 if moment == "loader" else 0)
    loading = asyncio.create_task(cache.get_or_load_many(names(60), source.load_many, timeout=30))
    while not source.calls:
        await asyncio.sleep(0)
    if moment == "stores":
        zones.pause("a", "b", "c")
    await cache.close(0)
    await asyncio.wait([loading])
    loading.exception()
    zones.resume("a", "b", "c")
    await settle()
    assert len(cache._runtime.background) == 0
