"""Watch of all nodes: samples at an interval, and a table of each. A node that does not answer delays no other node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from evcache.admin.key.zone_item import to_iso
from evcache.admin.load.node_watch import NodeWatch, SampleRound
from evcache.admin.load.table import LoadTable, ZoneLoad
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.zone_pool import ZonePool

# Seconds for which a table waits for the nodes that answered the last one. Half of a longer interval, if that is more.
PATIENCE_SECONDS = 1.0


class LoadWatch:
    """Watch of the nodes of all zones."""

    def __init__(
        self,
        view: ClusterSnapshot,
        settings: NodeSettings,
        *,
        interval: float,
        timeout: float,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """Make a watch that has asked nothing yet.

        Args:
            view: The zones.
            settings: Settings of the administration connections.
            interval: Seconds between two tables.
            timeout: Seconds for a probe of a node.
            unix_time: Clock of the tables, in seconds.
        """
        self._view = view
        self._interval = interval
        self._patience = max(PATIENCE_SECONDS, interval / 2)
        self._unix_time = unix_time
        self._loop = asyncio.get_running_loop()
        self._zones: list[tuple[ZonePool, list[NodeWatch]]] = [
            (pool, [NodeWatch(node, settings, timeout) for node in pool.nodes]) for pool in view.writers
        ]

    async def run(
        self, show: Callable[[LoadTable], None], *, count: int | None = None, stop: asyncio.Event | None = None
    ) -> bool:
        """Show a table at each interval. The first sample is shown as no table, because rates need two.

        Cancellation ends the watch.

        Args:
            show: Receives each table.
            count: Number of tables. If None, the watch ends with `stop`.
            stop: Event that ends the watch.

        Returns:
            True if at least one node answered the last sample.
        """
        stop = stop or asyncio.Event()
        shown = 0
        next_at = self._loop.time()
        try:
            table = await self._sample()
            while count is None or shown < count:
                next_at = max(next_at + self._interval, self._loop.time())
                if await _is_set_by(stop, next_at):
                    break
                table = await self._sample()
                show(table)
                shown += 1
        finally:
            await asyncio.gather(*(watch.close() for watch in self._watches))
        return table.has_answer

    @property
    def _watches(self) -> Sequence[NodeWatch]:
        return [watch for _, watches in self._zones for watch in watches]

    async def _sample(self) -> LoadTable:
        """Begin a sample of each node, and wait for the nodes that answered the last time. Return the table."""
        together = SampleRound(sum(watch.sampling is None for watch in self._watches))
        samples = {watch.sampling or watch.begin(together): watch.is_prompt for watch in self._watches}
        awaited = [task for task, is_prompt in samples.items() if is_prompt] or list(samples)
        await asyncio.wait(awaited, timeout=self._patience)
        for task in samples:
            if task.done():
                task.result()  # raises the exception of a bug
        topology = self._view.topology
        return LoadTable(
            to_iso(self._unix_time()),
            [
                ZoneLoad.of(
                    pool.name,
                    zone.mode.value,
                    [watch.take() for watch in watches],
                    is_local=pool.name == self._view.local,
                )
                for (pool, watches), zone in zip(self._zones, topology.zones, strict=True)
            ],
        )


async def _is_set_by(event: asyncio.Event, at: float) -> bool:
    """Wait until the event is set or the time has come. Return True if it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(at):
            await event.wait()
    return event.is_set()
