"""Interface of a source of topologies, and the freshness of what it has found."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Generic, Protocol, TypeVar

from evcache.zones.topology.model import Topology
from evcache.zones.validation import an_instance

T = TypeVar("T")

NO_TOPOLOGIES: tuple[Topology, ...] = ()

_log = logging.getLogger("evcache.zones.discovery")


class Discovery(Protocol):
    """A source of topologies.

    A source may also have the attribute `status`, a `SourceStatus`. The client then reports the age of its topology.
    """

    async def load(self) -> Topology:
        """Return the present topology.

        Raises:
            InvalidTopology: The source has a topology that cannot be used.
            DiscoveryError: The source did not answer.
        """
        ...

    def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after the one that `load` returned. The client cancels the iteration on close."""
        ...


class SourceStatus:
    """Freshness of the topology of one source. The source calls `confirm` or `fail` after each look."""

    def __init__(self, source: str) -> None:
        """Make the status of a source that was not asked yet.

        Args:
            source: Name of the source, for logs.
        """
        self.source = source
        """Name of the source, for logs."""
        self.confirmed_at: float | None = None
        """Time on the event loop's clock at which the source last had the topology. None before the first time."""
        self.error: str | None = None
        """Reason for which the last look failed. None if it succeeded."""
        self.stale: frozenset[str] | None = frozenset()
        """Zones whose nodes the last look did not find. None if it found none at all."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def confirm(self) -> None:
        """Note that the source has just answered. Log the end of a failure."""
        self.confirmed_at = asyncio.get_running_loop().time()
        self.stale = frozenset()
        if self.error is not None:
            self.error = None
            _log.info("topology source recovered: %s", self.source)

    def fail(self, error: Exception, zones: Iterable[str] | None = None) -> None:
        """Note that the source has just failed. Log the first failure in a row.

        Args:
            error: The failure.
            zones: Zones whose nodes were not found, if the source has answered for the others. Empty if the source lacks
                something else. If None, it has not answered.
        """
        is_first = self.error is None
        self.error = str(error) or type(error).__name__
        self.stale = None if zones is None else frozenset(zones)
        if is_first:
            if zones is not None and not self.stale:
                _log.warning("topology incomplete: %s", self.error)
            else:
                _log.warning("topology update failed: %s; keeping the previous topology", self.error)

    def reset(self) -> None:
        """Forget the times of an event loop that has ended. On the same loop, another client may use the source."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self.confirmed_at, self.error, self.stale = loop, None, None, frozenset()


def name_of_source(discovery: Discovery) -> str:
    """Return the name of a source, for errors."""
    status = getattr(discovery, "status", None)
    return status.source if isinstance(status, SourceStatus) else type(discovery).__qualname__


class Handover(Generic[T]):
    """Results of `load` for the watches that follow, because several clients may share one source.

    A watch does not know which of several loads was its own. So it gets a result only if all of them returned the same
    topology. Otherwise it begins without a result, and reports the first topology that it finds. A client ignores a topology
    that it uses already.
    """

    def __init__(self) -> None:
        self._waiting = 0  # loads whose watch has not begun
        self._loaded: tuple[Topology, T] | None = None  # None if these loads differ

    def put(self, topology: Topology, state: T) -> None:
        """Store what a load returned, and what its watch needs to continue from there."""
        is_same = self._waiting == 0 or (self._loaded is not None and self._loaded[0] == topology)
        self._loaded = (topology, state) if is_same else None
        self._waiting += 1

    def take(self) -> tuple[Topology, T] | None:
        """Return the result for a watch that begins. None if it is unknown."""
        loaded = self._loaded
        self._waiting = max(0, self._waiting - 1)
        if self._waiting == 0:
            self._loaded = None
        return loaded


class StaticDiscovery:
    """A topology that never changes."""

    def __init__(self, topology: Topology) -> None:
        """Make a source of one topology.

        Args:
            topology: Zones and their nodes.

        Raises:
            InvalidArgument: The argument is no `Topology`.
        """
        an_instance(topology, Topology, "topology", optional=False)
        self.topology = topology
        """The topology of the constructor."""

    async def load(self) -> Topology:
        """Return the topology of the constructor."""
        return self.topology

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield no topology, because it never changes."""
        for topology in NO_TOPOLOGIES:
            yield topology
