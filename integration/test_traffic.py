"""Bytes by zone on real servers: they report the numbers that the client counts."""

import asyncio
import shutil

import pytest

from evcache import EVCache, NodeSettings
from evcache.testing import LocalZones
from integration import raw
from integration.patience import PATIENT_CALLS
from tests.support.cores import TRANSPORTS, name_of, running

BINARY = shutil.which("memcached")
pytestmark = [pytest.mark.memcached, pytest.mark.skipif(BINARY is None, reason="no memcached binary on PATH")]

STATS, END = b"stats\r\n", b"END\r\n"


class Server:
    """Bytes that one server has exchanged with its clients, without those of these questions."""

    def __init__(self, address):
        self._address = address
        self._read = self._written = 0  # by earlier questions, up to the numbers in their replies

    def traffic(self):
        reply = raw.ask(self._address, STATS, END)
        found = dict(line.split(b" ")[1:3] for line in reply.splitlines() if line.startswith(b"STAT "))
        self._read += len(STATS)
        seen = int(found[b"bytes_read"]) - self._read, int(found[b"bytes_written"]) - self._written
        self._written += len(reply)
        return seen


@pytest.fixture(params=TRANSPORTS, ids=name_of)
def transport(request):
    name, core = request.param
    with running(core):
        yield name


async def use(cache):
    """Values of a few bytes and of a megabyte, alone, in bulk and by many callers at once."""
    values = {f"k{number}": bytes(number * 100) for number in range(50)}
    async with cache:
        assert await cache.set("large", bytes(900_000))
        assert await cache.set_many(values)
        assert await cache.get_many([*values, "nothing"]) == values
        assert await cache.get("large", consistency="all") == bytes(900_000)
        await asyncio.gather(*(cache.get(f"k{number % 60}") for number in range(300)))
        await asyncio.gather(*(cache.incr(f"n{number}", 1, initial=1) for number in range(20)))
        assert await cache.delete("large")


def test_the_servers_report_the_bytes_that_the_client_counts(transport, namespace):
    """The client is opened twice, so that its connections are made and ended twice."""
    with LocalZones({"eu-1a": 1, "eu-1b": 1}, backend="memcached", binary=BINARY).running() as zones:
        servers = {zone: Server(addresses[0]) for zone, addresses in zones.zones.items()}
        before = {zone: server.traffic() for zone, server in servers.items()}
        cache = EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            nodes=NodeSettings(transport=transport),
            ordering="arrival",
            write_consistency="all",
            **PATIENT_CALLS,
        )
        for _ in range(2):
            asyncio.run(use(cache))
            for zone, traffic in cache.stats().traffic.items():
                read, written = servers[zone].traffic()
                assert (traffic.sent, traffic.received) == (read - before[zone][0], written - before[zone][1])
                assert traffic.sent > 1_000_000
