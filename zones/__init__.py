"""Topology, nodes and transports. This package has no values and no cache policies."""

from evcache.zones.discovery.base import Discovery, SourceStatus, StaticDiscovery
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.discovery.lookup import FoundNodes, LookupDiscovery, LookupZone, NodeSource
from evcache.zones.discovery.polling import Look, PolledDiscovery
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from evcache.zones.transport.dialer import SocketDialer

__all__ = [
    "Discovery",
    "Endpoint",
    "EnvironmentDiscovery",
    "FileDiscovery",
    "FoundNodes",
    "Look",
    "LookupDiscovery",
    "LookupZone",
    "Mode",
    "NodeSource",
    "PolledDiscovery",
    "SocketDialer",
    "SourceStatus",
    "StaticDiscovery",
    "Topology",
    "Zone",
]
