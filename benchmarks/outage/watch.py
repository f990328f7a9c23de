"""Observation from outside: counters of servers, stalls of the event loop, resources of the process."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from evcache.zones import Endpoint, SocketDialer
from integration.raw import stats

AnyProtocol = TypeVar("AnyProtocol", bound=asyncio.BaseProtocol)

TICK_SECONDS = 0.005
TASKS_EVERY_TICKS = 20  # counting all tasks takes a while when there are many
MIB = 2**20


class Counted(NamedTuple):
    """What the servers of one zone have counted."""

    gets: int
    hits: int
    sets: int
    connections: int  # ever accepted, without those that were made in order to ask

    def since(self, before: Counted) -> Counted:
        return Counted(*(now - then for now, then in zip(self, before, strict=True)))


class Counters:
    """The statistics of servers, by zone."""

    def __init__(self, zones: Mapping[str, list[str]]) -> None:
        self._zones = zones
        self._looks: Counter[str] = Counter()

    async def look(self, zones: Iterable[str]) -> dict[str, Counted]:
        """What the servers of these zones say now; they have to be up."""
        return await asyncio.to_thread(lambda: {zone: self._of(zone) for zone in zones})

    def _of(self, zone: str) -> Counted:
        total = Counted(0, 0, 0, 0)
        for address in self._zones[zone]:
            said = stats(address)
            self._looks[address] += 1
            connections = int(said["total_connections"]) - self._looks[address]
            node = Counted(int(said["cmd_get"]), int(said["get_hits"]), int(said["cmd_set"]), connections)
            total = Counted(*(one + other for one, other in zip(total, node, strict=True)))
        return total


class CountingDialer(SocketDialer):
    """Counts attempts to connect, also those that dead servers do not see."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: Counter[str] = Counter()

    async def __call__(self, endpoint: Endpoint, factory: type[AnyProtocol]) -> AnyProtocol:
        self._attempts[f"{endpoint.host}:{endpoint.port}"] += 1
        return await super().__call__(endpoint, factory)

    def attempts(self, addresses: Iterable[str]) -> int:
        """How many so far, on these servers."""
        return sum(self._attempts[address] for address in addresses)


class Watch:
    """Watch over this process: stalls of its event loop, and peaks of memory and of tasks since `reset`."""

    def __init__(self) -> None:
        self._stalls: list[tuple[float, float]] = []
        self.rss_peak = 0.0
        self.tasks_peak = 0

    def reset(self) -> None:
        self.rss_peak, self.tasks_peak = rss_mib(), 0

    def stood_still(self, since: float, until: float) -> float:
        """Seconds between two times in which nothing ran on the loop for more than a tick."""
        return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self._stalls)

    def longest_stall(self, since: float, until: float) -> float:
        return max((end - begin for begin, end in self._stalls if begin < until and end > since), default=0.0)

    async def run(self) -> None:
        ticks = 0
        while True:
            slept = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            woke = time.perf_counter()
            if woke - slept > 2 * TICK_SECONDS:
                self._stalls.append((slept + TICK_SECONDS, woke))
            ticks += 1
            self.rss_peak = max(self.rss_peak, rss_mib())
            if ticks % TASKS_EVERY_TICKS == 0:
                self.tasks_peak = max(self.tasks_peak, len(asyncio.all_tasks()))


@asynccontextmanager
async def watching() -> AsyncIterator[Watch]:
    """A Watch, for the length of the block."""
    watch = Watch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])


def rss_mib() -> float:
    """Memory of this process that is in RAM, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
