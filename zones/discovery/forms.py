"""Text forms and mappings of zones whose nodes are given, or looked up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evcache.zones.discovery.base import Discovery, StaticDiscovery
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.discovery.kubernetes.text import kubernetes_discovery
from evcache.zones.discovery.lookup import LookupDiscovery, LookupZone, NodeSource
from evcache.zones.discovery.lookups.config_endpoint import config_endpoint_of
from evcache.zones.discovery.lookups.dns_names import dns_lookup_of
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Endpoint, Mode, Topology, endpoint_of, zone_of
from evcache.zones.topology.parsing import NodeText, parse_node_list
from evcache.zones.validation import has_methods

KUBERNETES = "kubernetes+"


def discovery_of_text(text: str) -> Discovery:
    """Return the source of a node list, or of a Kubernetes service.

    Args:
        text: `eu-1a=NODE,NODE;eu-1b=NODE`, `kubernetes+SERVICE.NAMESPACE:PORT`, or the path of a .toml file. A node is an
            address, as `Endpoint.parse` reads it, or a lookup: `dns+HOST:PORT`, `dnssrv+NAME`, `dnssrvnoa+NAME`,
            `elasticache+HOST:PORT` or `memorystore+HOST:PORT`.

    Raises:
        InvalidTopology: The text has another form.
        InvalidArgument: The source needs a package that is not installed.
    """
    kubernetes = kubernetes_discovery(text.strip())
    if kubernetes is not None:
        return kubernetes
    if "=" not in text and Path(text.strip()).suffix == ".toml":
        return FileDiscovery(text.strip())
    zones = list(parse_node_list(text))
    if not any(lookup_of(node.address) for zone in zones for node in zone.nodes):
        return StaticDiscovery(Topology.from_node_list(text))
    return LookupDiscovery([LookupZone(zone.name, tuple(_parsed(zone.nodes)), Mode(zone.mode)) for zone in zones])


def discovery_of_mapping(zones: Mapping[str, object]) -> Discovery:
    """Return the source of a mapping of zone names to nodes.

    Args:
        zones: Zone names to a list of nodes, a `Zone`, a lookup as `discovery_of_text` has it, or a `NodeSource`. A node of
            a list may be any of the last two, too.

    Raises:
        InvalidTopology: A name or a node has another form.
        InvalidArgument: A source needs a package that is not installed.
    """
    given = {name: _listed(nodes) for name, nodes in zones.items()}
    found = {name: _sources(name, nodes) for name, nodes in given.items()}
    if all(sources is None for sources in found.values()):
        return StaticDiscovery(Topology.from_mapping(given))
    looked_up: list[LookupZone] = []
    for name, sources in found.items():
        if sources is None:
            zone = zone_of(name, given[name])
            looked_up.append(LookupZone(name, zone.nodes, zone.mode))
        else:
            looked_up.append(LookupZone(name, sources))
    return LookupDiscovery(looked_up)


def lookup_of(node: str) -> NodeSource | None:
    """Return the source of a node that is looked up, or None for an address.

    Raises:
        InvalidTopology: The text after the prefix has another form.
        InvalidArgument: The source needs a package that is not installed.
    """
    if node.strip().startswith(KUBERNETES):
        raise InvalidTopology("zones", f"{node!r} is no node: a service of Kubernetes has its zones, so write it alone")
    return dns_lookup_of(node) or config_endpoint_of(node)


def _parsed(nodes: Iterable[NodeText]) -> Iterator[NodeSource | Endpoint]:
    for node in nodes:
        yield lookup_of(node.address) or Endpoint.parse(node.address)


def _listed(nodes: object) -> Any:
    """Return the nodes of a zone as a list, because an iterator has them only once. Return anything else as it is."""
    return list(nodes) if isinstance(nodes, Iterable) and not isinstance(nodes, str | bytes) else nodes


def _sources(zone: str, nodes: Any) -> tuple[NodeSource | Endpoint, ...] | None:
    """Return the sources of a zone, or None if nothing is looked up."""
    if isinstance(nodes, str):
        lookup = lookup_of(nodes)
        return None if lookup is None else (lookup,)
    if not isinstance(nodes, list):
        return (nodes,) if has_methods(nodes, "nodes") else None
    found = [(lookup_of(node) if isinstance(node, str) else None) or node for node in nodes]
    if not any(has_methods(node, "nodes") for node in found):
        return None
    return tuple(node if has_methods(node, "nodes") else endpoint_of(zone, node) for node in found)
