"""Reads and loads of very many keys, on zones in memory: portions, the deadline, and limits on work in flight."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError
from evcache._steps import ByteBudget, run_concurrently
from evcache.zones.transport.limits import ConnectionLimits
from tests.evcache.writes.test_bulk_writes import names, nodes_of, trickle
from tests.support.memory_zones import MemoryZones, Stopwatch, on_zones, pass_time
from tests.support.sources import Source, assert_nothing_left, no_stubs, started
from tests.support.virtual_time import in_virtual_time, settle

PORTION = 10


@pytest.fixture(autouse=True)
def portions(monkeypatch):
    """Read ten keys in a portion, so that fifty are many."""
    monkeypatch.setattr("evcache.reads.portions.PORTION_KEYS", PORTION)
    monkeypatch.setattr("evcache.reads.portions.PORTION_KEYS_PER_NODE", 1)


async def filled(zones: MemoryZones, count: int, **options):
    """Return a connected client, and the values that every zone holds."""
    cache = await zones.ready(**options)
    values = {key: f"v{key}" for key in names(count)}
    assert all((await cache.set_many(values, timeout=5, consistency="all")).values())
    zones.forget()
    return cache, values


@pytest.mark.parametrize("consistency", ["one", "quorum", "all"])
@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("warm", [True, False])
def test_many_keys_are_read_in_portions(consistency, nodes, warm):
    """The result has all keys in the order given, also of a client without connections."""

    @on_zones(nodes=nodes)
    async def scenario(zones):
        cache, values = await filled(zones, 95)
        reader = cache if warm else zones.client()
        assert await reader.get_many([*values, "none"], consistency=consistency, timeout=5) == values
        assert list(await reader.get_many(values, consistency=consistency, timeout=5)) == list(values)

    scenario()


@on_zones()
async def test_few_portions_are_in_flight_at_once(zones):
    """Single reads on the same connection wait behind no more than these."""
    cache, values = await filled(zones, 95)
    zones.pause("a")
    reading = asyncio.ensure_future(cache.get_many(values, timeout=5))
    await pass_time(0.1)
    assert [node.pending for node in nodes_of(cache, "a")] == [3]
    zones.resume("a")
    assert await reading == values


@on_zones()
async def test_portions_that_are_in_time_are_in_the_result(zones):
    """The error has the items read as `found`. With errors as misses they are the result. No circuit opens."""
    cache, values = await filled(zones, 400)
    slow = asyncio.ensure_future(trickle(zones, "a", "b", "c", pause=0.02))
    watch = Stopwatch()
    with pytest.raises(ConsistencyError) as caught:
        await cache.get_many(values, timeout=0.2, fallback_on_miss=False)
    assert watch.seconds == 0.2
    found = caught.value.found
    assert PORTION <= len(found) < len(values)
    assert found.items() <= values.items()
    assert caught.value.answered == 0
    part = await cache.get_many(values, timeout=0.2, errors="miss")
    assert PORTION <= len(part) < len(values)
    assert part.items() <= values.items()
    await pass_time(1)
    assert cache.stats().nodes_down == 0
    slow.cancel()


@on_zones()
async def test_portions_without_any_answer_raise_cache_unavailable(zones):
    """As a read of few keys does."""
    cache, values = await filled(zones, 50)
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await cache.get_many(values, timeout=0.3)
    assert watch.seconds == 0.3
    assert set(caught.value.failures) == {"a", "b", "c"}


@on_zones()
async def test_the_next_zone_serves_portions_that_the_first_does_not(zones):
    cache, values = await filled(zones, 50)
    zones.pause("a")
    assert await cache.get_many(values, timeout=3) == values


@on_zones()
async def test_a_cancelled_read_leaves_nothing(zones):
    cache, values = await filled(zones, 95)
    zones.pause("a", "b", "c")
    reading = asyncio.ensure_future(cache.get_many(values, timeout=5))
    await asyncio.sleep(0.003)  # before the client asks other zones in place of a silent one
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    zones.resume("a", "b", "c")
    zones.forget()
    await pass_time(1)
    assert zones.commands("a").get("mg", 0) == 3 * PORTION  # which were on their way
    assert await cache.get_many(values, timeout=5) == values


# Loads.


@pytest.fixture
def at_once(monkeypatch):
    """Ask for eight leases, and store eight values, at a time."""
    monkeypatch.setattr("evcache.read_through.load.AT_ONCE", 8)
    monkeypatch.setattr("evcache.read_through.bulk_fill.AT_ONCE", 8)
    return 8


@pytest.mark.parametrize("warm", [True, False])
def test_a_load_of_more_keys_than_a_connection_may_have_in_flight(at_once, warm):
    """The loader is called once. Every zone gets every value, in spite of the limits on requests and background tasks."""

    @on_zones()
    async def scenario(zones):
        cache, source = zones.client(limits=ConnectionLimits(max_pending=16)), Source("loaded")
        if warm:
            await zones.connect(cache)
        cache._background._max_tasks = 12
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
    assert len(cache._background) == 0


# The parts.


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
