"""Reads of one key or many keys that need the answers of several zones."""

import pytest

from evcache import ConsistencyError
from evcache.zones.errors import NodeTimeout, NodeUnavailable
from tests.support.memory_zones import TOMBSTONE, Stopwatch, on_zones, pass_time


async def with_zone_behind(zones, cache, old="old", new="new"):
    """Zone a keeps `old`, the others hold `new`: the newer write never reached a."""
    first = await cache.set("k", old, ttl=100, consistency="all")
    kept = zones.held("k", "a").raw
    second = await cache.set("k", new, ttl=200, consistency="all")
    zones.one("a").store.link(kept, kept.cas)
    assert zones.values("k") == {"a": old, "b": new, "c": new}
    return first, second


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_all_returns_the_newest_and_repairs_those_behind(zones, read):
    """With every zone's answer the newest version wins, and older or missing ones are replaced in the background."""
    cache = await zones.ready()
    _, newest = await with_zone_behind(zones, cache)
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
async def test_a_quorum_of_the_others_knows_better_than_the_local_zone(zones):
    """After a write that a quorum took, a quorum read sees it, whichever zones it hears."""
    cache = await zones.ready()
    await with_zone_behind(zones, cache)
    for paused in "bc":
        zones.pause(paused)
        assert await cache.get("k", consistency="quorum") == "new"
        zones.resume(paused)
        await with_zone_behind(zones, cache)


@on_zones()
async def test_a_newer_tombstone_wins_and_spreads(zones):
    """A delete that some zones missed is a miss to the caller, and reaches them by repair."""
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
async def test_without_versions_the_majority_wins(zones, options):
    """What most zones hold, and the local zone's value when all differ."""
    cache = await zones.ready(**options)
    for zone, data in zip("abc", (b"x", b"y", b"y"), strict=True):
        zones.write_as_another_client("k", data, 0, zone)
        zones.write_as_another_client("tie", zone.encode(), 0, zone)
    assert await cache.get("k", consistency="all") == "y"
    assert await cache.get("tie", consistency="all") == "a"
    assert await cache.get_many(["k", "tie"], consistency="all") == {"k": "y", "tie": "a"}


@on_zones()
async def test_quorum_needs_no_answer_from_a_slow_zone(zones):
    """A quorum read returns with the answers of the quick ones, at once."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.get("k", consistency="quorum") == "value"
    assert watch.seconds == 0


@on_zones()
async def test_a_quorum_of_misses_is_a_miss(zones):
    """A miss is an answer."""
    cache = await zones.ready()
    await zones.kill("c")
    assert await cache.get("k", "default", consistency="quorum") == "default"


@pytest.mark.parametrize(
    ("consistency", "down", "answered", "required"), [("all", "c", 2, 3), ("all", "bc", 1, 3), ("quorum", "bc", 1, 2)]
)
@pytest.mark.parametrize("operation", ["get", "get_item", "get_many"])
@on_zones()
async def test_too_few_answers(zones, consistency, down, answered, required, operation):
    """`ConsistencyError` says how many answered, how many had to, and why the others did not."""
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
async def test_several_answers_by_the_deadline(zones, consistency, seconds):
    """A policy that a hanging zone can still spoil waits for it until the deadline, and not longer."""
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
