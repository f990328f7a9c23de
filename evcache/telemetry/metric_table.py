"""Table of all metrics: names, units, attributes and the functions that read the numbers.

The name and the buckets of `db.client.operation.duration` come from OpenTelemetry's conventions for database clients. All
other metrics are read when an exporter collects them, from counters that the client keeps in any case.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

from evcache.telemetry.metric_readers import (
    HIT,
    NODE,
    Read,
    copy,
    leases,
    near_removals,
    of_bus,
    of_near,
    of_nodes,
    of_stats,
    pending_hints,
    retry_while_changing,
    topology_age,
    traffic,
    zones_of,
    zones_without_versions,
)
from evcache.telemetry.metric_source import ClientMetricsSource

Kind = Literal["counter", "gauge"]

NAMESPACE = "db.namespace"
"""Attribute of all metrics: the namespace of the client."""

DURATION = "db.client.operation.duration"
DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)  # seconds, from the conventions


class Metric(NamedTuple):
    """One row of the table."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    """Attributes besides `db.namespace`."""
    description: str
    read: Read
    merge: Callable[[float, float], float] = operator.add
    """Function that combines the numbers of several clients of one namespace in this process."""


METRICS = (
    Metric(
        "evcache.reads",
        "counter",
        "{key}",
        ("evcache.source", "evcache.result", "evcache.zone"),
        "read keys, by origin (`near`, `local`, `preferred`, `fallback`, `none`), result (`hit`, `miss`) and zone of the "
        "value, which is empty for a miss",
        lambda source: [(count, (source, HIT[hit], zone)) for (source, hit, zone), count in copy(source.counters.reads)],
    ),
    Metric(
        "evcache.read.fallbacks",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.fallback.reason"),
        "reads that left a zone for the next one, by reason: `miss`, or the class of the error",
        lambda source: [(count, names) for names, count in copy(source.counters.fallbacks)],
    ),
    Metric(
        "evcache.read.failovers_denied",
        "counter",
        "{read}",
        ("evcache.zone",),
        "reads that did not ask another zone, because the failover budget was used up",
        lambda source: [(count, (zone,)) for zone, count in copy(source.counters.denied)],
    ),
    Metric(
        "evcache.read.hedges",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.result"),
        "hedged reads: `won` if the reply of the second zone came first, otherwise `lost`",
        lambda source: [(count, (zone, "won" if won else "lost")) for (zone, won), count in copy(source.counters.hedges)],
    ),
    Metric(
        "evcache.read.gutter",
        "counter",
        "{read}",
        ("evcache.result",),
        "reads that the gutter served because no zone answered",
        lambda source: [(count, (HIT[hit],)) for hit, count in copy(source.counters.gutter)],
    ),
    Metric(
        "evcache.errors_as_misses",
        "counter",
        "{call}",
        ("error.type",),
        "errors that were returned as misses",
        lambda source: [(count, (kind,)) for kind, count in copy(source.counters.hidden)],
    ),
    Metric(
        "evcache.decode_errors",
        "counter",
        "{value}",
        ("evcache.zone",),
        "values that could not be decoded, by zone",
        lambda source: [(count, (zone,)) for zone, count in copy(source.counters.decode_errors)],
    ),
    Metric(
        "evcache.writes",
        "counter",
        "{write}",
        ("db.operation.name", "evcache.result"),
        "writes: `met` if the required number of zones have them, otherwise `unmet`",
        lambda source: [(count, (name, "met" if met else "unmet")) for (name, met), count in copy(source.counters.writes)],
    ),
    Metric(
        "evcache.zone.writes",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.outcome", "evcache.late"),
        "outcomes of writes in each zone; `evcache.late` is true after the return of the call",
        lambda source: [
            (count, (zone, str(outcome), late)) for (zone, outcome, late), count in copy(source.counters.zone_writes)
        ],
    ),
    Metric(
        "evcache.writes.resent",
        "counter",
        "{write}",
        (),
        "writes that were sent again, because a zone held a newer version that the client had not seen",
        of_stats(lambda stats: stats.writes_resent),
    ),
    Metric(
        "evcache.versions.refused",
        "counter",
        "{version}",
        (),
        "versions that were more than 60 s ahead of the client's clock",
        of_stats(lambda stats: stats.versions_refused),
    ),
    Metric(
        "evcache.repairs",
        "counter",
        "{key}",
        ("evcache.zone", "evcache.outcome"),
        "copies of the latest version to stale zones",
        lambda source: [(count, (zone, str(outcome))) for (zone, outcome), count in copy(source.counters.repairs)],
    ),
    Metric(
        "evcache.hints.pending",
        "gauge",
        "{write}",
        ("evcache.zone",),
        "stored hints, which are writes that a zone missed",
        pending_hints,
    ),
    Metric("evcache.hints.size", "gauge", "By", (), "memory of stored hints", of_stats(lambda stats: stats.hint_bytes)),
    Metric(
        "evcache.hints.file_unusable",
        "gauge",
        "{file}",
        (),
        "1 if the hint file is unusable, so that hints are in memory only",
        of_stats(lambda stats: int(stats.hint_file_error is not None)),
    ),
    Metric(
        "evcache.hints.ended",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.hint.end"),
        "hints that ended: `delivered`, or the reason for which they were dropped",
        lambda source: [(count, names) for names, count in copy(source.counters.hints_ended)],
    ),
    Metric(
        "evcache.topology.age",
        "gauge",
        "s",
        (),
        "seconds since the source of the topology last answered for all zones",
        topology_age,
        max,
    ),
    Metric(
        "evcache.topology.held",
        "gauge",
        "{topology}",
        (),
        "1 while the guard holds back the latest topology",
        of_stats(lambda stats: bool(stats.topology_held)),
        max,
    ),
    Metric(
        "evcache.zone.io",
        "counter",
        "By",
        ("evcache.zone", "evcache.zone.local", "network.io.direction"),
        "bytes to a zone (`transmit`) and from it (`receive`); `evcache.zone.local` is true for the local zone",
        traffic,
    ),
    Metric(
        "evcache.zone.out",
        "gauge",
        "{zone}",
        ("evcache.zone",),
        "1 for an ejected zone, which is read last because too many of its nodes are down",
        lambda source: [(zone in source.stats().zones_out, (zone,)) for zone in zones_of(source)],
        max,
    ),
    Metric(
        "evcache.zone.without_versions",
        "gauge",
        "{zone}",
        ("evcache.zone",),
        "1 for a zone in which at least one server keeps no versions",
        zones_without_versions,
        max,
    ),
    Metric(
        "evcache.node.up",
        "gauge",
        "{node}",
        NODE,
        "0 for a node that is down",
        of_nodes(lambda node: not node.is_down),
        min,
    ),
    Metric(
        "evcache.node.circuit.open",
        "gauge",
        "{node}",
        NODE,
        "1 for a node whose circuit is open or half-open",
        of_nodes(lambda node: node.circuit != "closed"),
        max,
    ),
    Metric(
        "evcache.node.requests.pending",
        "gauge",
        "{request}",
        NODE,
        "requests in flight",
        of_nodes(lambda node: node.pending),
    ),
    Metric(
        "evcache.node.requests",
        "counter",
        "{request}",
        NODE,
        "requests that were sent",
        of_nodes(lambda node: node.requests),
    ),
    Metric(
        "evcache.near.entries",
        "gauge",
        "{entry}",
        (),
        "entries of the near cache",
        lambda source: [] if source.stats().near is None else [(source.stats().near_entries, ())],
    ),
    Metric(
        "evcache.near.size",
        "gauge",
        "By",
        (),
        "size of the near cache by its own estimate",
        lambda source: [] if source.stats().near is None else [(source.stats().near_bytes, ())],
    ),
    Metric("evcache.near.hits", "counter", "{key}", (), "keys found in the near cache", of_near("hits")),
    Metric("evcache.near.misses", "counter", "{key}", (), "keys not found in the near cache", of_near("misses")),
    Metric(
        "evcache.near.removals",
        "counter",
        "{entry}",
        ("evcache.cause",),
        "removed entries: `expired`, `evicted`, `replaced`, `invalidated`, `cleared`",
        near_removals,
    ),
    Metric(
        "evcache.loads",
        "counter",
        "{key}",
        ("error.type",),
        "keys that loaders were called for, by the class of the error; empty for success",
        lambda source: [(count, (kind,)) for kind, count in copy(source.counters.loads)],
    ),
    Metric("evcache.loads.running", "gauge", "{load}", (), "running loaders", of_stats(lambda stats: stats.loads.running)),
    Metric(
        "evcache.loads.waiting",
        "gauge",
        "{key}",
        (),
        "keys that are loaded or wait for a loader",
        of_stats(lambda stats: stats.loads.waiting),
    ),
    Metric(
        "evcache.leases",
        "counter",
        "{lease}",
        ("evcache.result",),
        "leases: `won` if this process loads, `lost` if another process does",
        leases,
    ),
    Metric(
        "evcache.stale_served",
        "counter",
        "{key}",
        ("evcache.stale.reason",),
        "stale values that were returned, during a `refresh` or because of an `error` of the load",
        lambda source: [(count, (why,)) for why, count in copy(source.counters.stale)],
    ),
    Metric("evcache.invalidations.sent", "counter", "{key}", (), "keys in sent invalidation messages", of_bus("published")),
    Metric(
        "evcache.invalidations.received",
        "counter",
        "{key}",
        (),
        "keys in received invalidation messages",
        of_bus("received"),
    ),
    Metric("evcache.invalidations.gaps", "counter", "{gap}", (), "gaps in the messages of another client", of_bus("gaps")),
    Metric("evcache.invalidations.losses", "counter", "{loss}", (), "losses of the invalidation channel", of_bus("losses")),
    Metric(
        "evcache.invalidations.up",
        "gauge",
        "{channel}",
        (),
        "0 while invalidation messages of other processes do not arrive",
        of_bus("is_up"),
        min,
    ),
    Metric(
        "evcache.background.tasks",
        "gauge",
        "{task}",
        (),
        "background tasks that outlive their calls",
        of_stats(lambda stats: stats.background_tasks),
    ),
    Metric(
        "evcache.loop.lag",
        "gauge",
        "s",
        (),
        "latest delay of the event loop",
        of_stats(lambda stats: stats.loop_lag),
        max,
    ),
)


def measure(metric: Metric, sources: Iterable[ClientMetricsSource]) -> list[tuple[float, dict[str, str | bool | int]]]:
    """Return the present numbers of a metric with their attributes. Any thread may call it."""
    found: dict[tuple[str | bool | int, ...], float] = {}
    for source in sources:
        for value, attributes in retry_while_changing(partial(metric.read, source)):
            row = (source.namespace, *attributes)
            number = value if isinstance(value, float) else int(value)
            found[row] = number if row not in found else metric.merge(found[row], number)
    names = (NAMESPACE, *metric.attributes)
    return [(value, dict(zip(names, row, strict=True))) for row, value in found.items()]
