"""Results of a measurement as plain fields, for JSON and for the text of the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from evcache.admin.bench.estimate import Estimate
from evcache.admin.bench.plan import Plan
from evcache.admin.bench.record import NodeTimes, Record
from evcache.admin.latencies import Latencies
from evcache.stats import ZoneTraffic

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """Latencies of some operations."""

    count: int
    quantiles: Mapping[str, float | None]
    """Seconds by the names in `QUANTILES`. None without operations."""

    @classmethod
    def of(cls, latencies: Latencies) -> LatencyReport:
        """Return the report of a histogram."""
        return cls(latencies.count, {name: latencies.quantile(share) for name, share in QUANTILES.items()})


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Pings of one node."""

    zone: str
    node: str
    before: LatencyReport
    during: LatencyReport
    failures: int
    error: str | None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Description of a measurement that has not begun."""

    namespace: str
    operations: int
    seconds: float
    rate: float
    callers: int
    size: int
    keys: int
    write_share: float
    consistency: str | None
    """Level of reads and writes. None for the defaults of a client."""
    near_cache: bool
    ttl: int
    max_errors: float
    max_p99: float | None
    estimate: Estimate
    cross_zone: int
    """Estimated bytes to and from zones other than the local one."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Results of a measurement."""

    plan: PlanReport
    stopped: str | None
    """Reason for which the measurement stopped early. None if it did not."""
    seconds: float
    """Seconds of the load."""
    completed: int
    """Number of operations that ended, failed ones included."""
    abandoned: int
    """Number of operations that were under way when the measurement stopped."""
    not_sent: int
    """Number of operations that were due, and that no caller could begin in time. Their latencies count as the time that
    they waited."""
    throughput: float
    """Operations per second that succeeded."""
    reads: LatencyReport
    reads_by_zone: Mapping[str, LatencyReport]
    """Reads by the zone that served them. Misses and hits of the near cache have names of their own."""
    writes: LatencyReport
    lateness: LatencyReport
    """Times from the moment at which an operation was due until it was sent. Long ones mean that this process, or the number
    of callers, limits the rate. The delay of a timer, up to 1 ms, does not count."""
    sources: Mapping[str, int]
    errors: Mapping[str, int]
    examples: list[str]
    """Texts of some errors."""
    missed_writes: Mapping[str, Mapping[str, int]]
    """Number of writes that a zone did not acknowledge, by zone and outcome."""
    fallbacks: Mapping[str, Mapping[str, int]]
    """Number of reads that left a zone for another one, by zone and reason."""
    counts: Mapping[str, int]
    """Counts of the client's statistics during the load."""
    traffic: Mapping[str, ZoneTraffic]
    """Bytes to and from each zone during the load."""
    cross_zone: int
    """Bytes to and from zones other than the local one during the load."""
    cross_zone_whole: int
    """Bytes to and from these zones, with those for storing and deleting the keys."""
    nodes: list[NodeReport]
    reads_to_ping: Mapping[str, float]
    """Median latency of the reads that a zone served, divided by the median ping of its nodes before the load."""
    keys_left: int
    """Number of keys that were not deleted in all zones. They expire."""


def plan_report(plan: Plan, namespace: str, costs: Estimate, *, near_cache: bool) -> PlanReport:
    """Return the report of a plan."""
    return PlanReport(
        namespace=namespace,
        operations=plan.operations,
        seconds=plan.seconds,
        rate=plan.rate,
        callers=plan.callers,
        size=plan.size,
        keys=plan.keys,
        write_share=plan.write_share,
        consistency=None if plan.consistency is None else plan.consistency.value,
        near_cache=near_cache,
        ttl=plan.ttl,
        max_errors=plan.max_errors,
        max_p99=plan.max_p99,
        estimate=costs,
        cross_zone=costs.cross_zone,
    )


def bench_report(plan: PlanReport, record: Record) -> BenchReport:
    """Return the report of a measurement that has ended."""
    seconds = 0.0 if record.began is None or record.ended is None else record.ended - record.began
    succeeded = record.completed - record.errors.total()
    return BenchReport(
        plan=plan,
        stopped=record.stopped,
        seconds=seconds,
        completed=record.completed,
        abandoned=record.lateness.count - record.completed,
        not_sent=record.not_sent,
        throughput=succeeded / seconds if seconds else 0.0,
        reads=LatencyReport.of(record.all_reads),
        reads_by_zone={zone: LatencyReport.of(record.reads[zone]) for zone in sorted(record.reads)},
        writes=LatencyReport.of(record.writes),
        lateness=LatencyReport.of(record.lateness),
        sources=dict(record.sources),
        errors=dict(record.errors),
        examples=list(record.examples),
        missed_writes={zone: dict(outcomes) for zone, outcomes in record.missed_writes.items()},
        fallbacks={zone: dict(reasons) for zone, reasons in record.fallbacks.items()},
        counts=dict(record.counts),
        traffic=dict(record.traffic),
        cross_zone=_cross_zone(record.traffic),
        cross_zone_whole=_cross_zone(record.whole_traffic),
        nodes=[_node(node) for node in record.nodes],
        reads_to_ping=_reads_to_ping(record),
        keys_left=record.left,
    )


def _cross_zone(traffic: Mapping[str, ZoneTraffic]) -> int:
    return sum(zone.sent + zone.received for zone in traffic.values() if not zone.is_local)


def _reads_to_ping(record: Record) -> dict[str, float]:
    found = {}
    for zone, reads in sorted(record.reads.items()):
        medians = [node.before.quantile(0.5) for node in record.nodes if node.zone == zone]
        known = [median for median in medians if median is not None]
        read = reads.quantile(0.5)
        if known and read is not None:
            found[zone] = read / fmean(known)
    return found


def _node(times: NodeTimes) -> NodeReport:
    return NodeReport(
        times.zone,
        times.node,
        LatencyReport.of(times.before),
        LatencyReport.of(times.during),
        times.failures,
        times.error,
    )
