"""What all scenarios share: the zones, the values in them, and callers that read."""

from __future__ import annotations

import asyncio
import os
import random
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import NamedTuple

from evcache import CacheError, EVCache
from evcache.testing import RunningZones
from integration.servers import BACKEND_VARIABLE, NoServers, ServerKind, find_servers

LOCAL, OTHERS = "eu-1a", ("eu-1b", "eu-1c")
NAMESPACE = "outage"

VALUE_BYTES = 100
CALLERS = 32
WARM_UP_SECONDS = 1.0  # of reads that do not count: connections are made
FILL_AT_ONCE, FILL_TIMEOUT = 100, 5.0

VERSIONS_SINCE = (1, 6, 27)  # of memcached: before that, nothing brings a zone what it missed

FAILED, MISSING, WRONG = "failed", "missing", "wrong"


def find_kind(backend: str) -> ServerKind:
    """Real servers of the kind that integration tests prefer, or of the one that is asked for."""
    try:
        found = find_servers({**os.environ, **({} if backend == "auto" else {BACKEND_VARIABLE: backend})})
    except NoServers as reason:
        raise SystemExit(str(reason)) from None
    if found.best.backend == "embedded":
        raise SystemExit("no memcached: install one, or build the image with integration/image/build.sh")
    return found.best


@contextmanager
def fresh_zones(kind: ServerKind) -> Iterator[RunningZones]:
    """Three zones of two nodes, empty, for one scenario to break."""
    with kind.local_zones().running() as zones:
        if tuple(map(int, zones.version.split("."))) < VERSIONS_SINCE:
            needed = ".".join(map(str, VERSIONS_SINCE))
            raise SystemExit(f"memcached {needed} or newer is needed, not {zones.version} ({kind})")
        yield zones


def key_of(number: int) -> str:
    return f"key-{number}"


def value_of(number: int) -> bytes:
    return f"value of {number} ".encode().ljust(VALUE_BYTES, b".")


async def fill(cache: EVCache, keys: int, ttl: int = 900) -> None:
    """Write every key to every zone."""
    for begin in range(0, keys, FILL_AT_ONCE):
        values = {key_of(number): value_of(number) for number in range(begin, min(begin + FILL_AT_ONCE, keys))}
        results = await cache.set_many(values, ttl=ttl, consistency="all", timeout=FILL_TIMEOUT)
        if not all(results.values()):
            raise SystemExit("not every zone took the values, with all of them up")


class Read(NamedTuple):
    """One read."""

    began: float  # on the clock of time.perf_counter, as all times here
    took: float  # seconds
    came: str  # the zone that served it, or FAILED, MISSING or WRONG


class Reads:
    """Every read that has ended, in the order of their ends. In arrays: there are millions, and memory is measured too."""

    def __init__(self) -> None:
        self._ended = array("d")
        self._took = array("d")
        self._came = array("B")
        self._numbers: dict[str, int] = {}  # of what can come of a read
        self.errors: Counter[str] = Counter()

    def add(self, began: float, came: str) -> None:
        """One has ended now."""
        now = time.perf_counter()
        self._ended.append(now)
        self._took.append(now - began)
        self._came.append(self._numbers.setdefault(came, len(self._numbers)))

    def ended(self, since: float, until: float) -> Iterator[Read]:
        """Those that ended between two times."""
        names = list(self._numbers)
        for index in range(bisect_left(self._ended, since), bisect_left(self._ended, until)):
            yield Read(self._ended[index] - self._took[index], self._took[index], names[self._came[index]])

    def counts(self, since: float, until: float) -> Counter[str]:
        """What came of them, for those that ended between two times."""
        first, last = bisect_left(self._ended, since), bisect_left(self._ended, until)
        counts = Counter(self._came[first:last])
        return Counter({name: counts[number] for name, number in self._numbers.items()})

    def begun(self, since: float, until: float) -> Iterator[Read]:
        """Those that began between two times."""
        return (read for read in self.ended(since, inf) if since <= read.began < until)


async def read_for_ever(cache: EVCache, keys: int, seed: int, reads: Reads) -> None:
    """One caller: a random key after the other."""
    chooser = random.Random(seed)
    while True:
        number = chooser.randrange(keys)
        began = time.perf_counter()
        try:
            item = await cache.get_item(key_of(number))
        except CacheError as error:
            reads.errors[type(error).__name__] += 1
            came = FAILED
            await asyncio.sleep(0)  # an instant failure must not starve the other tasks
        else:
            came = MISSING if item is None else item.zone if item.value == value_of(number) else WRONG
        reads.add(began, came)


@asynccontextmanager
async def callers(cache: EVCache, keys: int) -> AsyncIterator[Reads]:
    """CALLERS of them, for the length of the block; connections are made before it begins."""
    reads = Reads()
    tasks = [asyncio.create_task(read_for_ever(cache, keys, seed, reads)) for seed in range(CALLERS)]
    try:
        await asyncio.sleep(WARM_UP_SECONDS)
        yield reads
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


def percentile(values: list[float], percent: float) -> float:
    """Return the value that `percent` percent of the values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
