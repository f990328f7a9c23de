"""Clients whose clocks differ, on real servers: a write that begins after another one has ended takes its place."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from evcache import EVCache, Outcome
from evcache.replication.hlc import MAX_CAS
from evcache.values.flags import FLAG_TOMBSTONE
from integration.patience import PATIENT
from integration.raw import item

WRITES = 20
# Seconds between the end of a set and the beginning of the delete that follows it.
PAUSE = 0.01
# With 0, clocks agree. Clients do not believe a version that is over 60 s ahead, and their writes go past it all the same.
SKEWS = [0.0, 0.02, 0.05, 0.2, 10.0, 100.0]


async def two_clients(stack, zones, namespace, skew):
    """Make a client whose clock is right, and one whose clock is that slow, both connected to every zone."""
    clients = []
    for wall_clock, zone in ((time.time, "eu-1a"), (lambda: time.time() - skew, "eu-1b")):
        cache = EVCache(
            namespace,
            zones.zones,
            local_zone=zone,
            wall_clock=wall_clock,
            read_repair_chance=0,
            **PATIENT,
        )
        clients.append(await stack.enter_async_context(cache))
        await cache.set(f"connect:{zone}", 1, consistency="all")
    return clients


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("level", ["one", "quorum", "all_minus_one", "all"])
def test_an_acknowledged_delete_after_a_set_leaves_no_value(versioned_zones, namespace, skew, level):
    """A client whose clock is slow, and that has not read the key, deletes it 10 ms after the set has returned."""

    async def main():
        async with AsyncExitStack() as stack:
            right, slow = await two_clients(stack, versioned_zones, namespace, skew)
            left = 0
            for number in range(WRITES):
                key = f"{level}-{number}"
                await right.set(key, "v", consistency="all")
                await asyncio.sleep(PAUSE)
                assert await slow.delete(key, consistency=level)
                left += await right.get(key, consistency="all") is not None
            assert left == 0
            if not skew:
                assert slow.stats().writes_resent == 0
            elif skew > 2 * PAUSE:
                assert slow.stats().writes_resent > 0

    asyncio.run(main())
    for number in range(WRITES):
        held = [item(nodes[0], f"{namespace}:{level}-{number}") for nodes in versioned_zones.zones.values()]
        assert {flags for _, flags, _ in held} == {FLAG_TOMBSTONE}
        assert len({cas for *_, cas in held}) == 1


@pytest.mark.parametrize("size", [10, 100_000])
def test_sets_of_two_clients_in_turn(versioned_zones, namespace, size):
    """No client reads, and each write that has returned is in place until the next one."""

    async def main():
        async with AsyncExitStack() as stack:
            right, slow = await two_clients(stack, versioned_zones, namespace, 5.0)
            before: dict[str, int] = {}
            for number in range(WRITES):
                writer = (right, slow)[number % 2]
                values = {f"{key}-{number // 2}": bytes([number]) * size for key in "abc"}
                for key, result in (await writer.set_many(values, consistency="all")).items():
                    assert set(result.zones.values()) == {Outcome.STORED}, result
                    assert result.version > before.get(key, 0)
                    before[key] = result.version
                    for nodes in versioned_zones.zones.values():
                        value, _, cas = item(nodes[0], f"{namespace}:{key}")
                        assert (value, MAX_CAS - cas) == (values[key], result.version)

    asyncio.run(main())
