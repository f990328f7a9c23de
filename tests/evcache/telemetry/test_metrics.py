"""The metrics of clients: each of the table in a scenario that produces it, and how those of several clients become one."""

import asyncio
import functools
import gc
import logging
import threading
import weakref

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from evcache import (
    CacheUnavailable,
    DecodeError,
    EVCache,
    Failover,
    Gutter,
    Hedging,
    LoadPolicy,
    LocalChannel,
    NearCache,
)
from evcache.reads.hedging import SAMPLES
from evcache.replication.handoff.journal import HintFile
from evcache.telemetry import operations
from evcache.telemetry.metric_table import DURATION, DURATION_BUCKETS, METRICS
from evcache.zones import Topology
from tests.evcache.replication.test_gutter import add_gutter
from tests.support.memory_zones import PATIENT, ChangingTopology, MemoryZones, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import Source, started
from tests.support.telemetry import Bench
from tests.support.virtual_time import settle

TABLE = {metric.name: metric for metric in METRICS}
PRODUCED = set()
"""Metrics that some test below has produced."""

STALE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


def produces(*names, **options):
    """Make a test of a coroutine function: on zones with these options, and with a bench, it produces these metrics. They are
    then what the table says of them."""
    PRODUCED.update(names)

    def decorate(test):
        @functools.wraps(test)
        async def scenario(zones, bench):
            await test(zones, bench)
            found = bench.metrics()
            for name in names:
                as_in_the_table(found[name])

        async def main(zones):
            await scenario(zones, Bench())

        main.__name__, main.__qualname__, main.__doc__ = test.__name__, test.__qualname__, test.__doc__
        main.__module__ = test.__module__
        return on_zones(**options)(main)

    return decorate


def as_in_the_table(found):
    metric = TABLE[found.name]
    assert (found.unit, found.description) == (metric.unit, metric.meaning)
    assert type(found.data) is (Sum if metric.kind == "counter" else Gauge)
    if metric.kind == "counter":
        assert found.data.is_monotonic
    assert found.data.data_points
    for point in found.data.data_points:
        assert set(point.attributes) == {"db.namespace", *metric.attributes}
        assert point.attributes["db.namespace"] == "t"
        assert isinstance(point.value, int | float)


async def client(zones, bench, **options):
    settings = bench.settings(traces=False, **options.pop("telemetry", {}))
    cache = await zones.ready(telemetry=settings, **options)
    if options.get("near_cache") is not None:
        follow_loop(cache)
        await pass_time(6)
    return cache


# What each says.


@produces("evcache.reads", "evcache.read.fallbacks", zones=2)
async def test_reads_by_where_they_were_answered(zones, bench):
    """Each key of each operation, those that loads look for too."""
    cache = await client(zones, bench, near_cache=NearCache())
    await cache.set("k", 1, consistency="all")
    await cache.set("l", 1, consistency="all")
    await pass_time(6)
    await cache.get("k", near_cache=False)
    await cache.get_item("k")
    await cache.get("k")
    await cache.get("nothing")
    await cache.get_many(["k", "l", "nothing"])
    zones.evict("l", "a")
    await cache.get("l", near_cache=False)
    found = bench.points("evcache.reads")
    assert found == {("hit", "local"): 3, ("hit", "near"): 2, ("miss", "none"): 2, ("hit", "fallback"): 1}
    assert bench.points("evcache.read.fallbacks") == {("miss", "a"): 3}
    await pass_time()
    await cache.get_or_load("l", Source(2).load, near_cache=False)
    await cache.get_or_load_many(["l", "m"], Source(3).load_many, near_cache=False)
    await cache.get_and_touch("l", 60)
    after = bench.points("evcache.reads")
    assert {place: number - found[place] for place, number in after.items() if number != found[place]} == {
        ("hit", "local"): 3,
        ("miss", "none"): 1,
    }


@produces("evcache.read.fallbacks", "evcache.errors_as_misses", "evcache.node.up", "evcache.zone.out", zones=2)
async def test_a_zone_is_down(zones, bench):
    cache = await client(zones, bench)
    await zones.kill("a")
    assert await cache.get("k", errors="miss") is None
    await cache.get("k", consistency="all", errors="miss")
    fallbacks = bench.points("evcache.read.fallbacks")
    assert sum(fallbacks.values()) == 1
    assert {zone for _, zone in fallbacks} == {"a"}
    assert bench.points("evcache.errors_as_misses") == {("ConsistencyError",): 1}
    # By zone, address and port.
    assert bench.points("evcache.node.up") == {("a", "a0", 11211): 0, ("b", "b0", 11211): 1}
    assert bench.points("evcache.zone.out") == {("a",): 1, ("b",): 0}
    zones.restart("a")
    await pass_time(20)
    assert bench.points("evcache.node.up") == {("a", "a0", 11211): 1, ("b", "b0", 11211): 1}
    assert bench.points("evcache.zone.out") == {("a",): 0, ("b",): 0}


@produces("evcache.zone.without_versions", zones=2, versions={"a": "1.6.18", "b": "1.6.38"})
async def test_a_zone_that_keeps_no_versions(zones, bench):
    await client(zones, bench)
    assert bench.points("evcache.zone.without_versions") == {("a",): 1, ("b",): 0}
    await zones.replace("a", version="1.6.38")
    await pass_time(20)
    assert bench.points("evcache.zone.without_versions") == {("a",): 1, ("b",): 0}  # not asked again yet


@produces("evcache.read.failovers_denied", zones=2)
async def test_failovers_that_are_denied(zones, bench):
    cache = await client(zones, bench, failover=Failover(ratio=0, burst=0))
    await zones.kill("a")
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    assert bench.points("evcache.read.failovers_denied") == {("b",): 1}


@produces("evcache.read.hedges", zones=2)
async def test_hedges(zones, bench):
    """By the zone that was asked second."""
    cache = await client(zones, bench, hedging=Hedging(share=1.0), circuit=PATIENT, hints=None, read_timeout=0.9)
    await cache.set("k", 1, consistency="all")
    for _ in range(SAMPLES):
        await cache.get("k")
    zones.pause("a")
    assert await cache.get("k") == 1
    zones.resume("a")
    await settle()
    assert bench.points("evcache.read.hedges") == {("won", "b"): 1}


@produces("evcache.read.gutter", zones=2)
async def test_the_gutter(zones, bench):
    cache = await client(zones, bench, gutter=Gutter(add_gutter(zones)))
    await zones.kill("a", "b")
    await cache.set("k", 1, errors="miss")
    await cache.set("k", 1, errors="miss")
    assert await cache.get("k", timeout=2) == 1
    assert await cache.get("nothing", timeout=2) is None
    assert bench.points("evcache.read.gutter") == {("hit",): 1, ("miss",): 1}


@produces("evcache.writes", "evcache.zone.writes", "evcache.node.requests", zones=2)
async def test_writes(zones, bench):
    """One for each key and zone, in the words of `Outcome`; late, when the call had returned."""
    cache = await client(zones, bench)
    before = bench.points("evcache.node.requests")
    written = bench.points("evcache.zone.writes")
    writes = bench.points("evcache.writes")
    await cache.set("k", 1, consistency="all")
    await cache.set_many({"l": 1, "m": 2}, consistency="all")
    await cache.touch("nothing", 5, consistency="all")
    await cache.invalidate("k", consistency="all")
    await cache.set("k", 2, consistency="one")
    await settle()
    after = bench.points("evcache.writes")
    assert {place: number - writes.get(place, 0) for place, number in after.items() if number != writes.get(place)} == {
        ("set", "met"): 2,
        ("set_many", "met"): 2,
        ("touch", "unmet"): 1,
        ("invalidate", "met"): 1,
    }
    found = bench.points("evcache.zone.writes")
    new = {place: number - written.get(place, 0) for place, number in found.items() if number != written.get(place)}
    late, outcome = 0, 1
    assert sum(new.values()) == 12
    assert {place[outcome] for place in new} == {"stored", "not_found"}
    assert sum(number for place, number in new.items() if place[outcome] == "not_found") == 2
    # Of the touch, one zone could not change the outcome any more; of the last set nobody waited for one.
    assert sum(number for place, number in new.items() if place[late]) == 2
    asked = {place: number - before[place] for place, number in bench.points("evcache.node.requests").items()}
    assert asked.keys() == {("a", "a0", 11211), ("b", "b0", 11211)}
    assert min(asked.values()) >= 6


@produces("evcache.repairs")
async def test_repairs(zones, bench):
    cache = await client(zones, bench)
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert bench.points("evcache.repairs") == {("stored", "a"): 1}


@produces("evcache.hints.pending", "evcache.hints.size", "evcache.hints.ended", zones=2)
async def test_hints(zones, bench):
    cache = await client(zones, bench)
    assert bench.points("evcache.hints.pending") == {(): 0}
    await zones.kill("b")
    await cache.set("k", "x" * 100, consistency="one")
    await cache.set("l", "x" * 100, consistency="one")
    await cache.set("l", "y" * 100, consistency="one")
    await settle()
    assert bench.points("evcache.hints.pending") == {(): 2}
    assert bench.points("evcache.hints.size")[()] == cache.stats().hint_bytes > 200
    zones.restart("b")
    await pass_time(20)
    assert bench.points("evcache.hints.pending") == {(): 0}
    assert bench.points("evcache.hints.ended")["delivered", "b"] == 2


@produces("evcache.hints.file_unusable", zones=2)
async def test_the_hint_file_is_unusable(zones, bench):
    cache = await client(zones, bench)
    file = cache._runtime.handoff.journal._file = HintFile(
        "/no/such/hints"
    )  # it is opened by a thread, which virtual time does not wait for
    assert bench.points("evcache.hints.file_unusable") == {(): 0}
    file.give_up("/no/such/hints: it is damaged")
    assert bench.points("evcache.hints.file_unusable") == {(): 1}


@produces("evcache.writes.resent", "evcache.versions.refused", zones=2)
async def test_clocks_differ(zones, bench):
    """A write that is sent again is one write; each sight of a version that is too far ahead counts."""
    slow = await client(zones, bench, wall_clock=lambda: zones.wall_clock() - 10)
    ahead = await zones.ready(telemetry=None)
    far_ahead = await zones.ready(telemetry=None, wall_clock=lambda: zones.wall_clock() + 100)
    await ahead.set("k", 1, consistency="all")
    assert bench.points("evcache.writes.resent") == {(): 0}
    await slow.delete_many(["k", "l"], consistency="all")
    assert bench.points("evcache.writes.resent") == {(): 1} == {(): slow.stats().writes_resent}
    assert bench.points("evcache.writes")["delete_many", "met"] == 2
    assert bench.points("evcache.versions.refused") == {(): 0}
    await far_ahead.set("k", 1, consistency="all")
    await slow.get("k", consistency="all")
    assert bench.points("evcache.versions.refused") == {(): 2} == {(): slow.stats().versions_refused}


@produces("evcache.node.circuit.open", "evcache.node.requests.pending", "evcache.background.tasks", zones=2)
async def test_a_node_hangs(zones, bench):
    cache = await client(zones, bench, hints=None)
    place = ("b", "b0", 11211)
    assert bench.points("evcache.node.circuit.open")[place] == 0
    zones.pause("b")
    reads = [asyncio.ensure_future(cache.get(f"k{number}", consistency="all", errors="miss")) for number in range(30)]
    await settle()
    assert bench.points("evcache.node.requests.pending")[place] >= 30
    await asyncio.gather(*reads)
    assert bench.points("evcache.node.circuit.open") == {("a", "a0", 11211): 0, place: 1}
    assert bench.points("evcache.node.up")[place] == 0
    zones.resume("b")
    await pass_time(20)
    assert bench.points("evcache.node.circuit.open")[place] == 0
    assert bench.points("evcache.node.requests.pending")[place] == 0
    writing = asyncio.ensure_future(cache.incr("n", initial=1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.points("evcache.background.tasks")[()] >= 1
    await writing
    await settle()
    assert bench.points("evcache.background.tasks") == {(): 0}


NEAR = ("evcache.near.entries", "evcache.near.size", "evcache.near.hits", "evcache.near.misses", "evcache.near.removals")


@produces(*NEAR, zones=2)
async def test_the_near_cache(zones, bench):
    cache = await client(zones, bench, near_cache=NearCache(ttl=10))
    await cache.set("k", 1, consistency="all")
    await pass_time(6)
    misses = bench.points("evcache.near.misses")[()]
    await cache.get("k")
    await cache.get("k")
    stats = cache.stats()
    assert bench.points("evcache.near.entries") == {(): stats.near_entries}
    assert bench.points("evcache.near.size") == {(): stats.near_bytes}
    assert stats.near_entries > 0
    assert stats.near_bytes > 0
    assert bench.points("evcache.near.hits")[()] == stats.near.hits >= 1
    assert bench.points("evcache.near.misses")[()] >= misses
    await cache.delete("k")
    removals = bench.points("evcache.near.removals")
    assert set(removals) == {(cause,) for cause in ("expired", "evicted", "replaced", "invalidated", "cleared")}
    assert sum(removals.values()) >= 1


@on_zones(zones=2)
async def test_without_a_near_cache_or_a_channel_nothing_is_said_of_them(zones):
    bench = Bench()
    cache = await client(zones, bench)
    await cache.get("k")
    for metric in METRICS:
        if metric.name.startswith(("evcache.near.", "evcache.invalidations.")):
            assert bench.points(metric.name) == {}, metric.name


@produces("evcache.loads", "evcache.loads.running", "evcache.loads.waiting", "evcache.leases", zones=2)
async def test_loads(zones, bench):
    """A lease is lost where another process is loading."""
    cache, other = await client(zones, bench), await zones.ready(telemetry=None)
    source = Source("v", seconds=1)
    first = asyncio.ensure_future(cache.get_or_load("k", source.load))
    await started(source)
    elsewhere = Source("w", seconds=0.2)
    others = asyncio.ensure_future(other.get_or_load("l", elsewhere.load))
    await started(elsewhere)
    second = asyncio.ensure_future(cache.get_or_load("l", source.load))
    await pass_time(0.05)
    assert bench.points("evcache.loads.running") == {(): 1}
    assert bench.points("evcache.loads.waiting") == {(): 2}
    assert await asyncio.gather(first, second, others) == ["v", "w", "w"]
    source.error = LookupError("no")
    with pytest.raises(LookupError):
        await cache.get_or_load("m", source.load)
    await settle()
    assert bench.points("evcache.loads.running") == {(): 0}
    assert bench.points("evcache.loads.waiting") == {(): 0}
    assert bench.points("evcache.loads") == {("",): 1, ("LookupError",): 1}
    found = bench.points("evcache.leases")
    assert found["won",] == 2
    assert found["lost",] == cache.stats().loads.leases_lost >= 1


@produces("evcache.decode_errors", zones=2)
async def test_values_that_cannot_be_decoded(zones, bench):
    """By reads, and by loads, which replace them."""
    cache = await client(zones, bench)
    await cache.set("k", "text", consistency="all")
    for consistency in ("one", "all"):
        with pytest.raises(DecodeError):
            await cache.get("k", as_=int, consistency=consistency)
    assert await cache.get_or_load("k", Source(3).load, as_=int) == 3
    assert bench.points("evcache.decode_errors") == {("a",): 3}


@produces("evcache.stale_served", zones=2)
async def test_values_that_are_served_after_their_time(zones, bench):
    cache = await client(zones, bench)
    source = Source("old")
    await cache.get_or_load("k", source.load, ttl=5, policy=STALE)
    await pass_time(6)
    source.error = LookupError("down")
    assert await cache.get_or_load("k", source.load, ttl=5, policy=STALE) == "old"
    assert bench.points("evcache.stale_served") == {("error",): 1}


INVALIDATIONS = tuple(f"evcache.invalidations.{what}" for what in ("sent", "received", "gaps", "losses"))


@produces(*INVALIDATIONS, zones=2)
async def test_invalidations(zones, bench):
    channel = LocalChannel()
    cache = await client(zones, bench, near_cache=NearCache(), invalidation=channel)
    other = await zones.ready(telemetry=None, invalidation=channel)
    before = {name: bench.points(name)[()] for name in INVALIDATIONS}
    await cache.set("k", 1)
    await other.set("k", 2)
    await other.set("l", 2)
    await pass_time(1)
    after = {name: bench.points(name)[()] - before[name] for name in INVALIDATIONS}
    assert after["evcache.invalidations.sent"] == 1
    assert after["evcache.invalidations.received"] == 2
    stats = cache.stats().invalidation
    assert bench.points("evcache.invalidations.gaps") == {(): stats.gaps}
    assert bench.points("evcache.invalidations.losses") == {(): stats.losses}


@produces("evcache.loop.lag", zones=1)
async def test_how_late_the_loop_is(zones, bench):
    cache = await client(zones, bench)
    await cache.get("k")
    assert bench.points("evcache.loop.lag") == {(): cache.stats().loop_lag}


def test_each_metric_of_the_table_has_a_test_that_produces_it():
    assert TABLE.keys() == PRODUCED
    assert len(TABLE) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_units_are_as_the_conventions_want_them(metric):
    """A unit in braces is singular; names are of ours, and none has the unit or the type in it."""
    assert metric.name.startswith("evcache.")
    assert metric.name == metric.name.lower()
    assert not metric.name.endswith(("total", "count"))
    assert metric.unit in ("s", "By") or (metric.unit[0] == "{" and (metric.unit[-2:] != "s}" or metric.unit == "{loss}"))
    assert metric.meaning
    for attribute in metric.attributes:
        assert attribute.startswith(("evcache.", "db.", "server.", "error."))


# Durations.


@on_zones(zones=2)
async def test_durations_are_recorded_as_the_conventions_want_it(zones):
    """In their buckets, with what went wrong."""
    bench = Bench()
    cache = await client(zones, bench)
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
    """Stands in for the module `time`."""

    def __init__(self, now=100.0):
        self.now = now

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("limit", "least", "most"), [(100, 90, 210), (None, 1000, 1000), (5000, 1000, 1000)])
@on_zones(zones=1)
async def test_with_many_calls_some_durations_are_recorded(zones, limit, least, most, monkeypatch):
    """About as many in a second as is asked for, once it is known how many calls to expect. Counters count all."""
    clock = Clock()
    monkeypatch.setattr(operations, "time", clock)
    bench = Bench()
    cache = await client(zones, bench, telemetry={"durations_per_second": limit})
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
    assert bench.points("evcache.reads") == {("miss", "none"): 5000}
    for _ in range(500):
        clock.now += 0.001
        await cache.get("k")
    recorded.append(bench.points(DURATION)[place])
    clock.now += 10  # nobody calls
    for _ in range(5):
        clock.now += 0.001
        await cache.get("k")
    assert bench.points(DURATION)[place] - recorded[-1] == 5


@on_zones(zones=1)
async def test_failures_are_recorded_however_many_calls_there_are(zones, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(operations, "time", clock)
    bench = Bench()
    cache = await client(zones, bench, telemetry={"durations_per_second": 1})
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
    """Of what is a state, the worst is said: a node is up when all say so."""
    bench = Bench()
    first, second = await client(zones, bench), await client(zones, bench)
    other = await client(zones, bench, namespace="other")
    for cache, times in ((first, 1), (second, 2), (other, 4)):
        for _ in range(times):
            await cache.get("k", fallback_on_miss=False)
    assert bench.points("evcache.reads") == {("miss", "none"): 3}
    assert bench.points("evcache.reads", "other") == {("miss", "none"): 4}
    assert bench.points(DURATION)["get", "memcached"] == 3
    assert bench.points("evcache.hints.pending") == {(): 0}
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
async def test_a_closed_client_is_not_counted_any_more_and_not_kept_alive(zones):
    """Neither by the instruments, nor by what has taken the place of its operations."""
    bench = Bench()
    staying, leaving = await client(zones, bench), await client(zones, bench)
    alone = await client(zones, bench, namespace="alone")
    await staying.get("k", fallback_on_miss=False)
    await leaving.get("k", fallback_on_miss=False)
    assert bench.points("evcache.reads") == {("miss", "none"): 2}
    await leaving.close()
    await alone.close()
    assert bench.points("evcache.reads") == {("miss", "none"): 1}
    assert bench.points("evcache.node.up", "alone") == {}
    gone = [weakref.ref(cache) for cache in (leaving, alone)]
    zones._clients.remove(leaving)
    zones._clients.remove(alone)
    del leaving, alone
    await settle()
    gc.unfreeze()  # `run` freezes what was there before
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert bench.points("evcache.reads") == {("miss", "none"): 1}


# From another thread.


def test_exporters_read_from_threads_of_their_own(caplog):
    """While the loop is busy, and what is read grows and shrinks: nothing is lost, and no number goes back."""
    caplog.set_level(logging.WARNING)
    bench = Bench()
    stop = threading.Event()
    seen = []

    def collect():
        while not stop.is_set():
            seen.append(sum(bench.points("evcache.reads").values()))
            assert bench.points("evcache.node.up")

    async def main():
        zones = MemoryZones(4)
        changing = ChangingTopology(zones.topology)
        # The thread takes the interpreter for milliseconds at a time.
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
            stop.set()  # or the thread never ends, and the loop waits for it
        await thread
        await zones.close_clients()

    asyncio.run(main())
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert [record.getMessage() for record in caplog.records if "opentelemetry" in record.name] == []
