"""Bulk calls on real servers: more keys than a connection may have waiting, and more bytes than it may queue."""

import asyncio

import pytest

from evcache import EVCache, Outcome
from integration.patience import PATIENT_NODES

KEYS = 100_000
DELETED = 20_000  # also more than one connection may have waiting
LARGE_VALUES = 40
LARGE_BYTES = 900_000


@pytest.fixture(scope="module")
def zones(servers):
    with servers.best.local_zones().running() as zones:
        yield zones


def client(zones, namespace):
    """Return a client that has no connection yet, with default settings."""
    return EVCache(namespace, zones.zones, local_zone="eu-1a", telemetry=None, nodes=PATIENT_NODES)


def test_a_hundred_thousand_keys(zones, namespace):
    """Each call is the first of its client. Every key is stored, read and deleted, in every zone."""
    values = {f"k{number}": b"%d" % number for number in range(KEYS)}

    async def main():
        async with client(zones, namespace) as cache:
            results = await cache.set_many(values, timeout=60, consistency="all")
            assert all(results.values())
            assert cache.stats().nodes_down == 0
        async with client(zones, namespace) as cache:
            assert await cache.get_many(values, timeout=60) == values
        async with client(zones, namespace) as cache:
            results = await cache.delete_many(list(values)[:DELETED], timeout=60, consistency="all")
            assert all(results.values())
            assert cache.stats().nodes_down == 0
            assert await cache.get_many(list(values)[:DELETED], timeout=60) == {}

    asyncio.run(main())


def test_tens_of_megabytes(zones, namespace):
    """Values of 900 kB, more than the servers take at once."""
    values = {f"large{number}": b"%d" % number + b"x" * LARGE_BYTES for number in range(LARGE_VALUES)}

    async def main():
        async with client(zones, namespace) as cache:
            results = await cache.set_many(values, timeout=60, consistency="all")
            assert {outcome for result in results.values() for outcome in result.zones.values()} == {Outcome.STORED}
            for name in list(values)[:3]:
                assert await cache.get(name, timeout=10) == values[name]

    asyncio.run(main())


def test_a_timeout_that_is_too_short(zones, namespace):
    """What was stored is true, the rest is a timeout, and the client takes no server for down."""
    values = {f"short{number}": b"v" for number in range(KEYS)}

    async def main():
        async with client(zones, namespace) as cache:
            await cache.set("connects", 1, timeout=5, consistency="all")
            results = await cache.set_many(values, timeout=1)
            done = [name for name, result in results.items() if result]
            late = [result for result in results.values() if not result]
            assert late
            assert all(Outcome.TIMEOUT in result.zones.values() for result in late)
            await asyncio.sleep(1)
            assert cache.stats().nodes_down == 0
            assert len(await cache.get_many(done[:10_000], timeout=30)) == len(done[:10_000])

    asyncio.run(main())
