"""Table of all metrics: names, units, attributes and the functions that read the numbers.

The name and the buckets of `db.client.operation.duration` come from OpenTelemetry's conventions for database clients. All
other metrics are read when an exporter collects them, from counters that the client keeps in any case.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from evcache.stats import Stats
from evcache.telemetry.counters import Counters
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Endpoint

NodePlace = tuple[str, Endpoint]
"""Zone and address of a node."""

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["counter", "gauge"]
Value = tuple[float, tuple[str | bool | int, ...]]
"""A number with the values of its attributes, in the order of `Metric.attributes`."""

NAMESPACE = "db.namespace"
"""Attribute of all metrics: the namespace of the client."""

DURATION = "db.client.operation.duration"
DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)  # seconds, from the conventions


class ClientMetricsSource:
    """Numbers of one client."""

    def __init__(
        self, namespace: str, counters: Counters, stats: Callable[[], Stats], nodes: Callable[[], Mapping[NodePlace, Node]]
    ) -> None:
        self.namespace = namespace
        self.counters = counters
        self.stats = stats
        self.nodes = nodes


class Metric(NamedTuple):
    """One row of the table."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    """Attributes besides `db.namespace`."""
    description: str
    read: Callable[[ClientMetricsSource], Iterable[Value]]
    merge: Callable[[float, float], float] = operator.add
    """Function that combines the numbers of several clients of one namespace in this process."""


def _nodes(measure: Callable[[Node], float]) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(source: ClientMetricsSource) -> Iterable[Value]:
        for (zone, endpoint), node in _copy(source.nodes()):
            yield measure(node), (zone, endpoint.path or endpoint.host, endpoint.port)

    return read


def _near(attribute: str) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(source: ClientMetricsSource) -> Iterable[Value]:
        near = source.stats().near
        return [] if near is None else [(getattr(near, attribute), ())]

    return read


def _near_removals(source: ClientMetricsSource) -> Iterable[Value]:
    near = source.stats().near
    if near is not None:
        for cause in ("expired", "evicted", "replaced", "invalidated", "cleared"):
            yield getattr(near, cause), (cause,)


def _bus(attribute: str) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(source: ClientMetricsSource) -> Iterable[Value]:
        bus = source.stats().invalidation
        return [] if bus is None else [(getattr(bus, attribute), ())]

    return read


def _stat(measure: Callable[[Stats], float]) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    return lambda source: [(measure(source.stats()), ())]


def _leases(source: ClientMetricsSource) -> Iterable[Value]:
    loads = source.stats().loads
    return [(loads.leases_won, ("won",)), (loads.leases_lost, ("lost",))]


_HIT = {True: "hit", False: "miss"}
_NODE = ("evcache.zone", "server.address", "server.port")

# Exporters read from other threads while the event loop may change the dicts.
_ATTEMPTS = 10


def _retry_while_changing(read: Callable[[], Iterable[K]]) -> list[K]:
    """Return the values of `read`. Read again if the event loop changed a dict during the iteration."""
    for _ in range(_ATTEMPTS):
        try:
            return list(read())
        except RuntimeError:  # the size of a dict changed during iteration
            continue
    return []


def _copy(mapping: Mapping[K, V]) -> list[tuple[K, V]]:
    return list(mapping.items())


def _zones(source: ClientMetricsSource) -> list[str]:
    return sorted({zone for (zone, _), _ in _copy(source.nodes())})


def _zones_without_versions(source: ClientMetricsSource) -> Iterable[Value]:
    without = source.stats().zones_without_versions
    return [(zone in without, (zone,)) for zone in _zones(source)]


METRICS = (
    Metric(
        "evcache.reads",
        "counter",
        "{key}",
        ("evcache.source", "evcache.result"),
        "read keys, by origin (`near`, `local`, `preferred`, `fallback`, `none`) and result (`hit`, `miss`)",
        lambda source: [(count, (source, _HIT[hit])) for (source, hit), count in _copy(source.counters.reads)],
    ),
    Metric(
        "evcache.read.fallbacks",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.fallback.reason"),
        "reads that left a zone for the next one, by reason: `miss`, or the class of the error",
        lambda source: [(count, names) for names, count in _copy(source.counters.fallbacks)],
    ),
    Metric(
        "evcache.read.failovers_denied",
        "counter",
        "{read}",
        ("evcache.zone",),
        "reads that did not ask another zone, because the failover budget was used up",
        lambda source: [(count, (zone,)) for zone, count in _copy(source.counters.denied)],
    ),
    Metric(
        "evcache.read.hedges",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.result"),
        "hedged reads: `won` if the reply of the second zone came first, otherwise `lost`",
        lambda source: [(count, (zone, "won" if won else "lost")) for (zone, won), count in _copy(source.counters.hedges)],
    ),
    Metric(
        "evcache.read.gutter",
        "counter",
        "{read}",
        ("evcache.result",),
        "reads that the gutter served because no zone answered",
        lambda source: [(count, (_HIT[hit],)) for hit, count in _copy(source.counters.gutter)],
    ),
    Metric(
        "evcache.errors_as_misses",
        "counter",
        "{call}",
        ("error.type",),
        "errors that were returned as misses",
        lambda source: [(count, (kind,)) for kind, count in _copy(source.counters.hidden)],
    ),
    Metric(
        "evcache.decode_errors",
        "counter",
        "{value}",
        ("evcache.zone",),
        "values that could not be decoded, by zone",
        lambda source: [(count, (zone,)) for zone, count in _copy(source.counters.decode_errors)],
    ),
    Metric(
        "evcache.writes",
        "counter",
        "{write}",
        ("db.operation.name", "evcache.result"),
        "writes: `met` if the required number of zones have them, otherwise `unmet`",
        lambda source: [(count, (name, "met" if met else "unmet")) for (name, met), count in _copy(source.counters.writes)],
    ),
    Metric(
        "evcache.zone.writes",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.outcome", "evcache.late"),
        "outcomes of writes in each zone; `evcache.late` is true after the return of the call",
        lambda source: [
            (count, (zone, str(outcome), late)) for (zone, outcome, late), count in _copy(source.counters.zone_writes)
        ],
    ),
    Metric(
        "evcache.writes.resent",
        "counter",
        "{write}",
        (),
        "writes that were sent again, because a zone held a newer version that the client had not seen",
        _stat(lambda stats: stats.writes_resent),
    ),
    Metric(
        "evcache.versions.refused",
        "counter",
        "{version}",
        (),
        "versions that were more than 60 s ahead of the client's clock",
        _stat(lambda stats: stats.versions_refused),
    ),
    Metric(
        "evcache.repairs",
        "counter",
        "{key}",
        ("evcache.zone", "evcache.outcome"),
        "copies of the latest version to stale zones",
        lambda source: [(count, (zone, str(outcome))) for (zone, outcome), count in _copy(source.counters.repairs)],
    ),
    Metric(
        "evcache.hints.pending",
        "gauge",
        "{write}",
        (),
        "stored hints, which are writes that a zone missed",
        _stat(lambda stats: stats.hints),
    ),
    Metric("evcache.hints.size", "gauge", "By", (), "memory of stored hints", _stat(lambda stats: stats.hint_bytes)),
    Metric(
        "evcache.hints.file_unusable",
        "gauge",
        "{file}",
        (),
        "1 if the hint file is unusable, so that hints are in memory only",
        _stat(lambda stats: int(stats.hint_file_error is not None)),
    ),
    Metric(
        "evcache.hints.ended",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.hint.end"),
        "hints that ended: `delivered`, or the reason for which they were dropped",
        lambda source: [(count, names) for names, count in _copy(source.counters.hints_ended)],
    ),
    Metric(
        "evcache.zone.out",
        "gauge",
        "{zone}",
        ("evcache.zone",),
        "1 for an ejected zone, which is read last because too many of its nodes are down",
        lambda source: [(zone in source.stats().zones_out, (zone,)) for zone in _zones(source)],
        max,
    ),
    Metric(
        "evcache.zone.without_versions",
        "gauge",
        "{zone}",
        ("evcache.zone",),
        "1 for a zone in which at least one server keeps no versions",
        _zones_without_versions,
        max,
    ),
    Metric(
        "evcache.node.up",
        "gauge",
        "{node}",
        _NODE,
        "0 for a node that is down",
        _nodes(lambda node: not node.is_down),
        min,
    ),
    Metric(
        "evcache.node.circuit.open",
        "gauge",
        "{node}",
        _NODE,
        "1 for a node whose circuit is open or half-open",
        _nodes(lambda node: node.circuit != "closed"),
        max,
    ),
    Metric(
        "evcache.node.requests.pending",
        "gauge",
        "{request}",
        _NODE,
        "requests in flight",
        _nodes(lambda node: node.pending),
    ),
    Metric(
        "evcache.node.requests", "counter", "{request}", _NODE, "requests that were sent", _nodes(lambda node: node.requests)
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
    Metric("evcache.near.hits", "counter", "{key}", (), "keys found in the near cache", _near("hits")),
    Metric("evcache.near.misses", "counter", "{key}", (), "keys not found in the near cache", _near("misses")),
    Metric(
        "evcache.near.removals",
        "counter",
        "{entry}",
        ("evcache.cause",),
        "removed entries: `expired`, `evicted`, `replaced`, `invalidated`, `cleared`",
        _near_removals,
    ),
    Metric(
        "evcache.loads",
        "counter",
        "{key}",
        ("error.type",),
        "keys that loaders were called for, by the class of the error; empty for success",
        lambda source: [(count, (kind,)) for kind, count in _copy(source.counters.loads)],
    ),
    Metric("evcache.loads.running", "gauge", "{load}", (), "running loaders", _stat(lambda stats: stats.loads.running)),
    Metric(
        "evcache.loads.waiting",
        "gauge",
        "{key}",
        (),
        "keys that are loaded or wait for a loader",
        _stat(lambda stats: stats.loads.waiting),
    ),
    Metric(
        "evcache.leases",
        "counter",
        "{lease}",
        ("evcache.result",),
        "leases: `won` if this process loads, `lost` if another process does",
        _leases,
    ),
    Metric(
        "evcache.stale_served",
        "counter",
        "{key}",
        ("evcache.stale.reason",),
        "stale values that were returned, during a `refresh` or because of an `error` of the load",
        lambda source: [(count, (why,)) for why, count in _copy(source.counters.stale)],
    ),
    Metric("evcache.invalidations.sent", "counter", "{key}", (), "keys in sent invalidation messages", _bus("published")),
    Metric(
        "evcache.invalidations.received", "counter", "{key}", (), "keys in received invalidation messages", _bus("received")
    ),
    Metric("evcache.invalidations.gaps", "counter", "{gap}", (), "gaps in the messages of another client", _bus("gaps")),
    Metric("evcache.invalidations.losses", "counter", "{loss}", (), "losses of the invalidation channel", _bus("losses")),
    Metric(
        "evcache.background.tasks",
        "gauge",
        "{task}",
        (),
        "background tasks that outlive their calls",
        _stat(lambda stats: stats.background_tasks),
    ),
    Metric(
        "evcache.loop.lag",
        "gauge",
        "s",
        (),
        "latest delay of the event loop",
        _stat(lambda stats: stats.loop_lag),
        max,
    ),
)


def measure(metric: Metric, sources: Iterable[ClientMetricsSource]) -> list[tuple[float, dict[str, str | bool | int]]]:
    """Return the present numbers of a metric with their attributes. Any thread may call it."""
    found: dict[tuple[str | bool | int, ...], float] = {}
    for source in sources:
        for value, attributes in _retry_while_changing(partial(metric.read, source)):
            row = (source.namespace, *attributes)
            number = value if isinstance(value, float) else int(value)
            found[row] = number if row not in found else metric.merge(found[row], number)
    names = (NAMESPACE, *metric.attributes)
    return [(value, dict(zip(names, row, strict=True))) for row, value in found.items()]
