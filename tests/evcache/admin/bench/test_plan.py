"""Schedule, values, limits, estimate and results of a measurement, without I/O."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import Consistency, Outcome
from evcache.admin.bench.estimate import Estimate, estimate, reasons_to_confirm
from evcache.admin.bench.limits import Limits
from evcache.admin.bench.plan import MAX_BATCH, Operation, Plan, Values, schedule
from evcache.admin.bench.record import MISS, NodeTimes, Record
from evcache.admin.bench.report import bench_report, plan_report
from evcache.errors import NodeTimeout
from evcache.results import ACKNOWLEDGED
from evcache.stats import ZoneTraffic
from evcache.zones import Topology

PLAN = Plan("run", seconds=2, rate=100, callers=4, size=10, keys=50)


class View:
    """The fields of a snapshot that an estimate reads."""

    def __init__(self, node_list, local):
        self.topology = Topology.from_node_list(node_list)
        self.local = local


class StatsNow:
    """The fields of `Stats` that a record reads."""

    writes_resent = failovers = failovers_denied = repairs = repairs_skipped = decode_errors = 0

    def __init__(self, traffic, **counts):
        self.traffic = traffic
        self.__dict__.update(counts)


# The plan.


def test_operations_are_due_at_equal_distances_from_0_on():
    operations = list(schedule(PLAN, seed=1))
    assert [operation.due for operation in operations] == [index / 100 for index in range(200)]
    assert all(0 <= operation.number < 50 for operation in operations)


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.1, 5, 40), (1, 200, 200)])
def test_the_share_of_writes_is_that_of_the_plan(share, least, most):
    operations = schedule(replace(PLAN, write_share=share), seed=1)
    assert least <= sum(operation.is_write for operation in operations) <= most


def test_a_schedule_depends_on_its_seed_alone():
    assert list(schedule(PLAN, seed=1)) == list(schedule(PLAN, seed=1)) != list(schedule(PLAN, seed=2))


@given(
    st.floats(0.01, 3600),
    st.floats(0.1, 1e6),
    st.integers(1, 10**7),
)
def test_every_plan_has_an_operation_a_batch_and_a_lifetime(seconds, rate, keys):
    plan = Plan("run", seconds=seconds, rate=rate, keys=keys)
    assert plan.operations >= 1
    assert plan.due(plan.operations - 1) <= seconds
    assert 1 <= plan.batch <= MAX_BATCH
    assert plan.ttl >= seconds + 2 * plan.filling_seconds + 59


@given(st.integers(1, 300), st.integers(0, 10**7), st.integers(0, 10**7))
def test_values_have_their_size_and_name_their_key(size, number, other):
    values = Values(replace(PLAN, size=size))
    assert len(values.value(number)) == size
    if number != other and size > 9:
        assert values.value(number) != values.value(other)


# Limits.


@pytest.mark.parametrize(
    ("rate", "share", "errors", "stops"),
    [(100, 0.05, 5, False), (100, 0.05, 6, True), (10, 0.05, 1, True), (100, 0, 1, True), (100, 1, 100, False)],
)
def test_a_share_of_errors_in_a_second_stops(rate, share, errors, stops):
    limits = Limits(replace(PLAN, rate=rate, max_errors=share))
    reasons = [limits.failed(10 + index / 1000, "why") for index in range(errors)]
    assert [reason is not None for reason in reasons] == [False] * (errors - 1) + [stops]
    if stops:
        assert reasons[-1].startswith(f"{errors} operations failed within a second")
        assert reasons[-1].endswith(": why")


def test_errors_that_are_spread_over_seconds_stop_nothing():
    limits = Limits(PLAN)
    assert not any(limits.failed(10 + index / 4, "why") for index in range(100))


@pytest.mark.parametrize(("slow", "stops"), [(1, False), (2, True)])
def test_more_than_a_hundredth_of_slow_operations_stops(slow, stops):
    limits = Limits(replace(PLAN, max_p99=0.25))
    assert not any(limits.took(10, 0.25) for _ in range(100))
    reasons = [limits.took(10, 0.251) for _ in range(slow)]
    assert (reasons[-1] is not None) is stops


def test_without_a_limit_no_operation_is_too_slow():
    limits = Limits(replace(PLAN, max_p99=None))
    assert not any(limits.took(10, 100) for _ in range(1000))


# The estimate.


@pytest.mark.parametrize(
    ("level", "local", "readers"),
    [(None, "a", "a"), (Consistency.ONE, "b", "b"), (Consistency.QUORUM, "a", "ab"), (Consistency.ALL, None, "ab")],
)
def test_an_estimate_counts_reads_in_the_zones_that_are_asked(level, local, readers):
    view = View("a=h1;b=h2;c!=h3", local)
    plan = replace(PLAN, write_share=0, size=1000, consistency=level)
    reading, writing = (estimate(each, "ns", view) for each in (plan, replace(plan, seconds=0.001)))
    received = {zone.name: zone.received - less.received for zone, less in zip(reading.zones, writing.zones, strict=True)}
    for zone, more in received.items():
        assert (more > 190 * 1000) is (zone in readers), zone
    assert reading.cross_zone == sum(zone.total for zone in reading.zones if zone.name != local)


def test_an_estimate_without_a_local_zone_spreads_the_reads():
    found = estimate(replace(PLAN, write_share=0), "ns", View("a=h1;b=h2", None))
    assert found.zones[0].total == found.zones[1].total
    assert found.cross_zone == 2 * found.zones[0].total


def test_bytes_grow_with_each_write_and_large_values_are_sent_once():
    view = View("a=h1", "a")
    sent = {size: estimate(replace(PLAN, size=size, write_share=1), "ns", view).zones[0].sent for size in (128, 129, 1000)}
    assert sent[129] < sent[128] < 3 * sent[129]
    assert sent[1000] - sent[129] == 871 * (PLAN.keys + PLAN.operations)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, None),
        ({"rate": 20_000}, None),
        ({"rate": 20_001}, "--rate 20001 is above 20000"),
        ({"rate": 1000, "size": 100_000, "keys": 1}, "MB per second"),
        ({"keys": 500_000, "size": 100}, "--keys 500000"),
    ],
)
def test_a_heavy_load_has_to_be_confirmed(change, named):
    plan = Plan("run", **change)
    reasons = reasons_to_confirm(plan, estimate(plan, "ns", View("a=h1;b=h2;c=h3", "a")))
    assert len(reasons) == (named is not None)
    assert named is None or named in reasons[0]


# The record.


def loaded(plan=PLAN, now=100.0):
    record = Record(plan)
    record.begin(now, StatsNow({}))
    return record


@pytest.mark.parametrize(
    ("now", "slept", "late", "since"),
    [
        (100.5, True, 0.0, 100.5),
        (100.5008, True, 0.0, 100.5008),  # the resolution of a timer
        (100.503, True, 0.002, 100.501),
        (100.503, False, 0.003, 100.5),  # all callers were busy, so the whole wait counts
    ],
)
def test_latency_counts_from_the_time_at_which_an_operation_was_due(now, slept, late, since):
    record = loaded()
    assert record.sent(Operation(0.5, is_write=False, number=1), now, slept=slept) == pytest.approx(since)
    assert record.lateness.quantile(1) == pytest.approx(max(late, 1e-6), rel=0.06)


def test_operations_that_no_caller_could_send_count_with_their_wait():
    record = loaded()
    record.never_sent(Operation(0.5, is_write=False, number=1), 103.0)
    record.never_sent(Operation(0.5, is_write=True, number=1), 102.0)
    assert (record.not_sent, record.completed) == (2, 0)
    assert record.all_reads.quantile(0.5) == pytest.approx(2.5, rel=0.06)
    assert record.writes.quantile(0.5) == pytest.approx(1.5, rel=0.06)


def test_a_report_has_the_counts_of_the_load_alone():
    record = Record(PLAN)
    record.nodes = [NodeTimes("a", "h1"), NodeTimes("b", "h2")]
    record.nodes[0].before.add(0.001)
    record.nodes[0].during.add(9)  # before the load
    record.zone_wrote("b", Outcome.TIMEOUT, late=False)
    record.fell_back("a", None)
    before = {"a": ZoneTraffic(100, 1000, is_local=True)}
    record.begin(100.0, StatsNow(before, failovers=5))
    record.zone_wrote("b", Outcome.TIMEOUT, late=True)
    record.zone_wrote("b", next(iter(ACKNOWLEDGED)), late=False)
    record.fell_back("a", None)
    record.fell_back("a", NodeTimeout("late", "h1"))
    operations = itertools.cycle(schedule(PLAN, 1))
    for _ in range(4):
        since = record.sent(next(operations), 100.0, slept=False)
    record.read_ended("a", "local", since, since + 0.004)
    record.read_ended(MISS, "none", since, since + 0.004)
    record.failed(Operation(0, is_write=True, number=1), "CacheUnavailable", "no zone", since, since + 0.004)
    record.end(
        102.0, StatsNow({"a": ZoneTraffic(150, 1100, is_local=True), "b": ZoneTraffic(7, 8, is_local=False)}, failovers=7)
    )
    record.zone_wrote("b", Outcome.TIMEOUT, late=True)  # a delete
    found = bench_report(plan_report(PLAN, "ns", Estimate((), 0), near_cache=False), record)
    assert (found.completed, found.abandoned, found.seconds, found.throughput) == (3, 1, 2.0, 1.0)
    assert (found.sources, found.errors, found.examples) == ({"local": 1, "none": 1}, {"CacheUnavailable": 1}, ["no zone"])
    assert found.missed_writes == {"b": {"timeout": 1}}
    assert found.fallbacks == {"a": {"miss": 1, "NodeTimeout": 1}}
    assert found.counts["failovers"] == 2
    assert found.traffic == {"a": ZoneTraffic(50, 100, is_local=True), "b": ZoneTraffic(7, 8, is_local=False)}
    assert (found.cross_zone, list(found.reads_by_zone)) == (15, ["a", MISS])
    assert [node.during.count for node in found.nodes] == [0, 0]
    assert found.reads_to_ping == {"a": pytest.approx(4, rel=0.06)}


def test_the_first_reason_to_stop_is_reported():
    record = loaded(replace(PLAN, max_errors=0))
    operation = Operation(0, is_write=False, number=1)
    record.failed(operation, "E", "first", 100, 100)
    record.failed(operation, "E", "second", 100, 100)
    assert record.stopped.endswith("first")
