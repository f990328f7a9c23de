"""Zones in an environment variable."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping

from evcache.zones._tasks import closing
from evcache.zones.discovery.base import Discovery, SourceStatus
from evcache.zones.discovery.forms import discovery_of_text
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.validation import text

NODES_VARIABLE = "EVCACHE_NODES"
ZONE_VARIABLE = "EVCACHE_ZONE"


class EnvironmentDiscovery:
    """Source that an environment variable names: `EVCACHE_NODES=eu-1a=host:port,host:port;eu-1b=...`.

    The variable has any form that `evcache.zones.discovery.forms.discovery_of_text` reads. The environment of a process does
    not change from outside, so the variable is read once for each opening of the client.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, variable: str = NODES_VARIABLE) -> None:
        """Make a source. The variable is read when the client opens.

        Args:
            environment: Environment variables. If None, those of the process.
            variable: Name of the variable.

        Raises:
            InvalidArgument: An argument has a wrong type.
        """
        if environment is not None and not isinstance(environment, Mapping):
            raise InvalidArgument("environment", f"a mapping or None is required, not {environment!r}")
        text(variable, "variable")
        self._environment = os.environ if environment is None else environment
        self._variable = variable
        self._text = ""
        self._named: Discovery | None = None

    @property
    def status(self) -> SourceStatus | None:
        """Freshness of the topology. None for nodes that the variable lists."""
        return getattr(self._named, "status", None)

    async def load(self) -> Topology:
        """Return the topology of the variable, or of the source that it names.

        Raises:
            InvalidTopology: The variable is missing or malformed.
            DiscoveryError: The source did not answer.
        """
        text = self._environment.get(self._variable, "").strip()
        if not text:
            raise InvalidTopology("zones", f"the environment variable {self._variable} is not set")
        if self._named is None or text != self._text:  # a source that has failed limits how often it is asked
            self._named, self._text = discovery_of_text(text), text
        return await self._named.load()

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after the first that the source finds."""
        if self._named is not None:
            async with closing(self._named.watch()) as topologies:
                async for topology in topologies:
                    yield topology
