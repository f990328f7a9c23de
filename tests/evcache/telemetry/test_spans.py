"""The spans that calls make: their names, what they say, and what hangs under what."""

import asyncio
import hashlib

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind

from evcache import (
    CacheUnavailable,
    ConsistencyError,
    LoadPolicy,
    NearCache,
    ServerError,
)
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import Source, started
from tests.support.telemetry import Bench, Seen, call
from tests.support.virtual_time import settle

ONE = {"evcache.consistency": "one"}
MOST = {"evcache.consistency": "all_minus_one"}
HOME = {"evcache.zone": "a", "server.address": "a0", "server.port": 11211}
NEXT = {"evcache.zone": "b", "server.address": "b0", "server.port": 11211}
LOCAL_HIT = {**ONE, "evcache.hit": True, "evcache.source": "local", **HOME}
DOWN = "[Errno 111] the server is not running"

STALE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


def left(zone, why):
    """The event of a read that goes on to the next zone."""
    return "evcache.fallback", {"evcache.zone": zone, "evcache.fallback.reason": why}


async def client(zones, bench, **options):
    """Connected, and nothing told so far. The read order of the zones is that of their names."""
    settings = bench.settings(**options.pop("telemetry", {}))
    cache = await zones.ready(telemetry=settings, **options)
    view = cache._runtime.cluster.view
    while [pool.name for pool in view.readers] != sorted(pool.name for pool in view.readers):
        await cache.close()
        cache = await zones.ready(telemetry=settings, **options)
        view = cache._runtime.cluster.view
    if options.get("near_cache") is not None:
        follow_loop(cache)
        await pass_time(6)  # nothing is kept in the first seconds
    bench.take()
    return cache


# Reads.


@on_zones()
async def test_a_local_hit(zones):
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_a_miss(zones):
    """Every zone was asked, and none has it."""
    bench = Bench()
    cache = await client(zones, bench)
    assert await cache.get("k") is None
    missed = {**ONE, "evcache.hit": False, "evcache.source": "none", "evcache.fallback.reason": "miss"}
    assert bench.one() == call("get", missed, events=[left("a", "miss"), left("b", "miss")])
    assert await cache.get("k", fallback_on_miss=False) is None
    assert bench.one() == call("get", {**ONE, "evcache.hit": False, "evcache.source": "none"})


@on_zones()
async def test_a_fallback(zones):
    """What made it go on, and who answered."""
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_a_read_of_several_zones(zones, level):
    """The level as it is written in the docs, however the call wrote it."""
    bench = Bench()
    cache = await client(zones, bench)
    await cache.set("k", 1, consistency="all")
    bench.take()
    assert await cache.get("k", consistency=level) == 1
    assert bench.one() == call("get", {**LOCAL_HIT, "evcache.consistency": level.lower()})


@on_zones()
async def test_a_near_hit(zones):
    """No server has been asked."""
    bench = Bench()
    cache = await client(zones, bench, near_cache=NearCache())
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
    """How many were asked for, and had a value; nothing of a single one of them. One key is no batch."""
    bench = Bench()
    cache = await client(zones, bench)
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
    cache = await client(zones, bench)
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
async def test_a_write_with_a_zone_down(zones):
    """It is met by the others."""
    bench = Bench()
    cache = await client(zones, bench)
    await zones.kill("a")
    assert await cache.set("k", 1)
    assert bench.one() == call("set", {**MOST, "evcache.zones.acked": 2, "evcache.met": True})
    assert not await cache.set("k", 1, consistency="all")
    # As soon as it can't be met any more: of the others nobody waits for.
    assert bench.one() == call("set", {"evcache.consistency": "all", "evcache.zones.acked": 0, "evcache.met": False})


@on_zones()
async def test_a_touch_of_what_is_not_there_is_acknowledged_by_nobody(zones):
    bench = Bench()
    cache = await client(zones, bench)
    assert not await cache.touch("k", 60)
    assert bench.one() == call("touch", {**MOST, "evcache.zones.acked": 0, "evcache.met": False})


# Loads.


@on_zones(zones=2)
async def test_what_a_loader_does_hangs_under_the_call(zones):
    """Also what it reads from the same cache. Whoever joins the load has a span of his own, with nothing under it."""
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_what_a_writer_does_hangs_under_the_call(zones):
    bench = Bench()
    cache = await client(zones, bench)

    async def write(value):
        with bench.tracer.start_as_current_span("UPDATE", kind=SpanKind.CLIENT):
            await asyncio.sleep(0)

    assert await cache.write_through("k", 1, write)
    said = {"evcache.consistency": "all_minus_one", "evcache.zones.acked": 2, "evcache.met": True}
    assert bench.one() == call("write_through", said, children=[Seen("UPDATE", {})])


@on_zones(zones=2)
async def test_a_refresh_that_nobody_waits_for_is_a_trace_of_its_own(zones):
    """Linked to the call that found the value due; what the loader does hangs under it."""
    bench = Bench()
    cache = await client(zones, bench)

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
async def test_a_value_that_is_served_after_its_time(zones):
    """Because its source fails."""
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_a_loader_that_fails(zones):
    """The span says what its caller was told."""
    bench = Bench()
    cache = await client(zones, bench)
    source = Source(error=LookupError("no such row"))
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load)
    seen = bench.one()
    assert seen.attributes["error.type"] == "LookupError"
    assert seen.error is not None


# Work that outlives its call.


@on_zones()
async def test_a_repair_is_linked_to_the_read_that_found_the_lack(zones):
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_a_delivery_is_linked_to_the_write_that_a_zone_missed(zones):
    bench = Bench()
    cache = await client(zones, bench)
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


# Errors.


@on_zones(zones=2)
async def test_no_zone_answers(zones):
    bench = Bench()
    cache = await client(zones, bench)
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    bench.take()
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    seen = bench.one()
    said = {**ONE, "error.type": "CacheUnavailable", "evcache.fallback.reason": "NodeUnavailable"}
    assert seen == call("get", said, events=[left("a", "NodeUnavailable")], error=seen.error)
    assert "no zone could answer" in seen.error
    assert await cache.get("k", "default", errors="miss") == "default"
    hidden = ("evcache.error_as_miss", {"error.type": "CacheUnavailable"})
    said = {**ONE, "evcache.fallback.reason": "NodeUnavailable"}
    assert bench.one() == call("get", said, events=[left("a", "NodeUnavailable"), hidden])


@on_zones()
async def test_too_few_zones_answer(zones):
    bench = Bench()
    cache = await client(zones, bench)
    await zones.kill("a")
    with pytest.raises(ConsistencyError):
        await cache.get("k", consistency="all")
    seen = bench.one()
    assert seen == call("get", {"evcache.consistency": "all", "error.type": "ConsistencyError"}, error=seen.error)
    assert "3 zones that must answer" in seen.error


@pytest.mark.parametrize("keys", ["none", "hashed", "clear"])
@on_zones(zones=1)
async def test_a_server_refuses(zones, keys):
    """Its word for it is the status code. What this client says in a server's place is none."""
    bench = Bench()
    cache = await client(zones, bench, telemetry={"keys": keys})
    await cache.set("secret", "text")
    bench.take()
    with pytest.raises(ServerError):
        await cache.incr("secret")
    seen = bench.one()
    assert seen.attributes["error.type"] == "ServerError"
    assert seen.attributes.get("db.response.status_code") in (None, "CLIENT_ERROR", "SERVER_ERROR", "ERROR")
    assert seen.error is not None
    if keys != "clear":
        assert "secret" not in repr(list(seen.everything()))


@on_zones(zones=1)
async def test_the_status_code_is_the_servers_word(zones, monkeypatch):
    bench = Bench()
    cache = await client(zones, bench)

    async def refused(*_, **__):
        raise ServerError("SERVER_ERROR out of memory storing object", "a0:11211")

    monkeypatch.setattr(cache._runtime.writer, "coordinate", refused)
    with pytest.raises(ServerError):
        await cache.incr("k", initial=1)
    said = {**MOST, "error.type": "ServerError", "db.response.status_code": "SERVER_ERROR"}
    seen = bench.one()
    assert seen == call("incr", said, error=seen.error)


@on_zones(zones=1)
async def test_a_cancelled_call(zones):
    bench = Bench()
    cache = await client(zones, bench)
    zones.pause("a")
    reading = asyncio.ensure_future(cache.get("k"))
    await settle()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    seen = bench.one()
    assert seen == call("get", {**ONE, "error.type": "CancelledError"}, error="the caller was cancelled")
    zones.resume("a")


@on_zones(zones=1)
async def test_a_loaders_cancelled_caller(zones):
    """The load goes on for the other one."""
    bench = Bench()
    cache = await client(zones, bench)
    source = Source("v", seconds=1)
    first, second = (asyncio.ensure_future(cache.get_or_load("k", source.load)) for _ in range(2))
    await started(source)
    first.cancel()
    assert await second == "v"
    seen = bench.take()
    assert [one.attributes.get("error.type") for one in seen] == ["CancelledError", None]


# Keys.


@pytest.mark.parametrize("key", ["secret", b"secret", "geh\u00e9im"])
@pytest.mark.parametrize("by_name", [False, True])
@on_zones(zones=2)
async def test_keys_are_said_only_as_is_asked_for(zones, key, by_name):
    raw = key if isinstance(key, bytes) else key.encode()
    said = {"none": None, "hashed": hashlib.sha256(raw).hexdigest()[:32], "clear": raw.decode()}
    for keys, shown in said.items():
        bench = Bench()
        cache = await client(zones, bench, telemetry={"keys": keys})
        await (cache.get(key=key) if by_name else cache.get(key))
        seen = bench.one()
        assert seen.attributes.get("evcache.key") == shown, keys
        if keys != "clear":
            assert raw.decode() not in repr(list(seen.everything()))


@on_zones(zones=1)
async def test_errors_do_not_give_keys_away(zones):
    """Messages of errors name them, for the caller alone."""
    bench = Bench()
    cache = await client(zones, bench)
    source = Source("v", seconds=60, error=LookupError("no row for secret"))
    with pytest.raises(TimeoutError, match="secret"):
        await cache.get_or_load("secret", source.load, timeout=1)
    source.seconds = 0
    with pytest.raises(LookupError):
        await cache.get_or_load("secret2", source.load)
    with pytest.raises(ValueError, match="secret"):
        await cache.get("secret and\nspaces" * 100)
    zones.write_as_another_client("secret", b"\xc1", 0x2, "a")
    with pytest.raises(Exception, match="secret"):
        await cache.get("secret")
    await pass_time(100)
    seen = bench.take()
    assert len(seen) >= 4
    assert all(one.error is not None for one in seen[:4])
    assert "secret" not in repr([list(one.everything()) for one in seen])


# Whose spans they are.


@on_zones(zones=2)
async def test_calls_hang_under_the_span_that_is_current(zones):
    """Each under its own caller's, also when they run at once; which is current again after the call."""
    bench = Bench()
    cache = await client(zones, bench)

    async def request(name):
        with bench.tracer.start_as_current_span(name) as span:
            await cache.get("k")
            assert trace.get_current_span() is span
            await cache.set(name, 1)
            assert trace.get_current_span() is span

    await asyncio.gather(*(request(f"request-{number}") for number in range(3)))
    seen = bench.take()
    assert [one.name for one in seen] == [f"request-{number}" for number in range(3)]
    for one in seen:
        assert [child.name for child in one.children] == ["get t", "set t"]
        assert {child.trace for child in one.children} == {one.trace}
        assert (one.attributes, one.events) == ({}, [])
    assert len({one.trace for one in seen}) == 3


class CountingSampler(Sampler):
    """Samples what it is told to, and counts how often it is asked."""

    def __init__(self, takes):
        self.takes = takes
        self.asked = []

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, *args, **kwargs):
        self.asked.append(name)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if self.takes(name) else Decision.DROP, attributes)

    def get_description(self):
        return "counts"


@on_zones(zones=2)
async def test_under_a_span_that_is_not_sampled_nothing_is_made(zones):
    """Not even a span that is thrown away: nothing is asked of the tracer."""
    sampler = CountingSampler(lambda _: False)
    bench = Bench(sampler)
    cache = await client(zones, bench)
    sampler.asked.clear()
    source = Source("v")
    with bench.tracer.start_as_current_span("request") as span:
        await cache.set("k", 1)
        await cache.get("k")
        await cache.get_many(["k", "l"])
        zones.evict("k", "a")
        await cache.get("k")
        await cache.get_or_load("l", source.load)
        assert trace.get_current_span() is span
    await pass_time()
    assert sampler.asked == ["request"]
    assert bench.take() == []


@on_zones(zones=2)
async def test_without_any_sampling_nothing_is_told(zones):
    """Nor does what a loader does begin a trace of its own, with nothing above it."""
    bench = Bench(ParentBased(ALWAYS_OFF))
    cache = await client(zones, bench)
    spans = []

    async def load():
        with bench.tracer.start_as_current_span("SELECT") as span:
            spans.append(span.get_span_context())
            spans.append(trace.get_current_span().get_span_context())
            return 1

    await cache.set("k", 1)
    await cache.get("k")
    await cache.get_or_load("l", load)
    assert not any(span.trace_flags.sampled for span in spans)
    assert bench.take() == []


@on_zones(zones=2)
async def test_what_a_loader_does_is_sampled_as_its_call_is(zones):
    """Although the sampler would take it, had it nothing above it."""
    bench = Bench(ParentBased(CountingSampler(lambda name: name == "SELECT")))
    cache = await client(zones, bench)

    async def load():
        with bench.tracer.start_as_current_span("SELECT"):
            return 1

    async def load_many(keys):
        return dict.fromkeys(keys, await load())

    async def write(_):
        await load()

    await cache.get_or_load("k", load)
    await cache.get_or_load_many(["l", "m"], load_many)
    await cache.write_through("n", 1, write)
    assert bench.take() == []


@on_zones(zones=2)
async def test_what_a_call_in_a_loader_meets_is_not_noted_to_the_call_around_it(zones):
    """Its own span is not sampled, and the one around it is."""
    bench = Bench(CountingSampler(lambda name: name in ("request", "get_or_load t")))
    cache = await client(zones, bench)

    async def load():
        await cache.get("other")
        return await cache.get("another", 1, fallback_on_miss=False)

    with bench.tracer.start_as_current_span("request"):
        assert await cache.get_or_load("k", load) == 1
    missed = {**ONE, "evcache.hit": False, "evcache.source": "none", "evcache.fallback.reason": "miss"}
    (loaded,) = bench.one().children
    assert loaded == call("get_or_load", missed, events=[left("a", "miss")])


# Requests to nodes.


@on_zones()
async def test_requests_to_nodes_are_spans_under_their_call_when_asked_for(zones):
    """One for each zone that a write goes to, and for each that a read tries."""
    bench = Bench()
    cache = await client(zones, bench, telemetry={"node_spans": True})

    def request(command, zone, **more):
        attributes = {"server.address": f"{zone}0", "server.port": 11211, "evcache.zone": zone}
        seen = call(command, attributes, **more)
        seen.name = f"{command} {zone}0:11211"
        return seen

    assert await cache.set("k", 1, consistency="all")
    assert bench.one().children == [request("ms", zone) for zone in "abc"]
    assert await cache.get("k") == 1
    assert bench.one() == call("get", LOCAL_HIT, children=[request("mg", "a")])
    zones.pause("a")
    assert await cache.get("k") == 1
    failed, answered = bench.one().children
    assert answered == request("mg", "b")
    assert failed.attributes["error.type"] == "NodeTimeout"
    assert failed.error
    assert failed.attributes["evcache.zone"] == "a"
    zones.resume("a")
    await pass_time(20)
    zones.evict("k", "a")
    bench.take()
    assert await cache.get("k") == 1
    await pass_time()
    reading, repair = bench.take()
    assert reading.children == [request("mg", "a"), request("mg", "b")]
    assert (repair.name, repair.children) == ("repair t", [])  # nor is any a trace of its own: the call has ended


@on_zones()
async def test_under_a_span_that_is_not_sampled_requests_make_none(zones):
    bench = Bench(ParentBased(ALWAYS_OFF))
    cache = await client(zones, bench, telemetry={"node_spans": True})
    await cache.set("k", 1)
    assert await cache.get("k") == 1
    assert bench.take() == []


@on_zones(zones=2)
async def test_nothing_is_written_to_the_services_own_spans(zones):
    """A sampler takes those, and not the client's; and the first call of a client is not observed yet."""
    sampler = CountingSampler(lambda name: name == "request")
    bench = Bench(sampler)
    cache = zones.client(telemetry=bench.settings())
    with bench.tracer.start_as_current_span("request"):
        await cache.get("k")  # opens it
        await cache.get("k", errors="miss")
        zones.pause("a", "b")
        await cache.get("k", errors="miss")
        await cache.set("k", 1, errors="miss")
    zones.resume("a", "b")
    seen = bench.one()
    assert (seen.attributes, seen.events, seen.children) == ({}, [], [])


@on_zones(zones=2)
async def test_the_tracers_of_two_clients_are_apart(zones):
    """One of them wants no traces at all; another has a provider of its own."""
    bench, other = Bench(ALWAYS_ON), Bench()
    caches = [
        await client(zones, bench),
        await client(zones, other, namespace="other"),
        await client(zones, bench, telemetry={"traces": False}),
        await client(zones, bench, telemetry={"metrics": False}, namespace="bare"),
    ]
    for cache in caches:
        await cache.get("k", fallback_on_miss=False)
    assert [one.name for one in bench.take()] == ["get t", "get bare"]
    assert [one.name for one in other.take()] == ["get other"]
    assert bench.points("db.client.operation.duration", "bare") == {}
    assert bench.points("evcache.reads", "bare") == {}
