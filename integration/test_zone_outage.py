"""A zone dies, hangs and comes back under the load of 32 callers, and no read fails."""

import asyncio
import random
import time
from collections import Counter

import pytest

from evcache import CacheError, ConnectionLimits, EVCache, Hooks, NodeSettings

CALLERS = 32
KEYS = 500
READS_BETWEEN = 3_000  # of all callers together, in each phase
COME_BACK_SECONDS = 20.0  # reconnecting waits up to 5 s between attempts


def value_of(number: int) -> dict[str, object]:
    return {"key": number, "text": f"value of {number} " * 5}


class Sources(Hooks):
    """Counts where reads had to leave a zone."""

    def __init__(self):
        self.left = Counter()

    def fell_back(self, zone, error):
        self.left[zone, "miss" if error is None else type(error).__name__] += 1


class Readers:
    """Callers that read random keys for as long as they are let, and keep what they saw."""

    def __init__(self, cache):
        self.cache = cache
        self.failed = []
        self.wrong = []
        self.served = Counter()
        self.reads = 0
        self.slowest = 0.0
        self.running = True

    async def caller(self, seed):
        chooser = random.Random(seed)
        while self.running:
            number = chooser.randrange(KEYS)
            began = time.monotonic()
            try:
                item = await self.cache.get_item(f"key-{number}")
            except CacheError as error:
                self.failed.append(error)
                continue
            finally:
                self.reads += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            if item is None:
                self.failed.append(number)
            elif item.value != value_of(number):
                self.wrong.append((number, item.value))
            else:
                self.served[item.zone] += 1

    async def more(self, count):
        """Wait for that many further reads; where they were served."""
        self.served = Counter()
        until = self.reads + count
        while self.reads < until:
            await asyncio.sleep(0.01)
        return self.served


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_no_read_fails_while_the_local_zone_is_gone(zones_of_each_kind, namespace, fault):
    """Reads go to other zones while it is gone, and return to it when it is back."""
    zones = zones_of_each_kind

    async def main():
        hooks = Sources()
        # Long times, because six servers share two cores with 32 callers. With the default patience of 5 ms, a server that
        # waits for a core counts as silent, and reads leave its zone before the fault.
        nodes = NodeSettings(limits=ConnectionLimits(patience=0.25))
        async with EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            read_timeout=1.0,
            write_timeout=2.0,
            nodes=nodes,
            hooks=hooks,
        ) as cache:
            for begin in range(0, KEYS, 100):
                values = {f"key-{n}": value_of(n) for n in range(begin, begin + 100)}
                assert all((await cache.set_many(values, consistency="all")).values())
            readers = Readers(cache)
            callers = [asyncio.create_task(readers.caller(seed)) for seed in range(CALLERS)]
            try:
                before = await readers.more(READS_BETWEEN)
                assert set(before) == {"eu-1a"}, "in quiet times all reads are local"

                await asyncio.to_thread(getattr(zones, fault), "eu-1a")
                # With the process stopped, every read first waits its share of the timeout without a reply.
                during = await readers.more(READS_BETWEEN if fault == "kill" else CALLERS * 4)
                assert during["eu-1b"] + during["eu-1c"] > 0

                await asyncio.to_thread(zones.restart if fault == "kill" else zones.resume, "eu-1a")
                # The zone is back, empty after a kill: rewriting fills it (where versions are kept, repair does too).
                deadline = time.monotonic() + COME_BACK_SECONDS
                while True:
                    for n in range(KEYS):
                        await cache.set(f"key-{n}", value_of(n))
                    after = await readers.more(500)
                    if after["eu-1a"] > 0.95 * sum(after.values()):
                        break
                    assert time.monotonic() < deadline, f"reads did not come back: {after}"
            finally:
                readers.running = False
                await asyncio.gather(*callers)
            assert readers.failed == []
            assert readers.wrong == []
            return readers, hooks

    readers, hooks = asyncio.run(main())
    assert readers.reads > READS_BETWEEN
    assert any(zone == "eu-1a" and why != "miss" for zone, why in hooks.left), "the zone was never gone"


def test_a_zone_that_lost_its_data_is_refilled_by_reading(each_kind, namespace):
    """After a restart, reads that fall back bring the zone what they found, where servers keep versions."""
    with each_kind.local_zones().running() as zones:

        async def main():
            async with EVCache(namespace, zones.zones, local_zone="eu-1a", read_timeout=2.0, write_timeout=2.0) as cache:
                values = {f"key-{n}": value_of(n) for n in range(50)}
                results = await cache.set_many(values, ttl=600, consistency="all")
                versions = all(result.version is not None for result in results.values())
                await asyncio.to_thread(zones.kill, "eu-1a")
                await asyncio.to_thread(zones.restart, "eu-1a")
                sources = Counter()
                deadline = time.monotonic() + COME_BACK_SECONDS
                while time.monotonic() < deadline:
                    sources = Counter()
                    for key, value in values.items():
                        item = await cache.get_item(key)
                        assert item is not None
                        assert item.value == value
                        assert item.ttl is not None
                        assert 500 < item.ttl <= 600, "a copy must not live longer than what it was copied from"
                        sources[item.zone] += 1
                    if sources["eu-1a"] == len(values):
                        break
                    if not versions and sources["eu-1a"] == 0 and time.monotonic() > deadline - COME_BACK_SECONDS + 2:
                        break
                assert sources["eu-1a"] == (len(values) if versions else 0)

        asyncio.run(main())
