"""Writers race through zones that are slow in different ways. The latest write wins everywhere, and no reader sees an older one."""

import asyncio
import random
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from evcache import EVCache
from evcache.replication.hlc import MAX_CAS
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from integration.patience import PATIENT
from integration.raw import ask

WRITERS = 8
KEYS = 24
WRITES_OF_EACH = 150
# Lengths of the fill of values. The head of a value stands twice beside it, with about 15 bytes each.
SMALL = [0, 5, 80, 200]
STRADDLING = [100, 200, THREE_COPIES_MAX_BYTES, 300, 2_000, 20_000]
LARGE = [300, 2_000, 20_000, 100_000]
# Seconds that a writer's requests may take to a zone. Each way has its own delay, which changes all the time, so that the
# zones get the same writes in different orders.
MAX_DELAY = 0.004


@dataclass
class Watch:
    """What a reader that polls one zone over and over has seen."""

    reads: int = 0
    misses: int = 0
    torn: int = 0
    steps_back: int = 0
    newest: dict[str, int] = field(default_factory=dict)


def value_of(key: str, writer: int, number: int, fills: list[int]) -> bytes:
    """Make a value whose parts name its writer: no half of it, and no mixture with another value, is whole."""
    fill = fills[(number + writer) % len(fills)]
    head = b"%s %d %d %d " % (key.encode(), writer, number, fill)
    return head + bytes([97 + number % 26]) * fill + b" " + head


def is_whole(key: str, value: bytes) -> bool:
    words = value.split(b" ")
    return (
        len(words) == 10
        and words[0] == key.encode()
        and words[:4] == words[5:9]
        and words[4] == bytes([97 + int(words[2]) % 26]) * int(words[3])
    )


def look(address: str, keys: list[str], watch: Watch) -> None:
    """Read every key of one zone on one connection, in one go."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as connection:
        stream = connection.makefile("rwb")
        stream.write(b"".join(b"mg %s v c u\r\n" % key.encode() for key in keys))
        stream.flush()
        for key in keys:
            watch.reads += 1
            line = stream.readline().split()
            if line[0] == b"EN":
                watch.misses += 1
                continue
            value = stream.read(int(line[1]) + 2)[:-2]
            if not value and line[0] == b"VA" and b"Z" in line[2:] and b"X" not in line[2:]:
                watch.misses += 1  # a stub
                continue
            watch.torn += not is_whole(key.rpartition(":")[2], value)
            version = MAX_CAS - int(line[2][1:])
            watch.steps_back += version < watch.newest.get(key, 0)
            watch.newest[key] = version
        stream.close()


def ttl_of(writer: int) -> int:
    """Return a TTL that names the value it belongs to."""
    return 10_000 + 100 * writer


def held(address: str, key: str) -> tuple[int, int, bool]:
    """Version, seconds left, and whether it is marked stale."""
    line = ask(address, f"mg {key} c t u\r\n".encode(), b"\r\n").split()
    return MAX_CAS - int(line[1][1:]), int(line[2][1:]), b"X" in line


@dataclass
class End:
    """Copies of keys that are not the latest version at the end, or have the TTL of another version, or a stale mark."""

    behind: int = 0
    wrong_ttl: int = 0
    marked: int = 0


async def race(zones, namespace: str, seed: int, ordering: str, fills: list[int]) -> tuple[Watch, End]:
    """Let writers race. Return what a polling reader saw, and what zones hold at the end."""
    chooser = random.Random(seed)
    keys = [f"key-{number}" for number in range(KEYS)]
    full = [f"{namespace}:{key}" for key in keys]
    newest: dict[str, tuple[int, int]] = {}  # version and writer
    watches = {address: Watch() for addresses in zones.zones.values() for address in addresses}
    async with AsyncExitStack() as stack:
        ways: list[FaultProxy] = []
        clients: list[EVCache] = []
        for _ in range(WRITERS):
            proxies = {zone: await stack.enter_async_context(FaultProxy(nodes[0])) for zone, nodes in zones.zones.items()}
            ways += proxies.values()
            addresses = {zone: [proxy.address] for zone, proxy in proxies.items()}
            cache = EVCache(namespace, addresses, local_zone="eu-1a", ordering=ordering, **PATIENT)
            clients.append(await stack.enter_async_context(cache))
        for key in keys:
            await clients[0].set(key, value_of(key, 99, 0, fills), consistency="all")

        async def vary() -> None:
            while True:
                for proxy in ways:
                    proxy.delay_requests = chooser.random() * MAX_DELAY
                await asyncio.sleep(MAX_DELAY)

        async def poll() -> None:
            while True:
                for address, watch in watches.items():
                    await asyncio.to_thread(look, address, full, watch)

        async def put(writer: int, key: str, number: int) -> None:
            value = value_of(key, writer, number, fills)
            result = await clients[writer].set(key, value, ttl=ttl_of(writer), consistency="all")
            assert result, result
            assert result.version is not None
            newest[key] = max(newest.get(key, (0, 0)), (result.version, writer))

        async def write(writer: int) -> None:
            mine = random.Random(seed * 1000 + writer)
            for number, key in enumerate(mine.choices(keys, k=WRITES_OF_EACH)):
                await put(writer, key, number)

        around = [asyncio.create_task(vary()), asyncio.create_task(poll())]
        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        # What zones end with is decided by the last writes of a key: all writers make theirs at once.
        for key in keys:
            await asyncio.gather(*(put(writer, key, WRITES_OF_EACH) for writer in range(WRITERS)))
        for task in around:
            task.cancel()
        await asyncio.wait(around)

    seen = Watch()
    for watch in watches.values():
        for name in ("reads", "misses", "torn", "steps_back"):
            setattr(seen, name, getattr(seen, name) + getattr(watch, name))
    end = End()
    for key, (newest_version, writer) in newest.items():
        for addresses in zones.zones.values():
            version, left, marked = held(addresses[0], f"{namespace}:{key}")
            end.behind += version != newest_version
            end.wrong_ttl += not ttl_of(writer) - 100 < left <= ttl_of(writer)
            end.marked += marked
    return seen, end


@pytest.mark.parametrize("fills", [SMALL, STRADDLING, LARGE], ids=["three copies", "both forms", "one copy"])
def test_the_newest_write_wins_in_every_zone(versioned_zones, namespace, fills):
    """No zone goes back to an older version, ends with one, or shows a reader nothing or half a value on the way."""
    seen, end = asyncio.run(race(versioned_zones, namespace, seed=7, ordering="newest", fills=fills))
    assert (seen.misses, seen.torn, seen.steps_back) == (0, 0, 0)
    assert end == End()
    assert seen.reads > KEYS * 10


@pytest.mark.parametrize("fills", [SMALL, STRADDLING, LARGE], ids=["three copies", "both forms", "one copy"])
def test_without_the_guard_the_same_race_leaves_zones_different(versioned_zones, namespace, fills):
    """So the race is one, and the test above can fail: in order of arrival, zones end different and readers go back."""
    seen, end = asyncio.run(race(versioned_zones, namespace, seed=7, ordering="arrival", fills=fills))
    assert seen.steps_back > 0
    assert end.behind > 0
