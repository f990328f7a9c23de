"""Runs of a measurement on servers in memory, under virtual time."""

import asyncio
from dataclasses import replace

import pytest

from evcache import CacheUnavailable, NearCache, NodeSettings
from evcache.admin.bench.plan import Plan
from evcache.admin.bench.record import MISS, Record
from evcache.admin.bench.run import Bench
from tests.support.memory_zones import TOMBSTONE, Stopwatch, on_zones, pass_time

PLAN = Plan("run", seconds=4, rate=100, callers=4, size=50, keys=40, write_share=0.25)
KEYS = [PLAN.key(number) for number in range(PLAN.keys)]


def bench(zones, plan=PLAN, **options):
    """Return a measurement on these zones, its record, and its phases in order."""
    record, phases = Record(plan), []
    cache = zones.client(hooks=record, hints=None, ttl=plan.ttl, **options)
    settings = NodeSettings(dialer=zones.dial, connect_timeout=1.0)
    return Bench(plan, record, cache, settings, lambda phase: phases.append(phase)), record, phases


def left(zones):
    """Return the zones that still hold a value of the measurement, with the number of values."""
    values = {zone: [zones.held(key, zone) for key in KEYS] for zone in zones.names}
    return {zone: sum(held is not None and held.value != TOMBSTONE for held in found) for zone, found in values.items()}


@on_zones()
async def test_a_complete_run_makes_the_operations_at_their_times_and_leaves_no_value(zones):
    watch = Stopwatch()
    run, record, phases = bench(zones)
    await run.run()
    assert (record.stopped, record.completed, record.not_sent, record.errors) == (None, 400, 0, {})
    assert record.ended - record.began == pytest.approx(3.99, abs=0.01)
    assert watch.seconds == pytest.approx(4.59, abs=0.05)  # four batches of keys, at 0, 0.1, 0.2 and 0.3 s, and of deletes
    assert record.all_reads.count + record.writes.count == 400
    assert set(record.reads) == {"a"}
    assert record.sources == {"local": record.all_reads.count}
    assert all(traffic.sent > 0 for traffic in record.traffic.values())
    assert [node.zone for node in record.nodes if node.before.count and node.during.count] == ["a", "b", "c"]
    assert list(dict.fromkeys(phases)) == ["ping", "fill", "load", "delete"]
    assert (left(zones), record.left) == ({"a": 0, "b": 0, "c": 0}, 0)


@on_zones()
async def test_keys_of_users_stay(zones):
    async with zones.client() as cache:
        await cache.set_many({"0": "user", "run": "user", "run:": "user"})
    run, _, _ = bench(zones)
    await run.run()
    for key in ("0", "run", "run:"):
        assert set(zones.values(key).values()) == {"user"}


@on_zones()
async def test_slow_servers_make_later_operations_wait_and_the_wait_counts(zones):
    zones.latency = 0.1  # 4 callers make 40 operations a second of the planned 100
    run, record, _ = bench(zones, replace(PLAN, max_p99=None, write_share=0), read_timeout=1)
    await run.run()
    assert 150 < record.completed < 180
    assert record.completed + record.not_sent == 400
    assert record.all_reads.count == 400
    # Closed-loop latencies would all be 0.1 s.
    assert record.reads["a"].quantile(0.5) > 0.8
    assert record.all_reads.quantile(0.99) > 2


@on_zones()
async def test_a_slow_second_stops_the_run(zones):
    run, record, _ = bench(zones, replace(PLAN, max_p99=0.15), read_timeout=1)
    zones.latency = 0.12  # a ping is fast enough, and a read that waits for a caller is not
    await run.run()
    assert "operations took over 150 ms within a second" in record.stopped
    assert record.ended - record.began < 1


@pytest.mark.parametrize(("how", "reason"), [("kill", "does not answer"), ("pause", "needs over 250 ms for a ping")])
@on_zones()
async def test_a_node_that_stops_to_answer_stops_the_run(zones, how, reason):
    run, record, _ = bench(zones)
    running = asyncio.ensure_future(run.run())
    await pass_time(2)
    if how == "kill":
        await zones.kill("c")
    else:
        zones.pause("c")
    watch = Stopwatch()
    while record.ended is None:
        await pass_time(0.05)
    assert watch.seconds < 1
    await running
    assert record.stopped.startswith("zone c: ")
    assert reason in record.stopped
    assert left(zones) == {"a": 0, "b": 0, "c": 0 if how == "kill" else 40}
    assert record.left == 40  # not deleted in all zones: they expire


@on_zones()
async def test_without_limits_a_dead_zone_is_part_of_the_results(zones):
    run, record, _ = bench(zones, replace(PLAN, max_p99=None))
    running = asyncio.ensure_future(run.run())
    await pass_time(2)
    await zones.kill("a")
    await running
    assert (record.stopped, record.completed, record.errors) == (None, 400, {})
    assert record.reads["a"].count and record.reads["b"].count + record.reads["c"].count
    assert record.sources["fallback"] == record.reads["b"].count + record.reads["c"].count
    assert record.missed_writes["a"]
    assert record.nodes[0].failures > 0


@on_zones()
async def test_errors_stop_the_run(zones):
    run, record, _ = bench(zones, replace(PLAN, max_p99=None))
    running = asyncio.ensure_future(run.run())
    await pass_time(2)
    await zones.kill("a", "b", "c")
    await running
    assert "operations failed within a second, over 5 % of 100" in record.stopped
    assert record.errors.total() == 6
    assert record.left == 40


@on_zones()
async def test_evicted_keys_are_misses_and_no_errors(zones):
    run, record, _ = bench(zones, replace(PLAN, write_share=0))
    running = asyncio.ensure_future(run.run())
    await pass_time(2)
    for zone in zones.names:
        for key in KEYS:
            zones.evict(key, zone)
    await running
    assert record.stopped is None
    assert record.reads[MISS].count > 100
    assert record.sources["none"] == record.reads[MISS].count


@on_zones()
async def test_a_value_of_another_key_is_an_error(zones):
    run, record, _ = bench(zones, replace(PLAN, write_share=0, max_errors=1))
    running = asyncio.ensure_future(run.run())
    await pass_time(2)
    held = zones.held(KEYS[0], "a")
    for key in KEYS[1:]:
        zones.write_as_another_client(key, held.raw.value, held.raw.flags, *zones.names)
    await running
    assert set(record.errors) == {"WrongValue"}
    assert next(iter(record.examples)).startswith("zone a returned a wrong value for key run:")


@pytest.mark.parametrize("after", [0.3, 2.0])
@on_zones()
async def test_a_cancelled_run_deletes_its_keys(zones, after):
    run, record, phases = bench(zones)
    running = asyncio.ensure_future(run.run())
    await pass_time(after)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert record.filled > 0
    assert phases[-1] == "delete"
    assert left(zones) == {"a": 0, "b": 0, "c": 0}


@on_zones(write_only="c")
async def test_no_readable_zone_is_an_error_of_its_own(zones):
    await zones.kill("a", "b")
    run, record, _ = bench(zones)
    with pytest.raises(CacheUnavailable, match="bench: no zone could answer"):
        await run.run()
    assert record.filled == 0


@on_zones()
async def test_a_zone_that_is_dead_from_the_start_does_not_stop_the_run(zones):
    await zones.kill("c")
    run, record, _ = bench(zones)
    await run.run()
    assert (record.stopped, record.completed) == (None, 400)
    assert record.nodes[2].error is not None
    assert record.missed_writes["c"]


@on_zones()
async def test_a_near_cache_serves_reads(zones):
    run, record, _ = bench(zones, replace(PLAN, write_share=0), near_cache=NearCache())
    await run.run()
    assert record.sources["near"] > 100
    assert record.reads["near cache"].count == record.sources["near"]
