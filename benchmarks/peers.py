"""The other asyncio clients: one object for each zone, as a service that writes to several would have."""

from __future__ import annotations

import asyncio
import operator
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiomcache
import emcache

from benchmarks.measuring import Run
from benchmarks.works import Work

TTL_SECONDS = 900

Opener = Callable[[AsyncExitStack, Work, list[int]], Awaitable[Run]]

# A connection of these clients carries one request at a time. Their documentation names 2 connections as the default, and
# advises one for each concurrent request. Each run tries all of these sizes and takes the fastest.
POOLS = {1: (1, 2), 32: (1, 2, 8, 32), 256: (1, 8, 32, 256)}


def pool_sizes(work: Work) -> tuple[int, ...]:
    """Return the sizes to try. A caller of `set_many` has as many requests at a time as a number of callers."""
    return POOLS[32 if work.kind == "set_many" else work.callers]


def aiomcache_variants(work: Work) -> dict[str, Opener] | str:
    """With several sizes of its pool."""
    if work.kind == "near hit":
        return "has no near cache"
    return {connections(size): partial(_aiomcache, pool=size) for size in pool_sizes(work)}


def emcache_variants(work: Work, *, autobatching: bool = False) -> dict[str, Opener] | str:
    """With several sizes of its pool; `autobatching`: gets of one tick of the loop travel together."""
    if work.kind == "near hit":
        return "has no near cache"
    if autobatching and work.kind not in ("get hit", "get miss"):
        return "batches single gets alone"
    return {connections(size): partial(_emcache, pool=size, autobatching=autobatching) for size in pool_sizes(work)}


def connections(size: int) -> str:
    """Name a variant by the size of its pool."""
    return f"{size} connection{'' if size == 1 else 's'}"


async def _aiomcache(stack: AsyncExitStack, work: Work, ports: list[int], *, pool: int) -> Run:
    # It knows one server. Those who have several divide their keys by a hash.
    clients = [aiomcache.Client("127.0.0.1", port, pool_size=pool) for port in ports[: work.zones * work.nodes]]
    for client in clients:
        stack.push_async_callback(client.close)
    value = work.value
    keys = [b"aiomcache:" + name.encode() for name in work.names]

    def client_of(key: bytes) -> aiomcache.Client:
        return clients[zlib.crc32(key) % work.nodes]

    if work.kind == "set":

        def written_to_one(key: bytes) -> Callable[[], Awaitable[Any]]:
            return partial(clients[0].set, key, value, exptime=TTL_SECONDS)

        def written_to_all(key: bytes) -> Callable[[], Awaitable[Any]]:
            async def call() -> bool:
                return all(await asyncio.gather(*(client.set(key, value, exptime=TTL_SECONDS) for client in clients)))

            return call

        calls = list(map(written_to_one if work.zones == 1 else written_to_all, keys))
        return Run("aiomcache", calls, written=[(port, keys[0]) for port in ports[: work.zones]])
    if work.kind == "set_many":

        async def store_many() -> bool:
            # It has no call for several keys.
            return all(
                await asyncio.gather(*(client.set(key, value, exptime=TTL_SECONDS) for key in keys for client in clients))
            )

        written = [(port, keys[0]) for port in ports[: work.zones]]
        return Run("aiomcache", [store_many] * work.callers, written=written)
    if work.kind == "get miss":
        missing = [key + b":none" for key in keys]
        if work.zones == 1:
            return Run("aiomcache", [partial(clients[0].get, key) for key in missing], is_right=operator.not_)
        return Run("aiomcache", [_one_after_another(clients, key) for key in missing], is_right=operator.not_)
    for key in keys:
        await client_of(key).set(key, value, exptime=TTL_SECONDS)
    if work.kind == "get hit":
        return Run("aiomcache", [partial(clients[0].get, key) for key in keys], values=lambda answer: [answer])

    async def many_of_one() -> dict[bytes, bytes | None]:
        return dict(zip(keys, await clients[0].multi_get(*keys), strict=True))

    async def many() -> dict[bytes, bytes | None]:
        parts: dict[aiomcache.Client, list[bytes]] = {}
        for key in keys:
            parts.setdefault(client_of(key), []).append(key)
        found: dict[bytes, bytes | None] = {}
        answers = await asyncio.gather(*(client.multi_get(*part) for client, part in parts.items()))
        for part, answer in zip(parts.values(), answers, strict=True):
            found.update(zip(part, answer, strict=True))
        return found

    return Run(
        "aiomcache",
        [many_of_one if work.nodes == 1 else many] * work.callers,
        is_right=lambda answer: None not in answer.values(),
        values=lambda answer: list(answer.values()),
    )


async def _emcache(stack: AsyncExitStack, work: Work, ports: list[int], *, pool: int, autobatching: bool) -> Run:
    clients = []
    for zone in range(work.zones):
        addresses = [emcache.MemcachedHostAddress("127.0.0.1", port) for port in work.nodes_of(ports, zone)]
        client = await emcache.create_client(
            addresses, min_connections=pool, max_connections=pool, timeout=None, autobatching=autobatching
        )
        stack.push_async_callback(client.close)
        clients.append(client)
        manager = client.cluster_managment()
        while any(one.cur_connections < pool for one in manager.connection_pool_metrics().values()):
            await asyncio.sleep(0.001)  # it opens them one after another
    value = work.value
    keys = [b"emcache:" + name.encode() for name in work.names]
    first = clients[0]
    if work.kind == "set":

        def written_to_one(key: bytes) -> Callable[[], Awaitable[Any]]:
            return partial(first.set, key, value, exptime=TTL_SECONDS)

        def written_to_all(key: bytes) -> Callable[[], Awaitable[Any]]:
            async def call() -> None:
                await asyncio.gather(*(client.set(key, value, exptime=TTL_SECONDS) for client in clients))

            return call

        return Run(
            "emcache",
            list(map(written_to_one if work.zones == 1 else written_to_all, keys)),
            is_right=operator.not_,  # None when stored: it raises when not
            written=[(port, keys[0]) for port in ports[: work.zones]],
        )
    if work.kind == "set_many":

        async def store_many() -> bool:
            # It has no call for several keys.
            await asyncio.gather(*(client.set(key, value, exptime=TTL_SECONDS) for key in keys for client in clients))
            return True  # it raises if one was not stored

        written = [(port, keys[0]) for port in ports[: work.zones]]
        return Run("emcache", [store_many] * work.callers, written=written)
    if work.kind == "get miss":
        missing = [key + b":none" for key in keys]
        if work.zones == 1:
            return Run("emcache", [partial(first.get, key) for key in missing], is_right=operator.not_)
        return Run("emcache", [_one_after_another(clients, key) for key in missing], is_right=operator.not_)
    for key in keys:
        await first.set(key, value, exptime=TTL_SECONDS)
    if work.kind == "get hit":
        return Run("emcache", [partial(first.get, key) for key in keys], values=lambda item: [item.value])
    expected = len(keys)
    return Run(
        "emcache",
        [partial(first.get_many, keys)] * work.callers,
        is_right=lambda answer: len(answer) == expected,
        values=lambda answer: [item.value for item in answer.values()],
    )


def _one_after_another(clients: list[Any], key: bytes) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        for client in clients:
            found = await client.get(key)
            if found is not None:
                return found
        return None

    return call
