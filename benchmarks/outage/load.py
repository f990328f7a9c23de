"""Open-loop load: as many reads as are due by the clock, whether or not the earlier ones were answered, as users come."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.outage.common import FAILED, MISSING, WRONG, Reads, key_of, value_of
from evcache import CacheError, EVCache

BATCH_SECONDS = 0.005
MOST_IN_FLIGHT = 20_000

# After a stall of the loop, at most the reads due in this time are made up. A burst of seconds would cause the next stall.
MAKE_UP_SECONDS = 0.1
ANSWERED = "answered"


class Load:
    """Reads of random keys at a fixed rate, each in a task. A read over the limit in flight is shed and counted."""

    def __init__(self, cache: EVCache, keys: int, rate: int) -> None:
        self._cache = cache
        self._keys = [key_of(number) for number in range(keys)]
        self._values = [value_of(number) for number in range(keys)]
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()
        self.offered = 0
        self.shed = 0
        self.not_offered = 0  # since the loop was too late
        self.in_flight_peak = 0
        self.reads = Reads()

    async def run(self) -> None:
        """Offer reads until cancelled."""
        began = time.perf_counter()
        start = asyncio.get_running_loop().create_task
        while True:
            behind = int((time.perf_counter() - began) * self._rate) - self.offered - self.not_offered
            due = min(behind, int(MAKE_UP_SECONDS * self._rate))
            self.not_offered += behind - due
            room = max(0, MOST_IN_FLIGHT - len(self._tasks))
            for number in random.choices(range(len(self._keys)), k=min(due, room)):
                task = start(self._read(number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            self.offered += due
            self.shed += max(0, due - room)
            self.in_flight_peak = max(self.in_flight_peak, len(self._tasks))
            await asyncio.sleep(BATCH_SECONDS)

    async def _read(self, number: int) -> None:
        began = time.perf_counter()
        try:
            value = await self._cache.get(self._keys[number])
        except CacheError as error:
            self.reads.errors[type(error).__name__] += 1
            came = FAILED
        else:
            came = MISSING if value is None else ANSWERED if value == self._values[number] else WRONG
        self.reads.add(began, came)

    async def drain(self) -> None:
        """Wait for those in flight."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


@asynccontextmanager
async def load(cache: EVCache, keys: int, rate: int) -> AsyncIterator[Load]:
    """A Load, for the length of the block."""
    offering = Load(cache, keys, rate)
    task = asyncio.create_task(offering.run())
    try:
        yield offering
    finally:
        task.cancel()
        await asyncio.wait([task])
        await offering.drain()
