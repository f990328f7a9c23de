"""Hinted hand-off, on zones in memory: what a zone missed is brought to it when it is back, and nothing that is older."""

import asyncio

import pytest

from evcache import CacheUnavailable, Hints
from tests.support.memory_zones import (
    PATIENT,
    QUICK,
    TOMBSTONE,
    Listener,
    cut_off,
    full,
    on_zones,
    pass_time,
    pause_before_decisions,
)

BACK_SECONDS = 5.0  # after which a node that lives again has been noticed, and has got what it missed

HINT_LESS = {"interop": {"interop": True}, "none": {"hints": None}}


# What a zone missed.


@pytest.mark.parametrize("how", ["dead", "hanging"])
@on_zones()
async def test_what_a_zone_missed_is_brought_to_it(zones, how):
    """Sets and deletes, with the version that the other zones have, and for sets with the time that is left."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, circuit=QUICK)
    await cache.set("gone", "old", consistency="all")
    await (zones.kill("c") if how == "dead" else cut_off(zones, cache, "c"))
    kept = await cache.set("kept", {"v": 1}, ttl=100)
    gone = await cache.delete("gone")
    await pass_time(0.5)  # calls return when enough zones have answered
    assert listener.hints == ["c", "c"]
    assert cache.stats().hints == 2
    assert cache.stats().hint_bytes > 0
    await pass_time(20)
    assert cache.stats().hints == 2
    zones.restart("c") if how == "dead" else zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("kept") == dict.fromkeys("abc", {"v": 1})
    assert zones.values("gone") == dict.fromkeys("abc", TOMBSTONE)
    assert zones.stored_versions("kept") == dict.fromkeys("abc", kept.version)
    assert zones.stored_versions("gone") == dict.fromkeys("abc", gone.version)
    assert 0 < zones.held("kept", "a").ttl - zones.held("kept", "c").ttl <= 3, "a copy ends first"
    assert not zones.held("kept", "c").raw.stale
    assert listener.ended == [("c", "delivered")] * 2
    stats = cache.stats()
    assert (stats.hints, stats.hint_bytes, stats.hints_delivered, stats.hints_dropped) == (0, 0, 2, 0)


@on_zones(write_only="c")
async def test_a_write_only_zone_gets_what_it_missed_too(zones):
    """Zones are filled before they are read."""
    cache = await zones.ready(circuit=QUICK)
    await zones.kill("c")
    await cache.set("k", "value", consistency="all")
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "value")


@on_zones()
async def test_a_write_that_timed_out_is_brought_again(zones):
    """A server that hung for a moment and never was taken for down gets it too, without any sign that it is back."""
    cache = await zones.ready(circuit=PATIENT)
    zones.pause("c")
    await cache.set("k", "value", consistency="all", timeout=0.1)
    assert cache.stats().hints == 1
    zones.resume("c")
    await pass_time(0.4)
    zones.evict("k", "c")  # what the server made of the request that came too late
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "value")
    assert cache.stats().hints == 0


@on_zones(nodes=3)
async def test_each_key_goes_to_its_node(zones):
    """Of a zone with several nodes, some of them down, each gets what it missed, where readers look for it."""
    cache = await zones.ready(circuit=QUICK)
    for fake in zones.servers["c"][:2]:
        await fake.kill()
    values = {f"k{number}": number for number in range(60)}
    await cache.set_many(values, consistency="all")
    assert 0 < cache.stats().hints < 60
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert cache.stats().hints == 0
    there = await zones.ready(local_zone="c")
    assert await there.get_many(list(values), fallback_on_miss=False) == values


@on_zones()
async def test_deletes_are_brought_first(zones):
    """Whatever was missed before: as long as they are not, the zone shows values that are gone."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    await cache.set("first", 1)
    await cache.delete("second")
    await cache.set("third", 3)
    zones.forget()
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    wire = zones.wire("c")
    assert wire.index(full("second")) < wire.index(full("first")) < wire.index(full("third"))


@on_zones()
async def test_of_a_key_the_newest_write_alone_is_brought(zones):
    """What was written in between would only be replaced."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await cut_off(zones, cache, "c")
    for value in ("first", "second"):
        await cache.set("k", value)
    await cache.delete("k")
    last = await cache.set("k", "last")
    assert cache.stats().hints == 1
    zones.forget()
    zones.resume("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "last")
    assert zones.stored_versions("k")["c"] == last.version
    assert b"first" not in zones.wire("c")
    assert b"second" not in zones.wire("c")
    assert listener.ended == [("c", "delivered")]


@on_zones()
async def test_what_was_brought_can_not_replace_what_is_newer(zones):
    """Another client, whose way to the zone was not cut, has written since: its value stays, and the hint has ended."""
    listener = Listener()
    other = await zones.ready()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await cut_off(zones, cache, "c")
    await cache.set("k", "older")
    await pass_time(0.01)  # within a millisecond, chance says which of two clients is the newer one
    zones.resume("c")  # this client delivers its hint some turns of the loop later
    newer = await other.set("k", "newer", consistency="all")
    await pass_time(BACK_SECONDS)
    assert zones.stored_versions("k") == dict.fromkeys("abc", newer.version)
    assert listener.ended == [("c", "superseded")]
    assert cache.stats().hints_delivered == 1


@pytest.mark.parametrize("operation", ["set", "delete"])
@on_zones()
async def test_a_newer_write_that_reaches_the_zone_ends_the_hint(zones, operation):
    """Before anything is brought: there is nothing to bring any more."""
    listener = Listener()
    cache = await zones.ready(circuit=PATIENT, hooks=listener)
    zones.pause("c")
    await cache.set("k", "missed", consistency="all", timeout=0.1)
    assert cache.stats().hints == 1
    zones.resume("c")
    await (cache.set("k", "newer", consistency="all") if operation == "set" else cache.delete("k", consistency="all"))
    assert cache.stats().hints == 0
    assert listener.ended == [("c", "superseded")]
    zones.forget()
    await pass_time(BACK_SECONDS)
    # What there is, is the handshake of the connection that the client tried when the zone did not answer.
    assert {name for name, times in zones.commands("c").items() if times} <= {"mn", "mg", "version", "stats"}


@on_zones()
async def test_a_decision_that_nobody_heard_of_is_spread(zones):
    """The zone that decides hung, and did it after all: it alone has the value, until zones are compared."""
    cache = await zones.ready(circuit=PATIENT)
    pause_before_decisions(zones, cache, *"abc")
    with pytest.raises(CacheUnavailable):
        await cache.add("k", "decided", timeout=0.3)
    zones.resume(*"abc")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "decided")
    assert len(set(zones.stored_versions("k").values())) == 1
    assert cache.stats().hints == 0


# What is kept, and for how long.


@on_zones()
async def test_a_set_that_a_tombstone_does_not_outlive_is_not_brought(zones):
    """Somebody has deleted it since, and the zones have forgotten that by now: the value must not come back."""
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
async def test_a_set_that_is_too_old_to_be_brought_is_looked_for(zones):
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
async def test_a_set_that_grows_too_old_while_others_are_brought_is_not(zones):
    """There may be more to bring than can be brought in time: what counts is its age when its turn comes."""
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
async def test_a_set_that_has_expired_is_not_brought(zones):
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
    """Ten minutes later the zone still holds the value, which could live for fifteen: it is deleted there when it is back,
    and its tombstone begins its time anew."""
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
    """Reads a key as soon as a node is back, before anything can have been brought to it."""

    def __init__(self):
        super().__init__()
        self.cache = None
        self.reads = []

    def node_changed(self, zone, node, *, down, why):
        if not down:
            self.reads.append(asyncio.ensure_future(self.cache.get("k", timeout=1)))


@pytest.mark.parametrize("remember", [0, 16_384])
@on_zones()
async def test_what_was_deleted_is_not_seen_in_the_zone_that_missed_it(zones, remember):
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


# Where nothing is kept.


@on_zones(versions={"a": "1.6.38", "b": "1.6.38", "c": "1.6.18"})
async def test_a_zone_without_versions_gets_none(zones):
    """There a late write can't be told from a newer one."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    await cache.set("k", "value")
    await cache.delete("other")
    zones.resume("c")
    zones.forget()
    await pass_time(BACK_SECONDS)
    assert cache.stats().hints == 0
    assert zones.values("k") == {"a": "value", "b": "value", "c": None}
    assert full("k") not in zones.wire("c")


@pytest.mark.parametrize("options", HINT_LESS)
@on_zones()
async def test_nothing_is_kept_where_it_is_off_or_there_are_no_versions(zones, options):
    """With other kinds of clients around nobody can say what is newer."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener, **HINT_LESS[options])
    await zones.kill("c")
    await cache.set("k", "value")
    await cache.delete("other")
    assert cache.stats().hints == 0
    assert listener.hints == []
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.held("k", "c") is None


@on_zones()
async def test_a_touch_of_a_key_that_is_nowhere_leaves_no_hint(zones):
    """The zones that answer hold nothing, so there is nothing that a zone could miss."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    assert not await cache.touch("nothing", 10)
    assert cache.stats().hints == 0


@on_zones()
async def test_a_decision_that_nobody_heard_of_reaches_a_zone_that_is_back_last(zones):
    """When the zones are compared, one is still down: it is compared when it is back, though nothing was kept for it."""
    cache = await zones.ready(circuit=QUICK)
    before = await cache.set("k", "old", consistency="all")
    coordinator = next(iter((await cache.cas("k", "older", before.version)).zones))
    (other, last) = (zone for zone in "abc" if zone != coordinator)
    item = await cache.get_item("k")
    await zones.kill(last)
    pause_before_decisions(zones, cache, coordinator)
    with pytest.raises(CacheUnavailable):
        await cache.cas("k", "new", item, timeout=0.2)
    zones.resume(coordinator)  # which now does what it was asked, and nobody is told
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == {coordinator: "new", other: "new", last: None}
    zones.restart(last)
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "new")
    assert cache.stats().hints == 0
