"""Lifetimes of hints: sets become checks, and deletes stay until they are delivered."""

import asyncio

import pytest

from evcache import Hints
from tests.support.memory_zones import (
    QUICK,
    TOMBSTONE,
    Listener,
    cut_off,
    on_zones,
    pass_time,
)

BACK_SECONDS = 5.0  # until the client has noticed that a node is back, and has delivered its hints


# What is kept, and for how long.


@on_zones()
async def test_a_set_older_than_a_tombstone_lives_is_not_delivered(zones):
    """Another client may have deleted the value since, and the tombstone has expired. The value must not return."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await zones.kill("c")
    await cache.set("k", "value")
    await pass_time(5)
    other = await zones.ready(hints=None, local_zone="b")
    await other.delete("k")
    await pass_time(70)
    assert zones.values("k") == dict.fromkeys("abc")
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc")
    assert listener.ended[0] == ("c", "expired")
    assert cache.stats().hints == 0


@on_zones()
async def test_a_set_too_old_for_delivery_becomes_a_check(zones):
    """What the other zones hold still is copied, with the time that it has left there."""
    cache = await zones.ready(circuit=QUICK)
    await zones.kill("c")
    written = await cache.set("k", "value", ttl=500)
    await pass_time(100)
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.stored_versions("k") == dict.fromkeys("abc", written.version)
    assert abs(zones.held("k", "c").ttl - zones.held("k", "a").ttl) <= 1


@on_zones()
async def test_a_set_that_grows_too_old_during_a_pass_is_not_delivered(zones):
    """Deliveries may take long. The age of a hint counts when its turn comes."""
    cache = await zones.ready(circuit=QUICK, tombstone_ttl=10, hints=Hints(rate=10))
    await zones.kill("c")
    keys = [f"k{number}" for number in range(200)]
    await cache.set_many(dict.fromkeys(keys, "value"))
    other = await zones.ready(hints=None, local_zone="b", tombstone_ttl=10)
    zones.restart("c")
    await pass_time(1)
    await other.delete_many(keys, consistency="one")
    await pass_time(60)
    assert {value for key in keys for value in zones.values(key).values()} == {None}


@on_zones()
async def test_an_expired_set_is_not_delivered(zones):
    """Its time has passed."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await zones.kill("c")
    await cache.set("k", "value", ttl=5)
    await pass_time(6)
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc")
    assert listener.ended == [("c", "expired")]


@pytest.mark.parametrize("away", [5, 200])
@on_zones()
async def test_an_older_value_does_not_return_when_what_replaced_it_has_expired(zones, away):
    """The zone missed a short-lived value, and comes back with the long-lived one before it: no client reads that."""
    cache = await zones.ready(circuit=QUICK)
    other = await zones.ready(circuit=QUICK, hints=None, local_zone="c")
    await cache.set("k", "long-lived", ttl=6000, consistency="all")
    await cut_off(zones, cache, "c")
    assert await cache.set("k", "short-lived", ttl=2)
    await pass_time(away)
    assert zones.values("k") == {"a": None, "b": None, "c": "long-lived"}
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.held("k", "c").value == TOMBSTONE
    assert await other.get("k") is None
    assert await cache.get("k") is None
    assert cache.stats().hints == 0


@on_zones()
async def test_a_value_that_has_expired_is_replaced_by_nothing_newer_that_is_there(zones):
    """Another client has written since: the zone gets that, and no tombstone."""
    cache = await zones.ready(circuit=QUICK)
    other = await zones.ready(circuit=QUICK, hints=None)
    await cache.set("k", "long-lived", ttl=6000, consistency="all")
    await cut_off(zones, cache, "c")
    assert await cache.set("k", "short-lived", ttl=2)
    await pass_time(5)
    newer = await other.set("k", "newer", ttl=6000, timeout=0.1)
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "newer")
    assert set(zones.stored_versions("k").values()) == {newer.version}


@on_zones()
async def test_a_tombstone_for_an_expired_value_waits_for_a_zone_that_may_hold_it(zones):
    """One version must not be a value in one zone and a tombstone in another."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "older", ttl=6000, consistency="all")
    await cut_off(zones, cache, "c")
    assert await cache.set("k", "newer", ttl=200)
    await pass_time(100)  # the hint of the set lives on as a check
    zones.evict("k", "b")
    await cut_off(zones, cache, "a")
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k")["c"] == "older"
    assert cache.stats().hints == 1
    zones.resume("a")
    await pass_time(2 * BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "newer")
    assert cache.stats().hints == 0


@on_zones()
async def test_a_delete_is_kept_as_long_as_what_it_deletes_may_live(zones):
    """Ten minutes later the zone still holds the value, whose TTL is fifteen. The delete is delivered when the zone is back,
    and its tombstone gets its full TTL."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "value", consistency="all")
    await cut_off(zones, cache, "c")
    deleted = await cache.delete("k")
    await pass_time(600)
    assert zones.values("k") == {"a": None, "b": None, "c": "value"}
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.held("k", "c").value == TOMBSTONE
    assert zones.held("k", "c").version == deleted.version
    assert zones.held("k", "c").ttl > 50


@on_zones()
async def test_a_delete_is_kept_until_it_is_delivered(zones):
    """Another service may have written the value, to live longer than anything that this client has written."""
    writer = await zones.ready(hints=None, local_zone="b")
    await writer.set("k", "value", ttl=100_000, consistency="all")
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener, ttl=3, tombstone_ttl=2)
    await cut_off(zones, cache, "c")
    await cache.delete("k")
    await pass_time(1_000)
    zones.resume("c")
    await pass_time(1.9)
    assert zones.held("k", "c").value == TOMBSTONE
    assert listener.ended == [("c", "delivered")]
    assert cache.stats().hints == 0


class Reader(Listener):
    """Client that reads a key as soon as a node is back, before any delivery."""

    def __init__(self):
        super().__init__()
        self.cache = None
        self.reads = []

    def node_changed(self, zone, node, *, down, why):
        if not down:
            self.reads.append(asyncio.ensure_future(self.cache.get("k", timeout=1)))


@pytest.mark.parametrize("remember", [0, 16_384])
@on_zones()
async def test_a_deleted_value_is_not_read_from_the_zone_that_missed_the_delete(zones, remember):
    """When it comes back, and the tombstones of the other zones are long gone, this client still knows of the delete."""
    reader = Reader()
    cache = reader.cache = await zones.ready(local_zone="c", circuit=QUICK, hooks=reader, remember_versions=remember)
    await cache.set("k", "value", consistency="all")
    await cut_off(zones, cache, "c")
    await cache.delete("k")
    for number in range(50):
        await cache.get(f"other-{number}")
    await pass_time(100)
    assert zones.values("k") == {"a": None, "b": None, "c": "value"}
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert await asyncio.gather(*reader.reads) == [None]
    assert reader.behind == ["c"]
    assert zones.values("k") == {"a": None, "b": None, "c": TOMBSTONE}
