"""Metrics of clients: each row of the table in a scenario that produces it."""

import asyncio

import pytest

from evcache import (
    CacheUnavailable,
    DecodeError,
    Failover,
    Gutter,
    Hedging,
    LoadPolicy,
    LocalChannel,
    NearCache,
    Topology,
)
from evcache.channels import ChannelError
from evcache.reads.hedging import SAMPLES
from evcache.replication.handoff.journal import HintFile
from evcache.telemetry.metric_table import METRICS
from tests.evcache.replication.test_gutter import add_gutter
from tests.support.memory_zones import PATIENT, PolledZones, on_zones, pass_time
from tests.support.metric_rows import PRODUCED, TABLE, measured_client, produces
from tests.support.scripted_channel import ScriptedChannel
from tests.support.sources import Source, started
from tests.support.telemetry import Bench
from tests.support.virtual_time import settle

STALE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


# Each metric.


@produces("evcache.reads", "evcache.read.fallbacks", zones=2)
async def test_reads_by_where_they_were_answered(zones, bench):
    """Each key of each operation counts, those of loads too."""
    cache = await measured_client(zones, bench, near_cache=NearCache())
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
    assert found == {("hit", "local", "a"): 3, ("hit", "near", "a"): 2, ("miss", "none", ""): 2, ("hit", "fallback", "b"): 1}
    assert bench.points("evcache.read.fallbacks") == {("miss", "a"): 3}
    await pass_time()
    await cache.get_or_load("l", Source(2).load, near_cache=False)
    await cache.get_or_load_many(["l", "m"], Source(3).load_many, near_cache=False)
    await cache.get_and_touch("l", 60)
    after = bench.points("evcache.reads")
    assert {place: number - found[place] for place, number in after.items() if number != found[place]} == {
        ("hit", "local", "a"): 3,
        ("miss", "none", ""): 1,
    }


@produces("evcache.read.fallbacks", "evcache.errors_as_misses", "evcache.node.up", "evcache.zone.out", zones=2)
async def test_zone_is_down(zones, bench):
    cache = await measured_client(zones, bench)
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


@produces("evcache.zone.io", zones=2)
async def test_bytes_by_zone(zones, bench):
    """By direction, and by True for the local zone."""
    cache = await measured_client(zones, bench, gutter=Gutter(add_gutter(zones)))
    await cache.set("k", b"v", consistency="all")
    traffic = cache.stats().traffic
    assert min(traffic["a"].sent, traffic["a"].received, traffic["b"].sent, traffic["b"].received) > 0
    assert bench.points("evcache.zone.io") == {
        ("a", True, "transmit"): traffic["a"].sent,
        ("a", True, "receive"): traffic["a"].received,
        ("b", False, "transmit"): traffic["b"].sent,
        ("b", False, "receive"): traffic["b"].received,
        ("gutter", False, "transmit"): 0,
        ("gutter", False, "receive"): 0,
    }


@produces("evcache.zone.without_versions", zones=2, versions={"a": "1.6.18", "b": "1.6.38"})
async def test_zone_that_keeps_no_versions(zones, bench):
    await measured_client(zones, bench)
    assert bench.points("evcache.zone.without_versions") == {("a",): 1, ("b",): 0}
    await zones.replace("a", version="1.6.38")
    await pass_time(20)
    assert bench.points("evcache.zone.without_versions") == {("a",): 1, ("b",): 0}  # the server is not asked again yet


@produces("evcache.read.failovers_denied", zones=2)
async def test_failovers_that_are_denied(zones, bench):
    cache = await measured_client(zones, bench, failover=Failover(ratio=0, burst=0))
    await zones.kill("a")
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    assert bench.points("evcache.read.failovers_denied") == {("b",): 1}


@produces("evcache.read.hedges", zones=2)
async def test_hedges(zones, bench):
    """Hedges are counted for the second zone."""
    cache = await measured_client(zones, bench, hedging=Hedging(share=1.0), circuit=PATIENT, hints=None, read_timeout=0.9)
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
    cache = await measured_client(zones, bench, gutter=Gutter(add_gutter(zones)))
    await zones.kill("a", "b")
    await cache.set("k", 1, errors="miss")
    await cache.set("k", 1, errors="miss")
    assert await cache.get("k", timeout=2) == 1
    assert await cache.get("nothing", timeout=2) is None
    assert bench.points("evcache.read.gutter") == {("hit",): 1, ("miss",): 1}


@produces("evcache.writes", "evcache.zone.writes", "evcache.node.requests", zones=2)
async def test_writes(zones, bench):
    """Each key and zone counts once, by outcome, and by True after the return of the call."""
    cache = await measured_client(zones, bench)
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
    # One zone could not change the outcome of the touch any more, and the last set did not wait for one.
    assert sum(number for place, number in new.items() if place[late]) == 2
    asked = {place: number - before[place] for place, number in bench.points("evcache.node.requests").items()}
    assert asked.keys() == {("a", "a0", 11211), ("b", "b0", 11211)}
    assert min(asked.values()) >= 6


@produces("evcache.repairs")
async def test_repairs(zones, bench):
    cache = await measured_client(zones, bench)
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "a")
    await cache.get("k")
    await pass_time()
    assert bench.points("evcache.repairs") == {("stored", "a"): 1}


@produces("evcache.hints.pending", "evcache.hints.size", "evcache.hints.ended", zones=2)
async def test_hints(zones, bench):
    cache = await measured_client(zones, bench)
    assert bench.points("evcache.hints.pending") == {("a",): 0, ("b",): 0}
    await zones.kill("b")
    await cache.set("k", "x" * 100, consistency="one")
    await cache.set("l", "x" * 100, consistency="one")
    await cache.set("l", "y" * 100, consistency="one")
    await settle()
    assert bench.points("evcache.hints.pending") == {("a",): 0, ("b",): 2}
    assert bench.points("evcache.hints.size")[()] == cache.stats().hint_bytes > 200
    zones.restart("b")
    await pass_time(20)
    assert bench.points("evcache.hints.pending") == {("a",): 0, ("b",): 0}
    assert bench.points("evcache.hints.ended")["delivered", "b"] == 2


@produces("evcache.hints.file_unusable", zones=2)
async def test_the_hint_file_is_unusable(zones, bench):
    cache = await measured_client(zones, bench)
    file = cache._runtime.handoff.journal._file = HintFile(
        "/no/such/hints"
    )  # a thread opens it, for which virtual time does not wait
    assert bench.points("evcache.hints.file_unusable") == {(): 0}
    file.give_up("/no/such/hints: it is damaged")
    assert bench.points("evcache.hints.file_unusable") == {(): 1}


@produces("evcache.topology.age", "evcache.topology.held", zones=2)
async def test_the_source_of_the_topology_fails_and_the_guard_holds_a_change_back(zones, bench):
    source = PolledZones(zones.topology)
    await measured_client(zones, bench, zones=source)
    await pass_time(35)
    assert bench.points("evcache.topology.age")[()] < 12.1
    assert bench.points("evcache.topology.held") == {(): 0}
    source.error = OSError("refused")
    await pass_time(100)
    assert bench.points("evcache.topology.age")[()] > 99
    source.error = None
    source.topology = Topology(zones.topology.zones[:1])
    await pass_time(15)
    assert bench.points("evcache.topology.held") == {(): 1}
    assert bench.points("evcache.topology.age")[()] < 12.1
    await pass_time(65)
    assert bench.points("evcache.topology.held") == {(): 0}


@produces("evcache.writes.resent", "evcache.versions.refused", zones=2)
async def test_clocks_differ(zones, bench):
    """A write that is sent again is one write. Each read of a version that is too far ahead counts."""
    slow = await measured_client(zones, bench, wall_clock=lambda: zones.wall_clock() - 10)
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
async def test_node_hangs(zones, bench):
    cache = await measured_client(zones, bench, hints=None)
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
    cache = await measured_client(zones, bench, near_cache=NearCache(ttl=10))
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
async def test_without_a_near_cache_or_a_channel_their_metrics_are_absent(zones):
    bench = Bench()
    cache = await measured_client(zones, bench)
    await cache.get("k")
    for metric in METRICS:
        if metric.name.startswith(("evcache.near.", "evcache.invalidations.")):
            assert bench.points(metric.name) == {}, metric.name


@produces("evcache.loads", "evcache.loads.running", "evcache.loads.waiting", "evcache.leases", zones=2)
async def test_loads(zones, bench):
    """A lease is lost if another process loads."""
    cache, other = await measured_client(zones, bench), await zones.ready(telemetry=None)
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
    cache = await measured_client(zones, bench)
    await cache.set("k", "text", consistency="all")
    for consistency in ("one", "all"):
        with pytest.raises(DecodeError):
            await cache.get("k", as_=int, consistency=consistency)
    assert await cache.get_or_load("k", Source(3).load, as_=int) == 3
    assert bench.points("evcache.decode_errors") == {("a",): 3}


@produces("evcache.stale_served", zones=2)
async def test_stale_values(zones, bench):
    cache = await measured_client(zones, bench)
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
    cache = await measured_client(zones, bench, near_cache=NearCache(), invalidation=channel)
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


@produces("evcache.invalidations.up", zones=1)
async def test_channel_that_is_lost_is_down_until_it_is_back(zones, bench):
    channel = ScriptedChannel()
    await measured_client(zones, bench, near_cache=NearCache(), invalidation=channel)
    await pass_time(1)
    assert bench.points("evcache.invalidations.up") == {(): 1}
    channel.refuse_to_subscribe = ChannelError("down")
    channel.lose()
    await pass_time(1)
    assert bench.points("evcache.invalidations.up") == {(): 0}
    channel.refuse_to_subscribe = None
    await pass_time(60)
    assert bench.points("evcache.invalidations.up") == {(): 1}


@produces("evcache.loop.lag", zones=1)
async def test_loop_lag(zones, bench):
    cache = await measured_client(zones, bench)
    await cache.get("k")
    assert bench.points("evcache.loop.lag") == {(): cache.stats().loop_lag}


def test_each_metric_of_the_table_has_a_test_that_produces_it():
    assert TABLE.keys() == PRODUCED
    assert len(TABLE) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_units_follow_the_conventions(metric):
    """A unit in braces is singular. No name contains the unit or the type."""
    assert metric.name.startswith("evcache.")
    assert metric.name == metric.name.lower()
    assert not metric.name.endswith(("total", "count"))
    assert metric.unit in ("s", "By") or (metric.unit[0] == "{" and (metric.unit[-2:] != "s}" or metric.unit == "{loss}"))
    assert metric.description
    for attribute in metric.attributes:
        assert attribute.startswith(("evcache.", "db.", "server.", "error.", "network."))
