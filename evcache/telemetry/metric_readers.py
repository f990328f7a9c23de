"""Functions that read the numbers of metrics from the counters of a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from evcache.stats import Stats
from evcache.telemetry.metric_source import ClientMetricsSource
from evcache.zones.nodes.node import Node

K = TypeVar("K")
V = TypeVar("V")

Value = tuple[float, tuple[str | bool | int, ...]]
"""A number with the values of its attributes, in the order of `Metric.attributes`."""

Read = Callable[[ClientMetricsSource], Iterable[Value]]
"""Function that reads the numbers of a metric."""


def of_nodes(measure: Callable[[Node], float]) -> Read:
    """Return the function that reads a number of each node."""

    def read(source: ClientMetricsSource) -> Iterable[Value]:
        for (zone, endpoint), node in copy(source.nodes()):
            yield measure(node), (zone, endpoint.path or endpoint.host, endpoint.port)

    return read


def of_near(attribute: str) -> Read:
    """Return the function that reads a number of the near cache, if there is one."""

    def read(source: ClientMetricsSource) -> Iterable[Value]:
        near = source.stats().near
        return [] if near is None else [(getattr(near, attribute), ())]

    return read


def near_removals(source: ClientMetricsSource) -> Iterable[Value]:
    """Yield the removals of the near cache by cause."""
    near = source.stats().near
    if near is not None:
        for cause in ("expired", "evicted", "replaced", "invalidated", "cleared"):
            yield getattr(near, cause), (cause,)


def of_bus(attribute: str) -> Read:
    """Return the function that reads a number of the invalidation channel, if there is one."""

    def read(source: ClientMetricsSource) -> Iterable[Value]:
        bus = source.stats().invalidation
        return [] if bus is None else [(getattr(bus, attribute), ())]

    return read


def of_stats(measure: Callable[[Stats], float]) -> Read:
    """Return the function that reads a number of `EVCache.stats`."""
    return lambda source: [(measure(source.stats()), ())]


def topology_age(source: ClientMetricsSource) -> Iterable[Value]:
    """Return the age of the topology, if its source reports it."""
    age = source.stats().topology_age
    return [] if age is None else [(age, ())]


def leases(source: ClientMetricsSource) -> Iterable[Value]:
    """Return the leases by result."""
    loads = source.stats().loads
    return [(loads.leases_won, ("won",)), (loads.leases_lost, ("lost",))]


def traffic(source: ClientMetricsSource) -> Iterable[Value]:
    """Yield the bytes sent to each zone and received from it."""
    for zone, of_zone in source.stats().traffic.items():
        yield of_zone.sent, (zone, of_zone.is_local, "transmit")
        yield of_zone.received, (zone, of_zone.is_local, "receive")


HIT = {True: "hit", False: "miss"}
"""Values of `evcache.result`."""

NODE = ("evcache.zone", "server.address", "server.port")
"""Attributes of a node."""

# Exporters read from other threads while the event loop may change the dicts.
_ATTEMPTS = 10


def retry_while_changing(read: Callable[[], Iterable[K]]) -> list[K]:
    """Return the values of `read`. Read again if the event loop changed a dict during the iteration."""
    for _ in range(_ATTEMPTS):
        try:
            return list(read())
        except RuntimeError:  # the size of a dict changed during iteration
            continue
    return []


def copy(mapping: Mapping[K, V]) -> list[tuple[K, V]]:
    """Return the items of a mapping at one moment."""
    return list(mapping.items())


def zones_of(source: ClientMetricsSource) -> list[str]:
    """Return the zones that have nodes."""
    return sorted({zone for (zone, _), _ in copy(source.nodes())})


def pending_hints(source: ClientMetricsSource) -> Iterable[Value]:
    """Return the stored hints of each zone, also of one that left the topology."""
    hints = source.stats().hints_by_zone
    return [(hints.get(zone, 0), (zone,)) for zone in sorted({*zones_of(source), *hints})]


def zones_without_versions(source: ClientMetricsSource) -> Iterable[Value]:
    """Return 1 for each zone with a server without versions, and 0 for the others."""
    without = source.stats().zones_without_versions
    return [(zone in without, (zone,)) for zone in zones_of(source)]
