"""Calls that are cancelled at any moment leave nothing behind: no caller gets another's reply, no connection is lost.

On both transports. The classic one has a pool, which may replace a connection: there "no connection is lost" becomes that
they stay within their bound.
"""

import asyncio
import heapq
import itertools
import random

import pytest

from evcache import EVCache
from evcache.zones.transport.classic.pool import PoolLimits
from integration.patience import PATIENT
from integration.raw import connections_made, stats
from tests.support.cores import TRANSPORTS, running

CANCELLED_CALLS = 10_000
KEYS = 50
WORKERS = 64
PATIENT_SHARE = 0.1  # of the calls, which are never cancelled: replies are checked on a machine of any speed
MOST_TURNS = 6  # of the event loop until a call is cancelled
MOST_ENDS = 2 * WORKERS  # of other calls until a call is cancelled
COUNTER_GAP = 1_000_000_000  # counter n holds n gaps and a little: a number tells whose it is


def value_of(key: str, size: int) -> str:
    return f"{key}|{'v' * size}|{key}"


class Storm:
    """Random calls, random cancellations; every answer that does arrive is checked."""

    def __init__(self, cache: EVCache, seed: int) -> None:
        self.cache = cache
        self.random = random.Random(seed)
        self.cancelled = 0
        self.answered = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: calls ended by then, and the waiter
        self._order = itertools.count()

    async def prepare(self) -> None:
        for number in range(KEYS):
            await self.cache.set(f"key-{number}", value_of(f"key-{number}", 10), consistency="all")
            await self.cache.incr(f"counter-{number}", initial=number * COUNTER_GAP, consistency="all")

    async def worker(self) -> None:
        while self.cancelled < CANCELLED_CALLS:
            task = asyncio.ensure_future(self.call())
            if self.random.random() >= PATIENT_SHARE:
                await self.wait_a_little(task)
                task.cancel()
            try:
                await task
                self.answered += 1
            except asyncio.CancelledError:
                self.cancelled += 1
            self.note_end()

    async def wait_a_little(self, task: asyncio.Task) -> None:
        # From "not begun" over "written" and "half read" to "answered". The wait is counted in events, because a slow machine
        # answers fewer calls within a number of seconds.
        if self.random.random() < 0.7:
            for _ in range(self.random.randrange(MOST_TURNS)):
                await asyncio.sleep(0)
        else:
            ends = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (self.ended + self.random.randrange(1, MOST_ENDS), next(self._order), ends))
            await asyncio.wait([task, ends], return_when=asyncio.FIRST_COMPLETED)

    @property
    def ended(self) -> int:
        """Calls that were answered or cancelled."""
        return self.cancelled + self.answered

    def note_end(self) -> None:
        """Wake the workers that wait for this number of ended calls."""
        while self._waiting and self._waiting[0][0] <= self.ended:
            _, _, ends = heapq.heappop(self._waiting)
            ends.set_result(None)

    async def call(self) -> None:
        number = self.random.randrange(KEYS)
        key, counter = f"key-{number}", f"counter-{number}"
        match self.random.randrange(8):
            case 0 | 1 | 2:
                self.check(key, await self.cache.get(key))
            case 3:
                assert await self.cache.set(key, value_of(key, self.random.choice([5, 500, 5000])))
            case 4:
                keys = [f"key-{n}" for n in self.random.sample(range(KEYS), 10)]
                for name, value in (await self.cache.get_many(keys)).items():
                    self.check(name, value)
            case 5:
                result = await self.cache.add(key, "never")
                assert not result, f"{key} exists, and add said {result}"
            case 6:
                count = await self.cache.incr(counter)
                assert count is not None
                assert count // COUNTER_GAP == number, f"{counter} returned {count}"
            case 7:
                self.check(key, await self.cache.get(key, consistency="all"))

    def check(self, key: str, value: str | None) -> None:
        assert value is not None, f"{key} was set and is never deleted"
        assert value.startswith(f"{key}|"), f"{key} returned {value[:40]!r}"
        assert value.endswith(f"|{key}"), f"{key} returned a torn value"


def connections_open(zones: dict[str, list[str]]) -> dict[str, int]:
    """How many connections each server has, as it says itself."""
    return {address: int(stats(address)["curr_connections"]) for addresses in zones.values() for address in addresses}


@pytest.mark.parametrize(("transport", "core"), TRANSPORTS, ids=lambda one: getattr(one, "name", one))
@pytest.mark.parametrize("seed", [1])
def test_ten_thousand_cancelled_calls_disturb_nobody(zones_of_each_kind, namespace, seed, transport, core):
    """No caller ever gets another's reply, and every connection outlives the storm, or is one of the pool's few."""
    zones = zones_of_each_kind

    async def main() -> Storm:
        without = connections_open(zones.zones)
        async with EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            fallback_on_miss=False,
            transport=transport,
            **PATIENT,
        ) as cache:
            storm = Storm(cache, seed)
            await storm.prepare()
            before = connections_made(zones.zones)
            await asyncio.gather(*(storm.worker() for _ in range(WORKERS)))
            # Cancelled requests left replies in the stream. No caller may have received one of them.
            for number in range(KEYS):
                storm.check(f"key-{number}", await cache.get(f"key-{number}", consistency="all"))
            if transport == "meta":
                assert connections_made(zones.zones) == before
            else:
                # A call is given up together with its connection when its time is up, and 64 callers share a pool: some
                # may be new. What must not happen is that they become more and more.
                for address, number in connections_open(zones.zones).items():
                    assert number - without[address] <= PoolLimits().connections
            return storm

    with running(core):
        storm = asyncio.run(main())
    assert storm.cancelled >= CANCELLED_CALLS
    assert storm.answered > CANCELLED_CALLS // 20, "a storm in which nobody is answered shows nothing"
