"""Hinted handoff on zones in memory: a zone receives the writes that it missed, and no older ones."""

import pytest

from evcache import CacheUnavailable
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
async def test_a_zone_receives_the_writes_that_it_missed(zones, how):
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
async def test_a_write_only_zone_receives_the_writes_that_it_missed(zones):
    """Zones are filled before they are read."""
    cache = await zones.ready(circuit=QUICK)
    await zones.kill("c")
    await cache.set("k", "value", consistency="all")
    zones.restart("c")
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "value")


@on_zones()
async def test_a_write_that_timed_out_is_delivered(zones):
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
async def test_deletes_are_delivered_first(zones):
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
async def test_only_the_latest_write_of_a_key_is_delivered(zones):
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
async def test_a_delivery_replaces_no_newer_version(zones):
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
    """The write reaches the zone before the delivery, which is not needed any more."""
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
async def test_an_uncertain_decision_is_copied_to_all_zones(zones):
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


# Where nothing is kept.


@on_zones(versions={"a": "1.6.38", "b": "1.6.38", "c": "1.6.18"})
async def test_a_zone_without_versions_gets_none(zones):
    """Without versions, a late write could replace a newer one."""
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
async def test_no_hints_are_stored_if_that_is_off_or_without_versions(zones, options):
    """With other kinds of clients, no client knows which value is newer."""
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
async def test_a_touch_of_a_missing_key_leaves_no_hint(zones):
    """The zones that answer hold nothing, so there is nothing that a zone could miss."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    assert not await cache.touch("nothing", 10)
    assert cache.stats().hints == 0


@on_zones()
async def test_an_uncertain_decision_reaches_the_zone_that_recovers_last(zones):
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
    zones.resume(coordinator)  # it applies the decision now, and its reply is lost
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == {coordinator: "new", other: "new", last: None}
    zones.restart(last)
    await pass_time(BACK_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc", "new")
    assert cache.stats().hints == 0
