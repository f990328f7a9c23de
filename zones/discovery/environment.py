"""Node list in an environment variable."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping

from evcache.zones.discovery.base import NO_TOPOLOGIES
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.validation import text

NODES_VARIABLE = "EVCACHE_NODES"
ZONE_VARIABLE = "EVCACHE_ZONE"


class EnvironmentDiscovery:
    """Node list in an environment variable: `EVCACHE_NODES=eu-1a=host:port,host:port;eu-1b=...`."""

    def __init__(self, environment: Mapping[str, str] | None = None, variable: str = NODES_VARIABLE) -> None:
        if environment is not None and not isinstance(environment, Mapping):
            raise InvalidArgument("environment", f"a mapping or None is required, not {environment!r}")
        text(variable, "variable")
        self._environment = os.environ if environment is None else environment
        self._variable = variable

    async def load(self) -> Topology:
        """Parse the variable. Raises `InvalidTopology` if it is missing or malformed."""
        text = self._environment.get(self._variable, "").strip()
        if not text:
            raise InvalidTopology("zones", f"the environment variable {self._variable} is not set")
        return Topology.from_node_list(text)

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield no topology, because the environment of a process does not change from outside."""
        for topology in NO_TOPOLOGIES:
            yield topology
