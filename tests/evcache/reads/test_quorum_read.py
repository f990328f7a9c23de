"""Reads of one key or many keys that need the answers of several zones."""

import pytest

from evcache import ConsistencyError
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from tests.support.memory_zones import TOMBSTONE, Stopwatch, on_zones, pass_time


async def with_stale_zone(zones, cache, old="old", new="new"):
    """Leave the older value in zone a. The other zones hold the later one. Return the results of both writes."""
    first = await cache.set("k", old, ttl=100, consistency="all")
    kept = zones.held("k", "a").raw
    second = await cache.set("k", new, ttl=200, consistency="all")
    zones.one("a").store.link(kept, kept.cas)
    assert zones.values("k") == {"a": old, "b": new, "c": new}
    return first, second


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_all_returns_the_latest_version_and_repairs_stale_zones(zones, read):
    """The repair runs in the background. It replaces older copies and adds missing ones."""
    cache = await zones.ready()
    _, newest = await with_stale_zone(zones, cache)
    zones.evict("k", "c")
    if read == "get_many":
        assert await cache.get_many(["k"], consistency="all") == {"k": "new"}
    elif read == "get_item":
        item = await cache.get_item("k", consistency="all")
        assert (item.value, item.version, item.zone, item.ttl) == ("new", newest.version, "b", 200)
    else:
        assert await cache.get("k", consistency="all") == "new"
    await pass_time()
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)
    assert zones.values("k") == dict.fromkeys("abc", "new")
    assert {zone: zones.held("k", zone).ttl for zone in "abc"} == {"a": 197, "b": 199, "c": 197}


@on_zones()
async def test_a_quorum_read_sees_a_quorum_write(zones):
    """The local zone is stale. Any two zones include one that has the write."""
    cache = await zones.ready()
    await with_stale_zone(zones, cache)
    for paused in "bc":
        zones.pause(paused)
        assert await cache.get("k", consistency="quorum") == "new"
        zones.resume(paused)
        await with_stale_zone(zones, cache)


@on_zones()
async def test_a_later_tombstone_wins_and_is_copied(zones):
    """The read is a miss. A zone that missed the delete gets the tombstone by repair."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    kept = zones.held("k", "a").raw
    deleted = await cache.delete("k", consistency="all")
    zones.one("a").store.link(kept, kept.cas)
    assert await cache.get("k", consistency="all") is None
    assert await cache.get_many(["k"], consistency="all") == {}
    await pass_time()
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
    assert zones.stored_versions("k") == dict.fromkeys("abc", deleted.version)


@pytest.mark.parametrize("options", [{"interop": True}, {}])
@on_zones()
async def test_without_versions_the_majority_value_wins(zones, options):
    """On a tie the value of the local zone wins."""
    cache = await zones.ready(**options)
    for zone, data in zip("abc", (b"x", b"y", b"y"), strict=True):
        zones.write_as_another_client("k", data, 0, zone)
        zones.write_as_another_client("tie", zone.encode(), 0, zone)
    assert await cache.get("k", consistency="all") == "y"
    assert await cache.get("tie", consistency="all") == "a"
    assert await cache.get_many(["k", "tie"], consistency="all") == {"k": "y", "tie": "a"}


@on_zones()
async def test_quorum_does_not_wait_for_a_slow_zone(zones):
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k", consistency="quorum") == "value"
    assert watch.seconds == 0


@on_zones()
async def test_a_quorum_of_misses_is_a_miss(zones):
    cache = await zones.ready()
    await zones.kill("c")
    assert await cache.get("k", "default", consistency="quorum") == "default"


@pytest.mark.parametrize(
    ("consistency", "down", "answered", "required"), [("all", "c", 2, 3), ("all", "bc", 1, 3), ("quorum", "bc", 1, 2)]
)
@pytest.mark.parametrize("operation", ["get", "get_item", "get_many"])
@on_zones()
async def test_too_few_answers_raise_consistency_error(zones, consistency, down, answered, required, operation):
    """The error holds the number of answers, the number required, and the failures."""
    cache = await zones.ready()
    await zones.kill(*down)
    call = ["k"] if operation == "get_many" else "k"
    with pytest.raises(ConsistencyError) as caught:
        await getattr(cache, operation)(call, consistency=consistency)
    error = caught.value
    assert (error.answered, error.required) == (answered, required)
    assert error.failures
    assert set(error.failures) <= set(down)
    assert all(isinstance(failure, NodeUnavailable) for failure in error.failures.values())
    assert all(error.failures[zone].node == f"{zone}0:11211" for zone in error.failures)


@pytest.mark.parametrize(("consistency", "seconds"), [("quorum", 0), ("all", 0.25)])
@on_zones()
async def test_a_level_that_needs_a_hanging_zone_ends_at_the_deadline(zones, consistency, seconds):
    """Other levels do not wait."""
    cache = await zones.ready()
    zones.pause("c")
    watch = Stopwatch()
    if consistency == "all":
        with pytest.raises(ConsistencyError) as caught:
            await cache.get("k", consistency=consistency, timeout=0.25)
        assert isinstance(caught.value.failures["c"], NodeTimeout)
    else:
        await cache.get("k", consistency=consistency, timeout=0.25)
    assert watch.seconds == pytest.approx(seconds)
