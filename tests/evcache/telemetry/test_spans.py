"""Spans of reads, writes, loads and background work: names, attributes, events and children."""

import asyncio

import pytest
from opentelemetry.trace import SpanKind

from evcache import (
    LoadPolicy,
    NearCache,
)
from tests.support.memory_zones import on_zones, pass_time
from tests.support.observed_clients import LOCAL_HIT, MOST, NEXT, ONE, STALE, left, observed_client
from tests.support.sources import Source
from tests.support.telemetry import Bench, Seen, call
from tests.support.virtual_time import settle

# Reads.


@on_zones()
async def test_local_hit(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("k", 1)
    bench.take()
    assert await cache.get("k") == 1
    seen = bench.one()
    assert seen == call("get", LOCAL_HIT)
    assert seen.span.instrumentation_scope.name == "evcache"
    assert (await cache.get_item("k")).value == 1
    assert bench.one() == call("get_item", LOCAL_HIT)
    assert await cache.get_and_touch("k", 60) == 1
    assert bench.one() == call("get_and_touch", LOCAL_HIT)
    assert await cache.get_or_load("k", Source().load) == 1
    assert bench.one() == call("get_or_load", LOCAL_HIT)
    assert await cache.get_or_load_many(["k", "l"], Source(2).load_many) == {"k": 1, "l": 2}
    said = {**ONE, "db.operation.batch.size": 2, "evcache.hits": 2, "evcache.fallback.reason": "miss"}
    assert bench.one() == call("get_or_load_many", said, events=[left("a", "miss"), left("b", "miss")])


@on_zones()
async def test_miss(zones):
    """All zones were asked, and none holds the key."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    assert await cache.get("k") is None
    missed = {**ONE, "evcache.hit": False, "evcache.source": "none", "evcache.fallback.reason": "miss"}
    assert bench.one() == call("get", missed, events=[left("a", "miss"), left("b", "miss")])
    assert await cache.get("k", fallback_on_miss=False) is None
    assert bench.one() == call("get", {**ONE, "evcache.hit": False, "evcache.source": "none"})


@on_zones()
async def test_fallback(zones):
    """The span names the reason and the zone that answered."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("k", 1)
    await zones.kill("a")
    bench.take()
    assert await cache.get("k") == 1
    said = {**ONE, "evcache.hit": True, "evcache.source": "fallback", **NEXT, "evcache.fallback.reason": "ConnectionLost"}
    seen = bench.one()
    why = seen.attributes["evcache.fallback.reason"]
    assert why in ("ConnectionLost", "NodeUnavailable")
    assert seen == call("get", {**said, "evcache.fallback.reason": why}, events=[left("a", why)])


@pytest.mark.parametrize("level", ["quorum", "QUORUM", "all"])
@on_zones()
async def test_read_of_several_zones(zones, level):
    """The attribute is in lower case, in whatever case the call named the level."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("k", 1, consistency="all")
    bench.take()
    assert await cache.get("k", consistency=level) == 1
    assert bench.one() == call("get", {**LOCAL_HIT, "evcache.consistency": level.lower()})


@on_zones()
async def test_near_hit(zones):
    """No server was asked."""
    bench = Bench()
    cache = await observed_client(zones, bench, near_cache=NearCache())
    await cache.set("k", 1)
    await pass_time(6)
    await cache.get("k")
    bench.take()
    zones.forget()
    assert await cache.get("k") == 1
    assert zones.all_commands() == {"a": {}, "b": {}, "c": {}}
    assert bench.one() == call("get", {**ONE, "evcache.hit": True, "evcache.source": "near", "evcache.zone": "a"})


@on_zones()
async def test_many_keys_at_once(zones):
    """The span counts keys and hits, and names no origin. One key is no batch."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    assert all((await cache.set_many({"a": 1, "b": 2})).values())
    said = {**MOST, "db.operation.batch.size": 2, "evcache.zones.acked": 3, "evcache.met": True}
    assert bench.one() == call("set_many", said)
    assert await cache.get_many(["a", "b", "nothing"]) == {"a": 1, "b": 2}
    said = {**ONE, "db.operation.batch.size": 3, "evcache.hits": 2, "evcache.fallback.reason": "miss"}
    assert bench.one() == call("get_many", said, events=[left("a", "miss"), left("b", "miss")])
    assert await cache.get_many(["a"]) == {"a": 1}
    assert bench.one() == call("get_many", {**ONE, "evcache.hits": 1})
    assert all((await cache.delete_many(["a", "b"])).values())
    said = {**MOST, "db.operation.batch.size": 2, "evcache.zones.acked": 3, "evcache.met": True}
    assert bench.one() == call("delete_many", said)


# Writes.


@on_zones()
async def test_writes(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    everywhere = {**MOST, "evcache.zones.acked": 3, "evcache.met": True}
    for name, writing in {
        "set": lambda: cache.set("k", b"1"),
        "append": lambda: cache.append("k", b"2"),
        "replace": lambda: cache.replace("k", b"3"),
        "touch": lambda: cache.touch("k", 60),
        "delete": lambda: cache.delete("k"),
        "add": lambda: cache.add("k", b"4"),
        "invalidate": lambda: cache.invalidate("k"),
    }.items():
        assert await writing()
        await settle()
        assert bench.one() == call(name, everywhere), name


@on_zones()
async def test_write_with_a_zone_down(zones):
    """The remaining zones acknowledge the write."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    await zones.kill("a")
    assert await cache.set("k", 1)
    assert bench.one() == call("set", {**MOST, "evcache.zones.acked": 2, "evcache.met": True})
    assert not await cache.set("k", 1, consistency="all")
    # The call returns as soon as the level is out of reach, and does not wait for the other zones.
    assert bench.one() == call("set", {"evcache.consistency": "all", "evcache.zones.acked": 0, "evcache.met": False})


@on_zones()
async def test_touch_of_an_absent_key_has_no_acknowledgement(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    assert not await cache.touch("k", 60)
    assert bench.one() == call("touch", {**MOST, "evcache.zones.acked": 0, "evcache.met": False})


# Loads.


@on_zones(zones=2)
async def test_spans_of_a_loader_are_children_of_the_call(zones):
    """Reads of the loader from the same cache are children too. A call that joins the load has a span without children."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("other", 2)
    bench.take()

    async def load():
        with bench.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT):
            await asyncio.sleep(0.01)
            return await cache.get("other")

    assert await asyncio.gather(*(cache.get_or_load("k", load) for _ in range(2))) == [2, 2]
    first, second = bench.take()
    read = call("get", LOCAL_HIT)
    assert [child for child in first.children if child.name == "SELECT"] == [Seen("SELECT", {}, children=[read])]
    assert [seen.name for seen in (first, second)] == ["get_or_load t"] * 2
    assert second.children == []
    missed = {**ONE, "evcache.hit": False, "evcache.source": "none", "evcache.fallback.reason": "miss"}
    for seen in (first, second):
        assert seen == call("get_or_load", missed, events=[left("a", "miss")], children=seen.children)


@on_zones(zones=2)
async def test_spans_of_a_writer_are_children_of_the_call(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)

    async def write(value):
        with bench.tracer.start_as_current_span("UPDATE", kind=SpanKind.CLIENT):
            await asyncio.sleep(0)

    assert await cache.write_through("k", 1, write)
    said = {"evcache.consistency": "all_minus_one", "evcache.zones.acked": 2, "evcache.met": True}
    assert bench.one() == call("write_through", said, children=[Seen("UPDATE", {})])


@on_zones(zones=2)
async def test_background_refresh_is_a_separate_trace(zones):
    """It is linked to the call that found the value due, and is the parent of spans of the loader."""
    bench = Bench()
    cache = await observed_client(zones, bench)

    async def load():
        with bench.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT):
            await asyncio.sleep(0.5)
            return 1

    policy = LoadPolicy(jitter=0)
    await cache.get_or_load("k", load, ttl=100, policy=policy)
    await pass_time(81)
    bench.take()
    assert await cache.get_or_load("k", load, ttl=100, policy=policy) == 1
    await pass_time(1)
    reading, refresh = bench.take()
    assert reading.name == "get_or_load t"
    assert reading.children == []
    assert refresh.name == "load t"
    assert refresh.links == [reading.id]
    assert refresh.trace != reading.trace
    assert Seen("SELECT", {}) in refresh.children
    assert refresh.span.end_time > reading.span.end_time


@on_zones(zones=2)
async def test_stale_value_because_its_source_fails(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    source = Source("old")
    await cache.get_or_load("k", source.load, ttl=5, policy=STALE)
    await pass_time(6)
    source.error = LookupError("down")
    bench.take()
    assert await cache.get_or_load("k", source.load, ttl=5, policy=STALE) == "old"
    seen = bench.take()[0]
    assert seen.attributes["evcache.stale"] is True
    assert ("evcache.stale", {"evcache.stale.reason": "error"}) in seen.events
    assert seen.error is None


@on_zones(zones=2)
async def test_failed_loader(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    source = Source(error=LookupError("no such row"))
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load)
    seen = bench.one()
    assert seen.attributes["error.type"] == "LookupError"
    assert seen.error is not None


# Work that outlives its call.


@on_zones()
async def test_repair_is_linked_to_the_read_that_found_the_stale_zone(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "a")
    bench.take()
    with bench.tracer.start_as_current_span("request"):
        assert await cache.get("k") == 1
    await pass_time()
    request, repair = bench.take()
    (reading,) = request.children
    assert reading.attributes["evcache.source"] == "fallback"
    assert repair == call("repair", {"evcache.zone": "a", "evcache.outcome": "stored"})
    assert repair.links == [reading.id]
    assert repair.trace != reading.trace


@on_zones()
async def test_delivery_of_a_hint_is_linked_to_the_write(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    await zones.kill("b")
    with bench.tracer.start_as_current_span("request"):
        assert await cache.set("k", 1)
    (writing,) = bench.one().children
    zones.restart("b")
    await pass_time(20)
    assert zones.held("k", "b").value == 1
    replay = bench.one()
    assert replay == call("replay", {"evcache.zone": "b", "evcache.hint.end": "delivered"})
    assert replay.links == [writing.id]
    assert replay.trace != writing.trace
