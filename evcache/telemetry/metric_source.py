"""Numbers of one client, which the metrics read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evcache.stats import Stats
from evcache.telemetry.counters import Counters
from evcache.zones.nodes.node import Node
from evcache.zones.topology.model import Endpoint

NodePlace = tuple[str, Endpoint]
"""Zone and address of a node."""


class ClientMetricsSource:
    """Numbers of one client."""

    def __init__(
        self, namespace: str, counters: Counters, stats: Callable[[], Stats], nodes: Callable[[], Mapping[NodePlace, Node]]
    ) -> None:
        self.namespace = namespace
        self.counters = counters
        self.stats = stats
        self.nodes = nodes
