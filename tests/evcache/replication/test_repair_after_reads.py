"""Repair of zones that a read found without an item: which copies are made, and with which TTL."""

import asyncio

import pytest

from evcache import Outcome
from tests.support.memory_zones import TOMBSTONE, Listener, on_zones, pass_time


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_a_miss_is_repaired_with_the_time_that_is_left(zones, read):
    """A zone that missed gets the value, its version and the seconds that the original has left, in the background."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    result = await cache.set("k", {"v": 1}, ttl=100, consistency="all")
    zones.evict("k", "a")
    await pass_time(40)
    if read == "get_many":
        assert await cache.get_many(["k"]) == {"k": {"v": 1}}
    else:
        assert await getattr(cache, read)("k")
    assert zones.held("k", "a") is None  # the caller does not wait for it
    await pass_time()
    held = zones.held("k", "a")
    assert held.value == {"v": 1}
    assert held.version == result.version
    assert held.ttl == zones.held("k", "b").ttl - 2, "it ends before the original does"
    assert not held.raw.stale


@on_zones()
async def test_the_hook_is_told_which_zone_was_repaired(zones):
    """`repaired` names the zone, as every other hook does."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert listener.repairs == [("a", Outcome.STORED)]


@on_zones()
async def test_an_item_that_never_expires_is_repaired_as_such(zones):
    """No TTL stays no TTL."""
    cache = await zones.ready()
    await cache.set("k", 1, ttl=float("inf"), consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == 1
    await pass_time()
    assert zones.held("k", "a").ttl is None
    assert zones.held("k", "a").value == 1


@on_zones()
async def test_over_30_days_left_are_repaired_as_such(zones):
    """A copy of an item that has 40 days left has nearly as many, though servers take large numbers for dates."""
    cache = await zones.ready()
    await cache.set("k", 1, ttl=40 * 86400, consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert zones.held("k", "b").ttl - zones.held("k", "a").ttl == 2


@on_zones()
async def test_a_repair_does_not_bring_back_what_was_deleted_meanwhile(zones):
    """A delete that comes between the read and the repair wins."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    found = asyncio.create_task(cache.get("k"))
    deleted = asyncio.create_task(cache.delete("k", consistency="all"))
    await asyncio.gather(found, deleted)
    await pass_time()
    assert set(zones.values("k").values()) == {TOMBSTONE}


@on_zones()
async def test_nothing_is_repaired_without_versions(zones):
    """With other kinds of clients around nobody can say what is newer, so nothing is copied."""
    cache = await zones.ready(interop=True)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    zones.forget()
    assert await cache.get("k") == "value"
    assert await cache.get("k", consistency="all") == "value"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "value", "c": "value"}


@on_zones(versions="1.6.18")
async def test_nothing_is_repaired_on_servers_without_versions(zones):
    """The same on servers that can't keep versions."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == "value"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "value", "c": "value"}


@on_zones()
async def test_items_of_other_clients_are_read_and_not_repaired(zones):
    """An item with a small CAS has no version: it is returned, and copied nowhere."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"theirs", 0, "b")
    assert await cache.get("k") == "theirs"
    assert (await cache.get_item("k")).version is None
    assert await cache.get("k", consistency="all") == "theirs"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "theirs", "c": None}


@on_zones()
async def test_repairs_are_bounded(zones):
    """A zone that came back empty is not sent everything at once; what was left out is repaired by later reads."""
    cache = await zones.ready()
    keys = [f"k{number}" for number in range(200)]
    await cache.set_many(dict.fromkeys(keys, "v"), consistency="all")
    for key in keys:
        zones.evict(key, "a")
    assert len(await cache.get_many(keys)) == 200
    await pass_time()
    first = sum(zones.held(key, "a") is not None for key in keys)
    assert 0 < first < 200
    for _ in range(4):
        await cache.get_many(keys)
        await pass_time()
    assert all(zones.held(key, "a") is not None for key in keys)
