"""The metrics of a client: a table. Names, units and attributes; and where each number is read from.

`db.client.operation.duration` is named, and measured in the buckets, of OpenTelemetry's conventions for database clients.
All others are read when somebody asks for them, from what the client counts anyway.
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

K = TypeVar("K")
V = TypeVar("V")

Kind = Literal["counter", "gauge"]
Value = tuple[float, tuple[str | bool | int, ...]]
"""A number, and the values of its attributes in the order of its metric's."""

NAMESPACE = "db.namespace"
"""An attribute of all: the client's namespace."""

DURATION = "db.client.operation.duration"
DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)  # seconds; of the conventions


class ClientMetricsSource:
    """A client, as far as its numbers are concerned."""

    def __init__(
        self,
        namespace: str,
        counts: Counters,
        stats: Callable[[], Stats],
        nodes: Callable[[], Mapping[tuple[str, Endpoint], Node]],
    ) -> None:
        self.namespace = namespace
        self.counts = counts
        self.stats = stats
        self.nodes = nodes


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    """Beside `db.namespace`."""
    meaning: str
    measure: Callable[[ClientMetricsSource], Iterable[Value]]
    together: Callable[[float, float], float] = operator.add
    """How the numbers of several clients of one namespace in this process become one."""


def _nodes(measure: Callable[[Node], float]) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(client: ClientMetricsSource) -> Iterable[Value]:
        for (zone, endpoint), node in _copy(client.nodes()):
            yield measure(node), (zone, endpoint.path or endpoint.host, endpoint.port)

    return read


def _near(attribute: str) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(client: ClientMetricsSource) -> Iterable[Value]:
        near = client.stats().near
        return [] if near is None else [(getattr(near, attribute), ())]

    return read


def _near_removals(client: ClientMetricsSource) -> Iterable[Value]:
    near = client.stats().near
    if near is not None:
        for cause in ("expired", "evicted", "replaced", "invalidated", "cleared"):
            yield getattr(near, cause), (cause,)


def _bus(attribute: str) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    def read(client: ClientMetricsSource) -> Iterable[Value]:
        bus = client.stats().invalidation
        return [] if bus is None else [(getattr(bus, attribute), ())]

    return read


def _stat(measure: Callable[[Stats], float]) -> Callable[[ClientMetricsSource], Iterable[Value]]:
    return lambda client: [(measure(client.stats()), ())]


def _leases(client: ClientMetricsSource) -> Iterable[Value]:
    loads = client.stats().loads
    return [(loads.leases_won, ("won",)), (loads.leases_lost, ("lost",))]


_HIT = {True: "hit", False: "miss"}
_NODE = ("evcache.zone", "server.address", "server.port")

# Exporters read from threads of their own, while the event loop may be adding to what is read.
_TRIES = 10


def _undisturbed(read: Callable[[], Iterable[K]]) -> list[K]:
    """What is read, read again when the event loop has changed it meanwhile."""
    for _ in range(_TRIES):
        try:
            return list(read())
        except RuntimeError:  # it has grown, or shrunk
            continue
    return []


def _copy(mapping: Mapping[K, V]) -> list[tuple[K, V]]:
    return list(mapping.items())


def _zones(client: ClientMetricsSource) -> list[str]:
    return sorted({zone for (zone, _), _ in _copy(client.nodes())})


def _zones_without_versions(client: ClientMetricsSource) -> Iterable[Value]:
    without = client.stats().zones_without_versions
    return [(zone in without, (zone,)) for zone in _zones(client)]


METRICS = (
    Metric(
        "evcache.reads",
        "counter",
        "{key}",
        ("evcache.source", "evcache.result"),
        "keys that were read, by origin (`near`, `local`, `preferred`, `fallback`, `none`); `hit` or `miss`",
        lambda client: [(count, (source, _HIT[hit])) for (source, hit), count in _copy(client.counts.reads)],
    ),
    Metric(
        "evcache.read.fallbacks",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.fallback.reason"),
        "reads that left a zone for the next one: `miss`, or the error's name",
        lambda client: [(count, names) for names, count in _copy(client.counts.fallbacks)],
    ),
    Metric(
        "evcache.read.failovers_denied",
        "counter",
        "{read}",
        ("evcache.zone",),
        "reads that did not ask another zone, since the failover budget is used up",
        lambda client: [(count, (zone,)) for zone, count in _copy(client.counts.denied)],
    ),
    Metric(
        "evcache.read.hedges",
        "counter",
        "{read}",
        ("evcache.zone", "evcache.result"),
        "reads that asked a second zone: `won` when its answer came first, or `lost`",
        lambda client: [(count, (zone, "won" if won else "lost")) for (zone, won), count in _copy(client.counts.hedges)],
    ),
    Metric(
        "evcache.read.gutter",
        "counter",
        "{read}",
        ("evcache.result",),
        "reads that no zone answered, and the gutter did",
        lambda client: [(count, (_HIT[hit],)) for hit, count in _copy(client.counts.gutter)],
    ),
    Metric(
        "evcache.errors_as_misses",
        "counter",
        "{call}",
        ("error.type",),
        "errors that were returned as misses",
        lambda client: [(count, (kind,)) for kind, count in _copy(client.counts.hidden)],
    ),
    Metric(
        "evcache.decode_errors",
        "counter",
        "{value}",
        ("evcache.zone",),
        "values that were found and could not be decoded, by the zone that they came from",
        lambda client: [(count, (zone,)) for zone, count in _copy(client.counts.decode_errors)],
    ),
    Metric(
        "evcache.writes",
        "counter",
        "{write}",
        ("db.operation.name", "evcache.result"),
        "writes: `met` when as many zones as were asked for have them, or `unmet`",
        lambda client: [(count, (name, "met" if met else "unmet")) for (name, met), count in _copy(client.counts.writes)],
    ),
    Metric(
        "evcache.zone.writes",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.outcome", "evcache.late"),
        "what each zone did with writes, and whether that was after the call had returned",
        lambda client: [
            (count, (zone, str(outcome), late)) for (zone, outcome, late), count in _copy(client.counts.zone_writes)
        ],
    ),
    Metric(
        "evcache.writes.resent",
        "counter",
        "{write}",
        (),
        "writes that were sent again, since a zone held a newer version that the client had not seen",
        _stat(lambda stats: stats.writes_resent),
    ),
    Metric(
        "evcache.versions.refused",
        "counter",
        "{version}",
        (),
        "versions seen that were more than 60 s ahead of the client's clock",
        _stat(lambda stats: stats.versions_refused),
    ),
    Metric(
        "evcache.repairs",
        "counter",
        "{key}",
        ("evcache.zone", "evcache.outcome"),
        "zones that were brought what they lacked",
        lambda client: [(count, (zone, str(outcome))) for (zone, outcome), count in _copy(client.counts.repairs)],
    ),
    Metric(
        "evcache.hints.pending",
        "gauge",
        "{write}",
        (),
        "writes that are kept for zones that missed them",
        _stat(lambda stats: stats.hints),
    ),
    Metric("evcache.hints.size", "gauge", "By", (), "what they take", _stat(lambda stats: stats.hint_bytes)),
    Metric(
        "evcache.hints.file_unusable",
        "gauge",
        "{file}",
        (),
        "1 if hints are kept in memory only although they should be in a file",
        _stat(lambda stats: int(stats.hint_file_error is not None)),
    ),
    Metric(
        "evcache.hints.ended",
        "counter",
        "{write}",
        ("evcache.zone", "evcache.hint.end"),
        "writes that are not kept any more: `delivered`, or why not",
        lambda client: [(count, names) for names, count in _copy(client.counts.hints_ended)],
    ),
    Metric(
        "evcache.zone.out",
        "gauge",
        "{zone}",
        ("evcache.zone",),
        "1 for a zone that is read last, since too many of its nodes are down",
        lambda client: [(zone in client.stats().zones_out, (zone,)) for zone in _zones(client)],
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
        "0 for a node that is down, and is not asked",
        _nodes(lambda node: not node.is_down),
        min,
    ),
    Metric(
        "evcache.node.circuit.open",
        "gauge",
        "{node}",
        _NODE,
        "1 for a node whose circuit is open or half open",
        _nodes(lambda node: node.circuit != "closed"),
        max,
    ),
    Metric(
        "evcache.node.requests.pending",
        "gauge",
        "{request}",
        _NODE,
        "requests whose reply has not been read",
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
        lambda client: [] if client.stats().near is None else [(client.stats().near_entries, ())],
    ),
    Metric(
        "evcache.near.size",
        "gauge",
        "By",
        (),
        "what they count for",
        lambda client: [] if client.stats().near is None else [(client.stats().near_bytes, ())],
    ),
    Metric("evcache.near.hits", "counter", "{key}", (), "keys that the near cache had", _near("hits")),
    Metric("evcache.near.misses", "counter", "{key}", (), "keys that it had not", _near("misses")),
    Metric(
        "evcache.near.removals",
        "counter",
        "{entry}",
        ("evcache.cause",),
        "entries that are no longer there: `expired`, `evicted`, `replaced`, `invalidated`, `cleared`",
        _near_removals,
    ),
    Metric(
        "evcache.loads",
        "counter",
        "{key}",
        ("error.type",),
        "keys that loaders were asked for; with the error's name, in vain; empty, with success",
        lambda client: [(count, (kind,)) for kind, count in _copy(client.counts.loads)],
    ),
    Metric("evcache.loads.running", "gauge", "{load}", (), "loaders that run", _stat(lambda stats: stats.loads.running)),
    Metric(
        "evcache.loads.waiting",
        "gauge",
        "{key}",
        (),
        "keys that are being loaded, or wait for it",
        _stat(lambda stats: stats.loads.waiting),
    ),
    Metric(
        "evcache.leases",
        "counter",
        "{lease}",
        ("evcache.result",),
        "leases: `won` when this process loads, `lost` when another one does",
        _leases,
    ),
    Metric(
        "evcache.stale_served",
        "counter",
        "{key}",
        ("evcache.stale.reason",),
        "values that were returned after they had gone out of date: during a `refresh`, or because of an `error`",
        lambda client: [(count, (why,)) for why, count in _copy(client.counts.stale)],
    ),
    Metric("evcache.invalidations.sent", "counter", "{key}", (), "changes that were announced", _bus("published")),
    Metric("evcache.invalidations.received", "counter", "{key}", (), "changes that others announced", _bus("received")),
    Metric(
        "evcache.invalidations.gaps", "counter", "{gap}", (), "times when announcements may have been missed", _bus("gaps")
    ),
    Metric("evcache.invalidations.losses", "counter", "{loss}", (), "times when the channel was lost", _bus("losses")),
    Metric(
        "evcache.background.tasks",
        "gauge",
        "{task}",
        (),
        "tasks that outlive their calls",
        _stat(lambda stats: stats.background_tasks),
    ),
    Metric(
        "evcache.loop.lag",
        "gauge",
        "s",
        (),
        "how late the event loop was when it was last looked at",
        _stat(lambda stats: stats.loop_lag),
        max,
    ),
)


def read(metric: Metric, clients: Iterable[ClientMetricsSource]) -> list[tuple[float, dict[str, str | bool | int]]]:
    """What a metric says now of these clients, with its attributes. From any thread."""
    found: dict[tuple[str | bool | int, ...], float] = {}
    for client in clients:
        for value, attributes in _undisturbed(partial(metric.measure, client)):
            place = (client.namespace, *attributes)
            number = value if isinstance(value, float) else int(value)
            found[place] = number if place not in found else metric.together(found[place], number)
    names = (NAMESPACE, *metric.attributes)
    return [(value, dict(zip(names, place, strict=True))) for place, value in found.items()]
