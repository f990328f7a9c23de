"""Topology, nodes and transports. This package has no values and no cache policies."""

from evcache.zones.discovery.base import Discovery, StaticDiscovery
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from evcache.zones.transport.dialer import SocketDialer

__all__ = [
    "Discovery",
    "Endpoint",
    "EnvironmentDiscovery",
    "FileDiscovery",
    "Mode",
    "SocketDialer",
    "StaticDiscovery",
    "Topology",
    "Zone",
]
