"""Parents and sampling of spans, spans of requests to nodes, and spans of several clients."""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult

from tests.support.memory_zones import on_zones, pass_time
from tests.support.observed_clients import LOCAL_HIT, ONE, left, observed_client
from tests.support.sources import Source
from tests.support.telemetry import Bench, call

# Whose spans they are.


@on_zones(zones=2)
async def test_calls_are_children_of_the_current_span(zones):
    """Each call is a child of the span of its own caller, which is the current one again afterwards."""
    bench = Bench()
    cache = await observed_client(zones, bench)

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
    """A sampler that samples by name and records its calls."""

    def __init__(self, takes):
        self.takes = takes
        self.asked = []

    def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, *args, **kwargs):
        self.asked.append(name)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if self.takes(name) else Decision.DROP, attributes)

    def get_description(self):
        return "counts"


@on_zones(zones=2)
async def test_unsampled_parent_creates_no_span(zones):
    """The tracer is not called at all."""
    sampler = CountingSampler(lambda _: False)
    bench = Bench(sampler)
    cache = await observed_client(zones, bench)
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
async def test_unsampled_call_passes_its_decision_to_the_loader(zones):
    """A span of the loader does not start a sampled trace."""
    bench = Bench(ParentBased(ALWAYS_OFF))
    cache = await observed_client(zones, bench)
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
async def test_loader_is_sampled_like_its_call(zones):
    """The sampler would sample a span of the loader without a parent."""
    bench = Bench(ParentBased(CountingSampler(lambda name: name == "SELECT")))
    cache = await observed_client(zones, bench)

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
async def test_events_of_a_call_in_a_loader_do_not_reach_the_outer_span(zones):
    """The span of the inner call is not sampled, and the outer one is."""
    bench = Bench(CountingSampler(lambda name: name in ("request", "get_or_load t")))
    cache = await observed_client(zones, bench)

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
async def test_node_spans_are_children_of_their_call(zones):
    """A write has one for each zone, a read one for each zone that it tries."""
    bench = Bench()
    cache = await observed_client(zones, bench, telemetry={"node_spans": True})

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
    assert (repair.name, repair.children) == ("repair t", [])  # the call has ended, and no request starts a trace


@on_zones()
async def test_unsampled_parent_creates_no_node_span(zones):
    bench = Bench(ParentBased(ALWAYS_OFF))
    cache = await observed_client(zones, bench, telemetry={"node_spans": True})
    await cache.set("k", 1)
    assert await cache.get("k") == 1
    assert bench.take() == []


@on_zones(zones=2)
async def test_spans_of_the_service_are_not_changed(zones):
    """The sampler samples only spans of the service, and the first call of a client has no span."""
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
async def test_clients_with_different_providers_are_separate(zones):
    """One client has traces disabled, another has a different provider."""
    bench, other = Bench(ALWAYS_ON), Bench()
    caches = [
        await observed_client(zones, bench),
        await observed_client(zones, other, namespace="other"),
        await observed_client(zones, bench, telemetry={"traces": False}),
        await observed_client(zones, bench, telemetry={"metrics": False}, namespace="bare"),
    ]
    for cache in caches:
        await cache.get("k", fallback_on_miss=False)
    assert [one.name for one in bench.take()] == ["get t", "get bare"]
    assert [one.name for one in other.take()] == ["get other"]
    assert bench.points("db.client.operation.duration", "bare") == {}
    assert bench.points("evcache.reads", "bare") == {}
