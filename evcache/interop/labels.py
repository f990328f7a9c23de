"""Labels of nodes as EVCache for the JVM makes them, so that both clients place keys on the same nodes.

EVCache hashes `<host name>/<address>:11211`, whatever the port. A node that is given by its address has the address as its
name, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from evcache.zones._tasks import closing
from evcache.zones.discovery.base import Discovery, SourceStatus, StaticDiscovery
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Endpoint, Topology, Zone
from evcache.zones.topology.parsing import is_ip_address, jvm_label


def with_jvm_labels(topology: Topology) -> Topology:
    """Return a topology whose nodes have the labels of the JVM client. A label that the user wrote stays.

    Raises:
        InvalidTopology: A zone of several nodes names one by a host name, or two nodes have one label.
    """
    return Topology(tuple(_labelled(zone) for zone in topology.zones))


def _labelled(zone: Zone) -> Zone:
    nodes = tuple(_labelled_node(zone, node) for node in zone.nodes)
    by_label: dict[str, Endpoint] = {}
    for node in nodes:
        other = by_label.setdefault(node.label, node)
        if other is not node:
            raise InvalidTopology(
                "zones",
                f"zone {zone.name!r}: {other.address} and {node.address} have one label for JVM clients, {node.label!r},"
                " because they ignore ports. Give each node an address of its own, or a label",
            )
    return replace(zone, nodes=nodes)


def _labelled_node(zone: Zone, node: Endpoint) -> Endpoint:
    if node.path or node.label != node.address:
        return node
    if is_ip_address(node.host):
        return replace(node, label=jvm_label(node.host, node.host))
    if len(zone.nodes) == 1:
        return node  # all keys are on this node, whatever its label
    raise InvalidTopology(
        "zones",
        f"zone {zone.name!r}: JVM clients place keys by the name and the address of a node: write {node.host}/ADDRESS:"
        f"{node.port}, or label@{node.address}",
    )


class JvmLabelledDiscovery:
    """Source whose nodes get the labels of the JVM client."""

    def __init__(self, source: Discovery) -> None:
        """Wrap a source."""
        self._source = source

    @property
    def status(self) -> SourceStatus | None:
        """Freshness of the topology, if the source reports it."""
        return getattr(self._source, "status", None)

    def stale_zones(self) -> Collection[str] | None:
        """Return the zones whose source fails. None for all."""
        ask = getattr(self._source, "stale_zones", None)
        if callable(ask):
            found: Collection[str] | None = ask()
            return found
        return frozenset() if self.status is None else self.status.stale

    async def load(self) -> Topology:
        """Return the present topology. Raises as the source does, and `InvalidTopology` (see `with_jvm_labels`)."""
        return with_jvm_labels(await self._source.load())

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after the first."""
        async with closing(self._source.watch()) as topologies:
            async for topology in topologies:
                yield with_jvm_labels(topology)


def jvm_labelled(source: Discovery) -> Discovery:
    """Return a source whose nodes have the labels of the JVM client.

    Raises:
        InvalidTopology: The nodes are known, and cannot be labelled (see `with_jvm_labels`).
    """
    if isinstance(source, StaticDiscovery):
        return StaticDiscovery(with_jvm_labels(source.topology))
    return JvmLabelledDiscovery(source)
