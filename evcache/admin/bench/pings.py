"""Pings of every node, on a connection of their own: before the load for a floor, and during it for a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from evcache.admin.bench.record import NodeTimes
from evcache.zones.admin.session import AdminSession, open_session
from evcache.zones.errors import CacheError
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Endpoint, Topology

FLOOR_PINGS = 20
FLOOR_SECONDS = 1.0

# Pings of all nodes together. More would be a load of their own.
PINGS_PER_SECOND = 100
MIN_PAUSE_SECONDS = 0.1

# One slow ping may be a pause of this process.
SLOW_PINGS_IN_A_ROW = 2


class Target(NamedTuple):
    """A node, and the record of its pings."""

    endpoint: Endpoint
    times: NodeTimes


def targets_of(topology: Topology) -> list[Target]:
    """Return all nodes of all zones."""
    return [Target(node, NodeTimes(zone.name, node.label)) for zone in topology.zones for node in zone.nodes]


class Pings:
    """Pings of some nodes. Requires a running event loop."""

    def __init__(self, targets: Sequence[Target], settings: NodeSettings, max_seconds: float | None) -> None:
        """Make them.

        Args:
            targets: The nodes.
            settings: Dialer and login, and the timeout of a connect and of a ping.
            max_seconds: Duration of a ping above which a node is too slow. If None, none is.
        """
        self._targets = targets
        self._settings = settings
        self._max_seconds = max_seconds
        self._pause = max(MIN_PAUSE_SECONDS, len(targets) / PINGS_PER_SECOND)

    async def measure_floor(self) -> None:
        """Measure each node several times. A node that does not answer has a `NodeTimes.error`."""
        await asyncio.gather(*(self._measure(target) for target in self._targets))

    async def watch(self, stop: Callable[[str], object]) -> None:
        """Watch the nodes that answered before the load, until the task is cancelled. `stop` receives the reason to stop."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                if target.times.before.count:
                    group.create_task(self._watch(target, stop))

    async def _measure(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + FLOOR_SECONDS
        try:
            async with open_session(target.endpoint, self._settings) as session:
                for _ in range(FLOOR_PINGS):
                    began = loop.time()
                    await self._exchange(session)
                    target.times.before.add(loop.time() - began)
                    if loop.time() >= until:
                        break
        except CacheError as error:
            target.times.error = str(error)

    async def _watch(self, target: Target, stop: Callable[[str], object]) -> None:
        times = target.times
        while True:
            try:
                async with open_session(target.endpoint, self._settings) as session:
                    await self._ping_until_slow(session, target, stop)
            except CacheError as error:
                times.failures += 1
                times.error = str(error)
                if self._max_seconds is not None:
                    stop(f"zone {times.zone}: a node does not answer: {error}")
            await asyncio.sleep(self._pause)

    async def _ping_until_slow(self, session: AdminSession, target: Target, stop: Callable[[str], object]) -> None:
        """Send pings to a node, and stop the measurement when pings in a row are too slow.

        Raises `CacheError` if the node does not answer.
        """
        loop = asyncio.get_running_loop()
        limit, times = self._max_seconds, target.times
        slow = 0
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(None if limit is None else SLOW_PINGS_IN_A_ROW * limit):
                    await self._exchange(session)
            except TimeoutError:
                slow = SLOW_PINGS_IN_A_ROW
            took = loop.time() - began
            times.during.add(took)
            if limit is not None:
                slow = slow + 1 if took > limit else 0
                if slow >= SLOW_PINGS_IN_A_ROW:
                    times.failures += 1
                    stop(f"zone {times.zone}: node {times.node} needs over {1000 * limit:g} ms for a ping")
                    return
            await asyncio.sleep(self._pause)

    async def _exchange(self, session: AdminSession) -> None:
        """Send `mn`, or `version` without the meta protocol, and wait for the reply."""
        # Some proxies close the connection at a command that they do not know.
        if self._settings.transport == "classic":
            await session.version()
        else:
            await session.ping()
