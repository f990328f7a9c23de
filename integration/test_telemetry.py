"""Traces and metrics of clients on real servers: what an exporter is given while zones die and come back."""

import asyncio
import time

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from evcache import CacheUnavailable, EVCache, NearCache
from evcache.telemetry.metric_table import DURATION, METRICS
from integration.patience import PATIENT_CALLS
from tests.support.telemetry import Bench, Seen, call

HOME, NEXT = "eu-1a", ("eu-1b", "eu-1c")
COME_BACK_SECONDS = 20.0  # reconnecting waits up to 5 s between attempts


def client(zones, namespace, bench, **options):
    return EVCache(namespace, zones.zones, local_zone=HOME, telemetry=bench.settings(), **PATIENT_CALLS, **options)


def place(seen):
    """Where a span says that its answer came from."""
    return seen.attributes.get("evcache.zone"), f"{seen.attributes['server.address']}:{seen.attributes['server.port']}"


async def until(holds, seconds=COME_BACK_SECONDS):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_what_calls_say_on_each_kind_of_server(zones_of_each_kind, namespace):
    """The nodes are those that hold the keys; what a loader does hangs under its call, all of it under the service's span."""
    zones, bench = zones_of_each_kind, Bench()

    async def load():
        with bench.tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT):
            return 7

    async def main():
        async with client(zones, namespace, bench, near_cache=NearCache()) as cache:
            with bench.tracer.start_as_current_span("request"):
                assert await cache.set("k", 1, consistency="all")
                assert await cache.get("k", near_cache=False) == 1
                assert await cache.get_many(["k", "nothing"], near_cache=False) == {"k": 1}
                assert await cache.get("k", consistency="quorum") == 1
                assert await cache.get_or_load("l", load) == 7
            return cache._runtime.cluster.view

    view = asyncio.run(main())
    request = bench.take()[0]
    written, read, many, quorum, loaded = request.children
    everywhere = {"evcache.consistency": "all", "evcache.zones.acked": 3, "evcache.met": True}
    assert written == call("set", everywhere, namespace=namespace)
    nodes = {pool.name: pool.node(view.ring_position(namespace.encode() + b":k")) for pool in view.readers}
    # Of a quorum, whichever zones answer first: all have the same, and any of them may be named.
    for seen, level, zone in ((read, "one", HOME), (quorum, "quorum", quorum.attributes["evcache.zone"])):
        source = "local" if zone == HOME else "fallback"
        said = {"evcache.consistency": level, "evcache.hit": True, "evcache.source": source, "evcache.zone": zone}
        said |= {"server.address": nodes[zone].endpoint.host, "server.port": nodes[zone].endpoint.port}
        assert seen == call("get", said, namespace=namespace)
        assert place(seen)[1] in zones.zones[zone]
    assert (many.attributes["db.operation.batch.size"], many.attributes["evcache.hits"]) == (2, 1)
    assert [child for child in loaded.children if child.name == "SELECT"] == [Seen("SELECT", {})]
    assert {seen.trace for seen in (written, read, many, quorum, loaded)} == {request.trace}
    assert (request.attributes, request.events) == ({}, [])


def test_an_outage_in_traces_and_numbers(zones, namespace):
    """A read's span names its zone and the reason. A write's span names missing zones, and the hint's delivery is linked to it."""
    bench = Bench()

    async def main():
        async with client(zones, namespace, bench) as cache:
            keys = [f"key-{number}" for number in range(50)]
            await cache.set_many(dict.fromkeys(keys, 1), consistency="all")
            bench.take()
            await asyncio.to_thread(zones.kill, HOME)
            for key in keys:
                assert await cache.get(key) == 1
            reads = bench.take()
            assert await cache.set("missed", 2)
            (written,) = bench.take()
            up = bench.points("evcache.node.up", namespace)
            out = bench.points("evcache.zone.out", namespace)
            pending = bench.points("evcache.hints.pending", namespace)
            await asyncio.to_thread(zones.restart, HOME)
            await until(lambda: not cache.stats().nodes_down and not cache.stats().hints)
            replays = [seen for seen in bench.take() if seen.name.startswith("replay ")]
            return reads, written, up, out, pending, replays, bench.points("evcache.hints.ended", namespace)

    reads, written, up, out, pending, replays, ended = asyncio.run(main())
    assert {seen.attributes["evcache.source"] for seen in reads} == {"fallback"}
    for seen in reads:
        zone, address = place(seen)
        assert zone in NEXT
        assert address in zones.zones[zone]
    reasons = {attributes["evcache.fallback.reason"] for seen in reads for _, attributes in seen.events}
    assert reasons
    assert reasons <= {"ConnectionLost", "NodeUnavailable", "NodeTimeout"}
    assert written.attributes["evcache.zones.acked"] == 2
    assert {zone: number for (zone, *_), number in up.items() if zone == HOME} == {HOME: 0}
    assert out[HOME,] == 1
    assert pending[HOME,] >= 1
    assert [seen.links for seen in replays] == [[written.id]]
    assert replays[0].attributes["evcache.zone"] == HOME
    assert ended["delivered", HOME] >= 1


def test_no_zone_answers(zones, namespace):
    bench = Bench()

    async def main():
        async with client(zones, namespace, bench) as cache:
            await cache.get("k")
            for zone in (HOME, *NEXT):
                await asyncio.to_thread(zones.kill, zone)
            with pytest.raises(CacheUnavailable):
                await cache.get("k")
            failed = bench.take()[-1]
            assert await cache.get("k", 5, errors="miss") == 5
            hidden = bench.take()[-1]
            durations = bench.points(DURATION, namespace)
            return failed, hidden, durations, bench.points("evcache.errors_as_misses", namespace)

    failed, hidden, durations, misses = asyncio.run(main())
    assert failed.attributes["error.type"] == "CacheUnavailable"
    assert failed.error
    assert hidden.error is None
    assert hidden.events[-1] == ("evcache.error_as_miss", {"error.type": "CacheUnavailable"})
    assert durations["get", "memcached", "CacheUnavailable"] == 1
    assert misses == {("CacheUnavailable",): 1}


@pytest.mark.parametrize("node_spans", [False, True])
def test_requests_to_nodes_are_spans_when_that_is_asked_for(shared_zones, namespace, node_spans):
    """Under the call, one for each zone that a write goes to; they tell the zone and the address."""
    bench = Bench()

    async def main():
        settings = bench.settings(node_spans=node_spans)
        async with EVCache(namespace, shared_zones.zones, local_zone=HOME, telemetry=settings, **PATIENT_CALLS) as cache:
            await cache.set("k", 1, consistency="all")
            await cache.get("k")
            bench.take()
            await cache.set("k", 2, consistency="all")
            await cache.get("k")
            return bench.take()

    written, read = asyncio.run(main())
    if not node_spans:
        assert written.children == read.children == []
        return
    assert sorted(child.attributes["evcache.zone"] for child in written.children) == [HOME, *NEXT]
    (asked,) = read.children
    assert asked.attributes["db.operation.name"] == "mg"
    assert place(asked) == place(read)
    assert asked.span.end_time <= read.span.end_time


def test_every_number_can_be_read_under_load_from_another_thread(shared_zones, namespace):
    """As exporters do it. Those that count never go back, and in the end they have counted every read."""
    bench = Bench()
    gets = 3_000

    async def main():
        async with client(shared_zones, namespace, bench, near_cache=NearCache()) as cache:
            await cache.set("k", 1)
            seen = []
            done = False

            def collect():
                while not done:
                    seen.append(sum(bench.points("evcache.reads", namespace).values()))

            collecting = asyncio.ensure_future(asyncio.to_thread(collect))
            try:
                for _ in range(gets // 30):
                    await asyncio.gather(*(cache.get("k", near_cache=turn % 2 == 0) for turn in range(30)))
            finally:
                done = True  # or the thread never ends, and the loop waits for it
            await collecting
            return seen, bench.metrics(), sum(bench.points("evcache.reads", namespace).values())

    seen, metrics, total = asyncio.run(main())
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert total == gets
    gauges = {metric.name for metric in METRICS if metric.kind == "gauge"}
    # Zones that never change have no age, and this client has no channel.
    assert gauges - metrics.keys() == {"evcache.topology.age", "evcache.invalidations.up"}
    assert not trace.get_current_span().is_recording()
