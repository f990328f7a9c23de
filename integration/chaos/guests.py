"""Clients that saw nothing of an outage: one that made no calls during it, and ones that were started after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from integration.chaos.history import History
from integration.chaos.system import System
from integration.chaos.workload import Worker

ACT_SECONDS = 3.0
"""Time for which they make calls after an outage."""
FAULTS_BETWEEN = 3
"""Number of faults that end until they make calls again."""
MAX_LATECOMERS = 6
"""Number of late clients. Each stays open until the end of the run, so that its hints are delivered."""

IDLE = "idle"
LATE = "late"


class Guests:
    """The idle client, and the late ones."""

    def __init__(self, system: System, history: History, seed: int, calls_per_second: float) -> None:
        self._system = system
        self._history = history
        self._seed = seed
        self._rate = calls_per_second
        self.workers: list[Worker] = []

    async def visit(self, say: Callable[[str], None]) -> None:
        """Act after some of the faults, until the system is over."""
        system = self._system
        idle = await self._join(IDLE)
        ended = 0
        while await self._fault_ends():
            ended += 1
            if (ended - 1) % FAULTS_BETWEEN:
                continue
            acting = [idle]
            if len(self.workers) <= MAX_LATECOMERS:
                acting.append(await self._join(LATE))
            say(f"{self._history.now():7.1f} s  {' and '.join(worker.client.name for worker in acting)} act")
            await asyncio.gather(*(worker.act_for(ACT_SECONDS, system.over) for worker in acting))

    async def _fault_ends(self) -> bool:
        system = self._system
        system.fault_ended.clear()
        waiting = [asyncio.ensure_future(event.wait()) for event in (system.fault_ended, system.over)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return not system.over.is_set()

    async def _join(self, kind: str) -> Worker:
        """Make a client, at a moment without faults: its proxies have none."""
        system = self._system
        number = len(system.clients)
        async with system.lock_all():
            client = await system.add_client(number, f"{kind}-{number}")
        worker = Worker(client, self._history, self._seed, self._rate)
        self.workers.append(worker)
        return worker
