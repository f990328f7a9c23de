"""Reads of very many keys, on zones in memory: portions, the deadline, and cancellation."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError
from tests.evcache.writes.test_bulk_writes import names, nodes_of, trickle
from tests.support.memory_zones import MemoryZones, Stopwatch, keys_read, on_zones, pass_time

PORTION = 10


@pytest.fixture(autouse=True)
def portions(monkeypatch):
    """Read ten keys in a portion, so that fifty are many."""
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS", PORTION)
    monkeypatch.setattr("evcache.reads.bulk.portions.PORTION_KEYS_PER_NODE", 1)


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
    assert sum(map(keys_read, zones.sent["a"])) == 3 * PORTION  # which were on their way
    zones.resume("a", "b", "c")
    zones.forget()
    await pass_time(1)
    assert zones.sent["a"] == []
    assert await cache.get_many(values, timeout=5) == values
