"""Repair of zones that a read found without an item: which copies are made, and with which TTL."""

import asyncio

import pytest

from evcache import Outcome
from tests.support.memory_zones import TOMBSTONE, Listener, on_zones, pass_time


@pytest.mark.parametrize("read", ["get", "get_item", "get_many"])
@on_zones()
async def test_a_zone_that_missed_gets_a_copy_with_the_time_left(zones, read):
    """In the background, with the version."""
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
async def test_the_hook_names_the_repaired_zone(zones):
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert listener.repairs == [("a", Outcome.STORED)]


@on_zones()
async def test_a_copy_of_an_item_without_expiry_does_not_expire(zones):
    cache = await zones.ready()
    await cache.set("k", 1, ttl=float("inf"), consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == 1
    await pass_time()
    assert zones.held("k", "a").ttl is None
    assert zones.held("k", "a").value == 1


@on_zones()
async def test_a_copy_may_have_more_than_30_days_left(zones):
    """Servers read larger numbers as a date."""
    cache = await zones.ready()
    await cache.set("k", 1, ttl=40 * 86400, consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert zones.held("k", "b").ttl - zones.held("k", "a").ttl == 2


@on_zones()
async def test_a_delete_between_the_read_and_the_repair_wins(zones):
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    found = asyncio.create_task(cache.get("k"))
    deleted = asyncio.create_task(cache.delete("k", consistency="all"))
    await asyncio.gather(found, deleted)
    await pass_time()
    assert set(zones.values("k").values()) == {TOMBSTONE}


@on_zones()
async def test_with_interop_nothing_is_repaired(zones):
    """The client cannot tell which copy is newer."""
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
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k") == "value"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "value", "c": "value"}


@on_zones()
async def test_items_of_other_clients_are_read_and_not_repaired(zones):
    """An item with a small CAS has no version."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"theirs", 0, "b")
    assert await cache.get("k") == "theirs"
    assert (await cache.get_item("k")).version is None
    assert await cache.get("k", consistency="all") == "theirs"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "theirs", "c": None}


@on_zones()
async def test_repairs_are_bounded(zones):
    """A zone that recovered without data is not sent all copies at once. Later reads repair the rest."""
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
