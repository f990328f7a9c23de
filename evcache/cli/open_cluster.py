"""Zones of a command that works below the client: the nodes and their rings, without values and policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from evcache.cli.target import Target
from evcache.config import discovery_from
from evcache.zones.cluster import Cluster
from evcache.zones.discovery.own_zone.search import names_of
from evcache.zones.snapshot import ClusterSnapshot


@asynccontextmanager
async def open_cluster(target: Target, **nodes: Any) -> AsyncIterator[ClusterSnapshot]:
    """Find the zones and yield them. No node is connected to before its first request.

    Args:
        target: The zones and the settings of connections.
        nodes: Fields of `NodeSettings` that differ from those of the target.

    Raises:
        BadUse: An option cannot be used.
        InvalidTopology: The zones cannot be used, or lack a local zone of the command line.
        CacheError: The zones cannot be found.
    """
    local = target.own_zone
    discovery = discovery_from(target.zones, local)
    cluster = Cluster(target.node_settings(**nodes), None, strict=local is not None and local.strict)
    try:
        if local is not None:
            cluster.set_local_zone(await names_of(local))
        yield cluster.apply(await discovery.load())
    finally:
        await cluster.close(0)
