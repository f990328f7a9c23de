"""Where bytes go: topology and transport. No values, no policies."""

import logging

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

# What a library logs is for the service to show: without a handler of its own, nothing goes to stderr.
logging.getLogger("zones").addHandler(logging.NullHandler())
