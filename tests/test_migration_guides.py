"""The tables of the guides that compare evcache with other clients: each call gives the result of the page.

`integration/test_migration_guides.py` makes the calls of redis-py. Those of aiocache need the package, which is not among
the dependencies for development.
"""

import asyncio

import aiomcache
import pytest
from pymemcache import serde
from pymemcache.client.base import Client

from evcache import DecodeError, EVCache
from evcache.testing import LocalZones
from tests.support.fake_server import make_server
from tests.support.side_by_side import calls, results

SECONDS = 10.0  # no call fails because the machine is busy
ZONES = ("eu-1a", "eu-1b", "eu-1c")


@pytest.fixture
def server():
    """Host and port of an empty server. It runs in another thread, because pymemcache blocks."""
    with LocalZones({"old": 1}, backend="embedded").running() as zones:
        host, port = zones.zones["old"][0].split(":")
        yield host, int(port)


@pytest.mark.parametrize("page", ["from-redis-py.md", "from-aiocache.md", "from-pymemcache.md", "from-aiomcache.md"])
def test_calls_of_evcache_give_what_the_page_says(page):
    async def main():
        servers = {zone: make_server() for zone in ZONES}  # their clock stands: a TTL is the whole TTL
        for server in servers.values():
            await server.start()
        addresses = {zone: [server.address] for zone, server in servers.items()}
        try:
            async with EVCache("new", addresses, local_zone="eu-1a", read_timeout=SECONDS, write_timeout=SECONDS) as cache:
                return await results(made, {"cache": cache})
        finally:
            for server in servers.values():
                await server.stop()

    made = calls(page, "evcache")
    assert len(made) > 15
    assert asyncio.run(main()) == made


def test_calls_of_pymemcache_give_what_the_page_says(server):
    made = calls("from-pymemcache.md", "pymemcache")
    assert len(made) > 15
    client = Client(server, timeout=SECONDS)
    try:
        assert asyncio.run(results(made, {"client": client})) == made
    finally:
        client.close()


def test_calls_of_aiomcache_give_what_the_page_says(server):
    async def main():
        client = aiomcache.Client(*server)
        try:
            return await results(made, {"client": client, "aiomcache": aiomcache})
        finally:
            await client.close()

    made = calls("from-aiomcache.md", "aiomcache")
    assert len(made) > 15
    assert asyncio.run(main()) == made


def test_calls_of_aiocache_give_what_the_page_says(server):
    aiocache = pytest.importorskip("aiocache")

    async def main():
        old = aiocache.Cache(aiocache.Cache.MEMCACHED, endpoint=server[0], port=server[1], timeout=SECONDS)
        try:
            return await results(made, {"old": old})
        finally:
            await old.close()

    made = calls("from-aiocache.md", "aiocache")
    assert len(made) > 15
    assert asyncio.run(main()) == made


def read_by_evcache(address, key):
    """Return the type of the value that clients with and without interop mode read, or `DecodeError`."""

    async def main():
        found = set()
        for interop in (False, True):
            zones = {"eu-1a": [f"{address[0]}:{address[1]}"]}
            async with EVCache("user", zones, interop=interop, read_timeout=SECONDS) as cache:
                try:
                    found.add(type(await cache.get(key)))
                except DecodeError:
                    found.add(DecodeError)
        return found

    (kind,) = asyncio.run(main())
    return kind


@pytest.mark.parametrize(
    ("form", "value", "kind"),
    [
        (None, b"caf\xc3\xa9", str),
        (None, b"\xff", DecodeError),
        (None, "Ada", str),
        (None, 7, str),
        (serde.pickle_serde, b"Ada", str),
        (serde.pickle_serde, "Ada", DecodeError),
        (serde.pickle_serde, 7, DecodeError),
        (serde.pickle_serde, {"name": "Ada"}, DecodeError),
        (serde.pickle_serde, 1.5, DecodeError),
        (serde.compressed_serde, "Ada" * 1000, DecodeError),
        (serde.compressed_serde, b"Ada" * 1000, DecodeError),
    ],
)
def test_values_of_pymemcache_are_read_as_the_page_says(server, form, value, kind):
    client = Client(server, serde=form, timeout=SECONDS, default_noreply=False)
    try:
        assert client.set("user:42", value)
        assert client.get("user:42") is not None
    finally:
        client.close()
    assert read_by_evcache(server, "42") is kind


@pytest.mark.parametrize(("value", "kind"), [(b"Ada", str), (b"\xff", DecodeError)])
def test_values_of_aiomcache_are_read_as_the_page_says(server, value, kind):
    async def write():
        client = aiomcache.Client(*server)
        assert await client.set(b"user:42", value)
        await client.close()

    asyncio.run(write())
    assert read_by_evcache(server, "42") is kind


def test_a_namespace_with_versions_is_not_for_two_clients(server):
    """What the pages warn of: a tombstone is a value to pymemcache, and an error to aiomcache, as is an int."""

    async def main():
        client = aiomcache.Client(*server)
        async with EVCache("user", {"eu-1a": [f"{server[0]}:{server[1]}"]}, write_timeout=SECONDS) as cache:
            await cache.set("42", "Ada")
            assert await client.get(b"user:42") == b"Ada"
            await cache.set("42", 7)
            with pytest.raises(aiomcache.ClientException):
                await client.get(b"user:42")
            await cache.delete("42")
            with pytest.raises(aiomcache.ClientException):
                await client.get(b"user:42")
        await client.close()

    asyncio.run(main())
    client = Client(server, timeout=SECONDS, default_noreply=False)
    try:
        assert client.get("user:42") == b""
        assert client.add("user:42", b"Grace") is False
    finally:
        client.close()
