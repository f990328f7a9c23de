"""The clients, each with the same few operations. One object holds a connection to every zone, as a service would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiomcache
import emcache

from evcache import EVCache

KEY = "benchmark:key"

# The clients that send one request at a time on a connection get enough of them for 32 callers; with their default of 2
# they are two to three times slower.
POOL_SIZE = 32


@dataclass
class Contender:
    """A client: how it reads a key from the local zone, and how it writes one to all zones."""

    name: str
    get: Callable[[], Awaitable[bytes | None]]
    set_everywhere: Callable[[], Awaitable[object]]


@asynccontextmanager
async def contenders(ports: list[int], value: bytes) -> AsyncIterator[list[Contender]]:
    """All of them, connected, with the value in place."""
    async with AsyncExitStack() as stack:
        yield [
            await _evcache(stack, ports, value, "evcache"),
            await _evcache(stack, ports, value, "evcache, arrival", ordering="arrival"),
            # What it costs to remember versions, to look for zones that are behind, and to keep what zones missed.
            await _evcache(stack, ports, value, "evcache, no repair", repair=False, remember_versions=0, hints=None),
            await _aiomcache(stack, ports, value),
            await _emcache(stack, ports, value),
        ]


async def _evcache(stack: AsyncExitStack, ports: list[int], value: bytes, name: str, **options: Any) -> Contender:
    zones = {f"zone-{number}": [f"127.0.0.1:{port}"] for number, port in enumerate(ports)}
    cache = await stack.enter_async_context(
        # A benchmark that fails on a busy machine tells nothing: long timeouts, which cost the same.
        EVCache("benchmark", zones, local_zone="zone-0", read_timeout=10, write_timeout=10, **options)
    )
    await cache.set("key", value, consistency="all")
    # The peers' gather waits for every zone, so ours does too.
    return Contender(name, lambda: cache.get("key"), lambda: cache.set("key", value, consistency="all"))


async def _aiomcache(stack: AsyncExitStack, ports: list[int], value: bytes) -> Contender:
    clients = [aiomcache.Client("127.0.0.1", port, pool_size=POOL_SIZE) for port in ports]
    for client in clients:
        stack.push_async_callback(client.close)
    key = b"aiomcache:" + KEY.encode()

    async def set_everywhere() -> None:
        await asyncio.gather(*(client.set(key, value, exptime=900) for client in clients))

    await set_everywhere()
    return Contender("aiomcache", lambda: clients[0].get(key), set_everywhere)


async def _emcache(stack: AsyncExitStack, ports: list[int], value: bytes) -> Contender:
    clients = [
        await emcache.create_client(
            [emcache.MemcachedHostAddress("127.0.0.1", port)], max_connections=POOL_SIZE, timeout=None
        )
        for port in ports
    ]
    for client in clients:
        stack.push_async_callback(client.close)
    key = b"emcache:" + KEY.encode()

    async def get() -> bytes | None:
        item = await clients[0].get(key)
        return None if item is None else item.value

    async def set_everywhere() -> None:
        await asyncio.gather(*(client.set(key, value, exptime=900) for client in clients))

    await set_everywhere()
    return Contender("emcache", get, set_everywhere)
