"""Durations of calls, metrics of several clients, and reads by exporters in other threads."""

import asyncio
import gc
import logging
import threading
import weakref

import pytest
from opentelemetry.sdk.metrics.export import Histogram

from evcache import (
    CacheUnavailable,
    EVCache,
)
from evcache.telemetry import operations
from evcache.telemetry.metric_table import DURATION, DURATION_BUCKETS
from evcache.zones import Topology
from tests.support.memory_zones import ChangingTopology, MemoryZones, on_zones, pass_time
from tests.support.metric_rows import measured_client
from tests.support.telemetry import Bench
from tests.support.virtual_time import settle

# Durations.


@on_zones(zones=2)
async def test_durations_follow_the_conventions(zones):
    """They use the buckets of the conventions, and name errors."""
    bench = Bench()
    cache = await measured_client(zones, bench)
    await cache.set("k", 1)
    await cache.get("k")
    await cache.get("k")
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    found = bench.metrics()[DURATION]
    assert (found.unit, type(found.data)) == ("s", Histogram)
    for point in found.data.data_points:
        assert tuple(point.explicit_bounds) == DURATION_BUCKETS == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
        assert {"db.system.name", "db.operation.name", "db.namespace"} <= set(point.attributes)
    system, failed = "memcached", "CacheUnavailable"
    assert bench.points(DURATION) == {
        ("set", system): 1,
        ("get", system): 2,
        ("get", system, failed): 1,
    }


class Clock:
    """A replacement of the module `time`."""

    def __init__(self, now=100.0):
        self.now = now

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("limit", "least", "most"), [(100, 90, 210), (None, 1000, 1000), (5000, 1000, 1000)])
@on_zones(zones=1)
async def test_with_many_calls_some_durations_are_recorded(zones, limit, least, most, monkeypatch):
    """The recorder estimates the rate from the previous second. Counters count all calls."""
    clock = Clock()
    monkeypatch.setattr(operations, "time", clock)
    bench = Bench()
    cache = await measured_client(zones, bench, telemetry={"durations_per_second": limit})
    place = ("get", "memcached")
    recorded = [0]
    for _ in range(5):
        for _ in range(1000):
            clock.now += 0.001
            await cache.get("k")
        recorded.append(bench.points(DURATION)[place])
    first, *later = [after - before for before, after in zip(recorded, recorded[1:], strict=False)]
    assert first >= 990
    assert all(least <= number <= most for number in later)
    assert bench.points("evcache.reads") == {("miss", "none", ""): 5000}
    for _ in range(500):
        clock.now += 0.001
        await cache.get("k")
    recorded.append(bench.points(DURATION)[place])
    clock.now += 10  # no calls
    for _ in range(5):
        clock.now += 0.001
        await cache.get("k")
    assert bench.points(DURATION)[place] - recorded[-1] == 5


@on_zones(zones=1)
async def test_all_failures_are_recorded_at_high_rates(zones, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(operations, "time", clock)
    bench = Bench()
    cache = await measured_client(zones, bench, telemetry={"durations_per_second": 1})
    for _ in range(3):
        for _ in range(100):
            clock.now += 0.005
            await cache.get("k")
    await zones.kill("a")
    for _ in range(50):
        clock.now += 0.005
        with pytest.raises(CacheUnavailable):
            await cache.get("k")
    assert bench.points(DURATION)["get", "memcached", "CacheUnavailable"] == 50


# Several clients.


@on_zones(zones=2)
async def test_clients_of_one_namespace_are_one_and_of_two_are_two(zones):
    """The worst of several states is reported: a node is up if it is up for all clients."""
    bench = Bench()
    first, second = await measured_client(zones, bench), await measured_client(zones, bench)
    other = await measured_client(zones, bench, namespace="other")
    for cache, times in ((first, 1), (second, 2), (other, 4)):
        for _ in range(times):
            await cache.get("k", fallback_on_miss=False)
    assert bench.points("evcache.reads") == {("miss", "none", ""): 3}
    assert bench.points("evcache.reads", "other") == {("miss", "none", ""): 4}
    assert bench.points(DURATION)["get", "memcached"] == 3
    assert set(bench.points("evcache.hints.pending").values()) == {0}
    zones.pause("b")
    for _ in range(3):
        await first.touch("nothing", 1, timeout=0.1, errors="miss")
        await pass_time(0.2)
    assert (first.stats().nodes_down, second.stats().nodes_down) == (1, 0)
    place = ("b", "b0", 11211)
    assert bench.points("evcache.node.up")[place] == 0
    assert bench.points("evcache.node.circuit.open")[place] == 1
    assert bench.points("evcache.zone.out") == {("a",): 0, ("b",): 1}
    assert bench.points("evcache.node.up", "other")[place] == 1
    zones.resume("b")


@on_zones(zones=2)
async def test_closed_client_is_neither_reported_nor_kept_alive(zones):
    """Neither the metric instruments nor the instrument of calls keep it alive."""
    bench = Bench()
    staying, leaving = await measured_client(zones, bench), await measured_client(zones, bench)
    alone = await measured_client(zones, bench, namespace="alone")
    await staying.get("k", fallback_on_miss=False)
    await leaving.get("k", fallback_on_miss=False)
    assert bench.points("evcache.reads") == {("miss", "none", ""): 2}
    await leaving.close()
    await alone.close()
    assert bench.points("evcache.reads") == {("miss", "none", ""): 1}
    assert bench.points("evcache.node.up", "alone") == {}
    gone = [weakref.ref(cache) for cache in (leaving, alone)]
    zones._clients.remove(leaving)
    zones._clients.remove(alone)
    del leaving, alone
    await settle()
    gc.unfreeze()  # `run` freezes the objects that existed before
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert bench.points("evcache.reads") == {("miss", "none", ""): 1}


# From another thread.


def test_exporters_read_from_other_threads(caplog):
    """The loop is busy and the dicts change size. No number is lost, and no counter decreases."""
    caplog.set_level(logging.WARNING)
    bench = Bench()
    stop = threading.Event()
    seen = []
    traffic = []

    def collect():
        while not stop.is_set():
            seen.append(sum(bench.points("evcache.reads").values()))
            traffic.append(bench.points("evcache.zone.io").get(("a", True, "receive"), 0))
            assert bench.points("evcache.node.up")

    async def main():
        zones = MemoryZones(4)
        changing = ChangingTopology(zones.topology)
        # The thread holds the interpreter for milliseconds.
        patient = {"read_timeout": 30, "write_timeout": 30}
        cache = zones.client(zones=changing, telemetry=bench.settings(traces=False), **patient)
        await cache.set("k", 1)
        thread = asyncio.ensure_future(asyncio.to_thread(collect))
        try:
            for turn in range(300):
                changing.change(Topology(zones.topology.zones[: 2 + turn % 3]))
                await asyncio.gather(*(cache.get("k") for _ in range(5)))
                other = EVCache(
                    f"n{turn}", zones.topology, nodes=cache._runtime.cluster._settings, telemetry=bench.settings()
                )
                async with other:
                    pass
        finally:
            stop.set()  # otherwise the thread never ends, and the loop waits for it
        await thread
        await zones.close_clients()

    asyncio.run(main())
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert traffic == sorted(traffic)
    assert traffic[-1] > traffic[0] > 0
    assert [record.getMessage() for record in caplog.records if "opentelemetry" in record.name] == []
