"""Servers in memory that belong to no zone."""

import asyncio

from evcache.replication.gutter import GUTTER
from evcache.zones import Endpoint
from evcache.zones.testing import FakeMemcached


def add_gutter(zones, nodes=1):
    """Add servers that belong to no zone to `MemoryZones`. Return their endpoints."""
    endpoints = [Endpoint.parse(f"gutter{number}:11211") for number in range(nodes)]
    zones.sent[GUTTER] = []
    zones.servers[GUTTER] = []
    for endpoint in endpoints:
        fake = FakeMemcached(clock=asyncio.get_running_loop().time, wall_clock=zones.wall_clock)
        zones.servers[GUTTER].append(fake)
        zones._by_address[endpoint.address] = (GUTTER, fake)
    return endpoints
