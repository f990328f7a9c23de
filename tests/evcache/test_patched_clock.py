"""Tests of a service may patch `time.monotonic`, as freezegun does. The client reads all times from its event loop."""

import asyncio
import time
from unittest import mock

from evcache import EVCache
from evcache.testing import LocalZones


def test_calls_succeed_while_the_clock_of_the_process_is_frozen():
    """A part of the client that kept the function would see the end of each call before it begins."""

    async def scenario(topology):
        async with EVCache("t", topology, telemetry=None) as cache:
            assert await cache.set("k", b"v", consistency="all")
            frozen = time.monotonic() + 86_400
            with mock.patch("time.monotonic", lambda: frozen):
                assert await cache.set("k", b"w", consistency="all")
                assert await cache.get("k") == b"w"
                assert await cache.get_many(["k", "none"]) == {"k": b"w"}
                assert await cache.delete("k", consistency="all")

    with LocalZones({"a": 1, "b": 1, "c": 1}, backend="embedded").running() as zones:
        asyncio.run(scenario(zones.zones))
