"""Where bytes go: topology and transport. No values, no policies."""

from zones.dialer import SocketDialer
from zones.discovery import Discovery, EnvironmentDiscovery, FileDiscovery, StaticDiscovery
from zones.topology import Endpoint, Mode, Topology, Zone

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
